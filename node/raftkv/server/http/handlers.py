"""What is done with every request, and which call each row of the route table makes.

Called by `raftkv.server.http.app`, which hands in a `Request` and sends the `Response`.
"""

from typing import Final

from raftkv.node.status import State
from raftkv.server.driver_api import DriverApi
from raftkv.server.http import requests
from raftkv.server.http.authorisation import Admin, Authenticate, authorise
from raftkv.server.http.calls import (
    backup,
    cluster,
    console,
    keys,
    leases,
    locks,
    maintenance,
    probes,
    ranges,
    txn,
    watch,
)
from raftkv.server.http.endpoint import Call, Endpoint, Request
from raftkv.server.http.problems import WRONG_CLUSTER, Refused
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Listener, Match, Route, match_route
from raftkv.server.http.settings import HttpSettings
from raftkv.server.http.targets import split_target
from raftkv.server.metrics import Metrics

#: By the name that the route table uses.
CALLS: Final[dict[str, Call]] = {
    "read_key": keys.read_key,
    "write_key": keys.write_key,
    "read_range": ranges.read_range,
    "delete_range": ranges.delete_range,
    "watch": watch.watch,
    "txn": txn.txn,
    "grant_lease": leases.grant_lease,
    "list_leases": leases.list_leases,
    "read_lease": leases.read_lease,
    "revoke_lease": leases.revoke_lease,
    "keep_lease_alive": leases.keep_lease_alive,
    "list_locks": locks.list_locks,
    "read_lock": locks.read_lock,
    "acquire_lock": locks.acquire_lock,
    "release_lock": locks.release_lock,
    "keep_lock_alive": locks.keep_lock_alive,
    "status": cluster.status,
    "cluster": cluster.cluster,
    "bootstrap": cluster.bootstrap,
    "add_member": cluster.add_member,
    "remove_member": cluster.remove_member,
    "promote_member": cluster.promote_member,
    "replace_member": cluster.replace_member,
    "transfer_leader": cluster.transfer_leader,
    "take_snapshot": maintenance.take_snapshot,
    "compact": maintenance.compact,
    "drain": maintenance.drain,
    "backup": backup.backup,
    "page": console.page,
    "page_file": console.page_file,
    "preflight": console.preflight,
    "describe": probes.describe,
    "livez": probes.livez,
    "readyz": probes.readyz,
    "scrape": probes.scrape,
}

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Handlers:
    """The node's answers on one listener."""

    def __init__(
        self,
        listener: Listener,
        driver: DriverApi,
        settings: HttpSettings,
        metrics: Metrics,
        *,
        must_be_local: bool,
        authenticate: Authenticate | None = None,
    ) -> None:
        self._listener = listener
        self._driver = driver
        self.must_be_local = must_be_local
        self._authenticate = authenticate
        self.endpoint = Endpoint(driver, settings, metrics)
        self.renderer = self.endpoint.renderer

    async def answer(self, request: Request) -> Response:
        """The answer to ``request``; refusals and failures are answers too."""
        try:
            match, query = self.admit(request)
            response = await CALLS[match.route.handler](self.endpoint, request, match, query)
        except Refused as refused:
            return self.renderer.problem(refused.problem, self._driver.status().revision)
        # Fails closed: a handler that forgot to ask is found by the first test with a token.
        assert request.identity is None or request.is_authorised, "a handler did not authorise"
        return response

    def admit(self, request: Request) -> tuple[Match, str]:
        """The row that serves ``request``, and its raw query. Raises Refused.

        What every request is asked is done then; what it touches is for the handler to authorise.
        """
        path, query = split_target(request.target)
        match = match_route(request.method, path, self._listener)
        request.route = match.route.path
        requests.check_head(
            request.headers,
            is_write=request.method not in _READS,
            must_be_local=self.must_be_local,
        )
        if self._authenticate is not None and match.route.needs_token:
            self._check_token(request, match.route, self._authenticate)
        if match.route.handler != "bootstrap":
            self._check_cluster(request)
        return match, query

    @property
    def serves_keys(self) -> bool:
        """Whether this is a listener for clients."""
        return Listener.CLIENT in self._listener

    @property
    def needs_token(self) -> bool:
        """Whether requests must say who sends them."""
        return self._authenticate is not None

    def is_draining(self) -> bool:
        """Whether requests should go elsewhere from now on."""
        return self._driver.status().state is State.DRAINING

    def end_watches(self) -> None:
        """End watches and long polls, also those to come."""
        if self.serves_keys:
            self.endpoint.watches.close()

    def _check_token(self, request: Request, route: Route, authenticate: Authenticate) -> None:
        """Who asks, and whether calls that change the cluster are theirs to make."""
        request.identity = authenticate(request.headers)
        if route.listener is Listener.ADMIN:
            authorise(request, Admin())

    def _check_cluster(self, request: Request) -> None:
        meant = requests.cluster_meant(request.headers)
        if not meant:
            return
        own = self._driver.status().cluster_id
        if any(cluster_id != own for cluster_id in meant):
            belongs = f"cluster {own}" if own else "no cluster yet"
            raise Refused(WRONG_CLUSTER, f"this node belongs to {belongs}")
