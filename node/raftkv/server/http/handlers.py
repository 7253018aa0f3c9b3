"""One coroutine for each row of the route table: its meaning, a call of the node, the answer.

Called by `raftkv.server.http.app`, which hands in a `Request` and sends the `Response`; knows no
HTTP library, so another edge can call the same handlers. A handler that is cancelled (the client
went away) cancels its call of the node.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST

from raftkv.kv.commands import Command, encode_command
from raftkv.kv.outcomes import Outcome
from raftkv.kv.ranges import Page
from raftkv.node.events import Consistency, Failure, FailureCode, Get, ReadResult
from raftkv.node.status import State, Status
from raftkv.server.driver_api import DriverApi
from raftkv.server.http import ranges, requests
from raftkv.server.http.authorisation import (
    Admin,
    AnyRole,
    Authenticate,
    Identity,
    ReadKey,
    ReadRange,
    WriteKey,
    WriteRange,
    authorise,
)
from raftkv.server.http.problems import WRONG_CLUSTER, Refused, problem_of
from raftkv.server.http.render import (
    Renderer,
    Response,
    StreamBroken,
    cluster_body,
    hex_id,
    status_body,
)
from raftkv.server.http.requests import Headers
from raftkv.server.http.routes import ROUTES, Listener, Match, Route, match_route
from raftkv.server.http.settings import HttpSettings
from raftkv.server.http.targets import key_of_base64url, key_of_path, parse_query, split_target
from raftkv.server.metrics import Metrics

# A node that has not heard of a leader for so long is not ready (API contract).
LEADER_SEEN_SECONDS_MAX: Final = 10.0

_READS: Final = frozenset({"GET", "HEAD"})


@dataclass(slots=True)
class Request:
    """A request as it came, its body not yet read."""

    method: str
    target: str  # raw, never decoded
    headers: Headers
    # Reads the body, at most so many bytes, else refuses with 413.
    read_body: Callable[[int], Awaitable[bytes]]
    route: str = "(none)"  # the path of the matched row, for metrics
    identity: Identity | None = None  # who sent it; None: there is no token file
    is_authorised: bool = False  # whether what it touches was allowed to ``identity``


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
        self._settings = settings
        self._metrics = metrics
        self._must_be_local = must_be_local
        self._authenticate = authenticate
        self._started_at = time.monotonic()
        self.renderer = Renderer(settings.node_name)
        self._handlers: dict[str, Callable[[Request, Match, str], Awaitable[Response]]] = {
            route.handler: getattr(self, route.handler) for route in ROUTES
        }

    async def answer(self, request: Request) -> Response:
        """The answer to ``request``; refusals and failures are answers too."""
        try:
            path, query = split_target(request.target)
            match = match_route(request.method, path, self._listener)
            request.route = match.route.path
            requests.check_head(
                request.headers,
                is_write=request.method not in _READS,
                must_be_local=self._must_be_local,
            )
            if self._authenticate is not None and match.route.needs_token:
                self._check_token(request, match.route, self._authenticate)
            if match.route.handler != "bootstrap":
                self._check_cluster(request)
            response = await self._handlers[match.route.handler](request, match, query)
        except Refused as refused:
            return self.renderer.problem(refused.problem, self._driver.status().revision)
        # Fails closed: a handler that forgot to ask is found by the first test with a token.
        assert request.identity is None or request.is_authorised, "a handler did not authorise"
        return response

    def is_draining(self) -> bool:
        """Whether requests should go elsewhere from now on."""
        return self._driver.status().state is State.DRAINING

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

    # ---- keys -------------------------------------------------------------------------------

    async def read_key(self, request: Request, match: Match, query: str) -> Response:
        """`GET` and `HEAD` of a key."""
        asked = requests.parse_read(_key_of(match), query, request.headers)
        authorise(request, ReadKey(asked.key))
        answer = await self._driver.read(
            Get(asked.key, asked.revision),
            asked.consistency,
            asked.min_revision,
            asked.timeout_seconds,
        )
        if isinstance(answer, Failure):
            return self._failed(answer)
        assert isinstance(answer, ReadResult)
        return self.renderer.read(asked, answer)

    async def read_range(self, request: Request, _match: Match, query: str) -> Response:
        """`GET` and `HEAD` of a range."""
        asked = ranges.parse_range(query, request.headers.getall("Accept", []))
        authorise(request, ReadRange(asked.first.start, asked.first.end))
        deadline = time.monotonic() + asked.timeout_seconds
        page = await self._driver.read(
            asked.first, asked.consistency, asked.min_revision, asked.timeout_seconds
        )
        if isinstance(page, Failure):
            return self._failed(page)
        assert isinstance(page, Page)
        consistency, revision = asked.consistency, page.revision
        if asked.as_lines and request.method != "HEAD":
            stream = self._lines(asked, page)
            return self.renderer.read_lines(consistency, revision, stream)
        pages, count, size = [page], page.count, ranges.page_bytes(page)
        while page.resume is not None and (
            asked.first.count_only or (count < asked.first.limit and size < ranges.PAGE_BYTES_MAX)
        ):
            following = await self._next_piece(asked, page, count, deadline - time.monotonic())
            if isinstance(following, Failure):
                return self._failed(following)
            page = following
            pages.append(page)
            count += page.count
            size += ranges.page_bytes(page)
        body = ranges.page_body(asked, pages)
        return self.renderer.read_json(consistency, revision, body)

    async def _lines(self, asked: ranges.ReadRange, page: Page) -> AsyncIterator[bytes]:
        """All of a range from ``page`` on; each piece has the whole timeout for itself."""
        count = page.count
        yield ranges.page_lines(asked, page)
        while page.resume is not None and count < asked.first.limit:
            following = await self._next_piece(asked, page, count, asked.timeout_seconds)
            if isinstance(following, Failure):
                raise StreamBroken(following.detail)
            page = following
            count += page.count
            yield ranges.page_lines(asked, page)

    async def _next_piece(
        self, asked: ranges.ReadRange, page: Page, count: int, seconds: float
    ) -> Page | Failure:
        """What follows ``page``, from this node's store: the revision is chosen already."""
        if seconds <= 0:
            return Failure(FailureCode.DEADLINE, "the deadline passed while reading the range")
        piece = asked.next_piece(page, 0 if asked.first.count_only else count)
        following = await self._driver.read(piece, Consistency.LOCAL, page.revision, seconds)
        assert isinstance(following, Page | Failure)
        return following

    async def write_key(self, request: Request, match: Match, query: str) -> Response:
        """`PUT`, `DELETE` and `POST` of a key."""
        asked = requests.parse_write(request.method, _key_of(match), query, request.headers)
        authorise(request, WriteKey(asked.key), *[ReadKey(asked.key)] * asked.returns_previous)
        location = self._leader_elsewhere() if asked.may_redirect else None
        if location is not None:
            revision = self._driver.status().revision
            return self.renderer.redirect(location + request.target, revision)
        limit = self._settings.value_bytes_max
        body = await request.read_body(limit) if asked.has_body else b""
        answer = await self._write(asked.command(body, limit), asked.timeout_seconds)
        if isinstance(answer, Failure):
            return self._failed(answer)
        return self.renderer.write(asked.key, answer)

    async def delete_range(self, request: Request, _match: Match, query: str) -> Response:
        """`DELETE` of a range."""
        requests.check_promises(request.headers)
        asked = ranges.parse_delete(query, request.headers)
        authorise(request, WriteRange(asked.command.start, asked.command.end))
        location = self._leader_elsewhere() if asked.may_redirect else None
        if location is not None:
            revision = self._driver.status().revision
            return self.renderer.redirect(location + request.target, revision)
        answer = await self._write(asked.command, asked.timeout_seconds)
        if isinstance(answer, Failure):
            return self._failed(answer)
        return self.renderer.write(b"", answer)

    async def _write(self, command: Command, timeout_seconds: float) -> Outcome | Failure:
        answer = await self._driver.write(encode_command(command), timeout_seconds)
        is_failure = isinstance(answer, Failure)
        (self._metrics.proposals_failed if is_failure else self._metrics.proposals_committed).inc()
        return answer

    def _leader_elsewhere(self) -> str | None:
        """The leader's advertised address; None if it is this node or not known."""
        status = self._driver.status()
        if status.leader is None or status.leader == status.member_id:
            return None
        return self._driver.client_url_of(status.leader)

    def _failed(self, failure: Failure) -> Response:
        return self.renderer.problem(problem_of(failure), self._driver.status().revision)

    # ---- cluster and operations -------------------------------------------------------------

    async def status(self, request: Request, _match: Match, query: str) -> Response:
        """`GET /v1/status`."""
        authorise(request, AnyRole())
        parse_query(query, ())
        status = self._driver.status()
        uptime_seconds = time.monotonic() - self._started_at
        body = status_body(status, uptime_seconds, self._settings.warnings)
        return self.renderer.json(body, status.revision)

    async def cluster(self, request: Request, _match: Match, query: str) -> Response:
        """`GET /v1/cluster`."""
        authorise(request, AnyRole())
        parse_query(query, ())
        body = cluster_body(self._driver.cluster())
        return self.renderer.json(body, self._driver.status().revision)

    async def bootstrap(self, request: Request, _match: Match, query: str) -> Response:
        """`POST /v1/cluster/bootstrap`; the same call again answers 200 with ``repeated``."""
        body = await request.read_body(requests.JSON_BODY_BYTES_MAX)
        asked = requests.parse_bootstrap(query, body)
        answer = await self._driver.bootstrap(asked.cluster_id, asked.members)
        if isinstance(answer, Failure):
            return self._failed(answer)
        status = self._driver.status()
        return self.renderer.json(
            {
                "cluster_id": answer.cluster_id,
                "repeated": answer.repeated,
                "state": status.state,
                "members": [
                    {"id": hex_id(member.id), "name": member.name} for member in asked.members
                ],
            },
            status.revision,
        )

    async def drain(self, request: Request, _match: Match, query: str) -> Response:
        """`POST` and `DELETE /v1/maintenance/drain`."""
        body = b""
        if request.method == "POST":
            body = await request.read_body(requests.JSON_BODY_BYTES_MAX)
        asked = requests.parse_drain(request.method, query, body)
        answer = await self._driver.drain(draining=asked.draining, avoid=asked.avoid)
        if isinstance(answer, Failure):
            return self._failed(answer)
        return self.renderer.json({"draining": answer.draining}, self._driver.status().revision)

    # ---- probes and metrics -----------------------------------------------------------------

    async def livez(self, _request: Request, _match: Match, query: str) -> Response:
        """`GET /livez`."""
        parse_query(query, ())
        stuck = self._driver.is_stuck()
        if stuck is not None:
            return self.renderer.text(503, stuck + "\n")
        return self.renderer.text(200, "ok\n")

    async def readyz(self, _request: Request, _match: Match, query: str) -> Response:
        """`GET /readyz`: failed checks are listed, with ``?verbose`` all."""
        is_verbose = requests.parse_verbose(query)
        checks = readiness(self._driver.status())
        is_ready = all(is_good for _, is_good in checks)
        if is_ready and not is_verbose:
            return self.renderer.text(200, "ok\n")
        shown = [check for check in checks if is_verbose or not check[1]]
        lines = [f"[{'+' if is_good else '-'}] {name}\n" for name, is_good in shown]
        return self.renderer.text(200 if is_ready else 503, "".join(lines))

    async def scrape(self, request: Request, _match: Match, query: str) -> Response:
        """`GET /metrics`."""
        authorise(request, AnyRole())
        parse_query(query, ())
        body = self._metrics.render(self._driver.status(), self._driver.cluster())
        return self.renderer.metrics(CONTENT_TYPE_LATEST, body)


def readiness(status: Status) -> tuple[tuple[str, bool], ...]:
    """The checks of `/readyz`, each with whether it holds (API contract)."""
    seen = status.seconds_since_leader
    is_initialised = status.cluster_id is not None and status.state is not State.FAILED
    return (
        ("initialised", is_initialised),
        ("caught up", status.caught_up),
        ("knew a leader within 10 s", seen is not None and seen <= LEADER_SEEN_SECONDS_MAX),
        ("not draining", status.state is not State.DRAINING),
    )


def _key_of(match: Match) -> bytes:
    if match.route.path.startswith("/v1/kv/"):
        return key_of_path(match.key_text)
    return key_of_base64url(match.key_text)
