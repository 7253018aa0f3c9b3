"""One pass over one cluster: observe -> plan -> execute -> status. The only orchestrator.

Called by the work queue, for one cluster at a time. Level-triggered: what woke it is not known and
does not matter, and nothing is remembered from pass to pass.

1. Nothing happens on a stale view: the caches must follow their watches, the Lease must be held.
2. Observe objects, pods and nodes. 3. Plan, purely. 4. Execute, in order.
5. Write the status and post Events, only where they differ from the last.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from raftkv_operator import names
from raftkv_operator.actions import (
    Action,
    RecordBootstrap,
    RecordHibernation,
    RecordReplacement,
    WriteStatus,
)
from raftkv_operator.api import Status, parse_cluster, parse_status, to_json
from raftkv_operator.clusters import ClusterKey, Clusters, cluster_key
from raftkv_operator.endpoints import Endpoints
from raftkv_operator.errors import InvalidSpecError, NotFoundError
from raftkv_operator.execute import Executor
from raftkv_operator.kube import Kube
from raftkv_operator.lease import Gate
from raftkv_operator.metrics import Metrics
from raftkv_operator.node_client import Nodes
from raftkv_operator.objects import JsonObject
from raftkv_operator.observe import observe
from raftkv_operator.plan import plan
from raftkv_operator.status import build_status, events_between, invalid_status
from raftkv_operator.watch import Caches

logger = logging.getLogger(__name__)

NOT_READY_SECONDS = 1.0  # until the caches and the Lease are looked at again
STALE_SECONDS = 0.5
FAILED_SECONDS = 5.0

_RECORDS = (RecordBootstrap, RecordHibernation, RecordReplacement)


class Reconciler:
    """Everything a pass needs; holds no state of its own."""

    def __init__(
        self,
        *,
        kube: Kube,
        caches: Caches,
        nodes: Nodes,
        endpoints: Endpoints,
        clusters: Clusters,
        gate: Gate,
        executor: Executor,
        metrics: Metrics,
        new_cluster_id: Callable[[], str],
        now: Callable[[], datetime],
        operator_namespace: str | None,
    ) -> None:
        self._kube = kube
        self._caches = caches
        self._nodes = nodes
        self._endpoints = endpoints
        self._clusters = clusters
        self._gate = gate
        self._executor = executor
        self._metrics = metrics
        self._new_cluster_id = new_cluster_id
        self._now = now
        self._operator_namespace = operator_namespace

    async def reconcile(self, key: ClusterKey) -> float | None:
        """Make one pass; returns when to look again in seconds, None for the usual resync.

        Raises:
            KubeError: something could not be read; nothing was done.
        """
        body = self._clusters.get(key)
        if body is None:
            return None
        if not self._gate.is_open or not self._caches.is_current:
            return NOT_READY_SECONDS
        with self._metrics.reconcile_seconds.time():
            self._metrics.reconcile_total.inc()
            try:
                return await self._pass(body)
            except Exception:
                self._metrics.count_failed_pass(key)
                raise  # the queue counts it, and tries again

    async def _pass(self, body: JsonObject) -> float | None:
        now = self._now()
        try:
            cluster = parse_cluster(body)
        except InvalidSpecError as error:
            await self._report_invalid(body, str(error), now)
            self._metrics.report_good_pass(cluster_key(body))  # there is nothing it could do
            return None
        if cluster.is_deleting:
            return None  # owner references do the rest (rule 11)
        observed = await observe(
            cluster,
            kube=self._kube,
            caches=self._caches,
            nodes=self._nodes,
            endpoints=self._endpoints,
            now=now,
        )
        planned = plan(
            cluster,
            observed,
            operator_namespace=self._operator_namespace,
            new_cluster_id=self._new_cluster_id(),
        )
        if planned.actions and not await self._is_current(body):
            return STALE_SECONDS if cluster_key(body) in self._clusters else None
        outcome = await self._executor.execute(body, planned.actions, now=now)
        if outcome.is_stale:
            return STALE_SECONDS
        if any(isinstance(item, _RECORDS) for item in outcome.performed):
            return 0.0  # a record is acted on only after it was read again (rules 1, 3 and 8)
        failures = tuple(outcome.problems)
        status = build_status(cluster, observed, planned, failures, _rfc3339(now))
        self._metrics.report(cluster, status)
        if not await self._report(body, cluster.status, status, now):
            return STALE_SECONDS
        is_refused = any(item.reason != "StorageResize" for item in outcome.problems)
        if not is_refused:
            self._metrics.report_good_pass(cluster_key(body))
        if outcome.problems and all(item.reason == "StorageResize" for item in outcome.problems):
            return None if planned.wait is None else planned.wait.seconds  # asked again, but seldom
        if outcome.problems:
            self._metrics.reconcile_errors_total.inc()
            self._metrics.count_failed_pass(cluster_key(body))
            return FAILED_SECONDS
        if planned.actions:
            return STALE_SECONDS  # see what they led to
        return None if planned.wait is None else planned.wait.seconds

    async def _is_current(self, body: JsonObject) -> bool:
        """Whether the cluster still exists and wants what was read; remember it if not.

        A watch that had to list anew tells nothing of what vanished meanwhile. Acting for a
        deleted cluster would start its pods again, on the claims it left. And a watch may lag:
        who pauses a cluster, or thinks better of a change, must not see the operator go on.
        """
        key = cluster_key(body)
        try:
            live = await self._kube.get(names.CLUSTER_KIND, *key)
        except NotFoundError:
            logger.info("%s/%s was deleted while nobody watched", *key)
            self._clusters.remove(key)
            self._metrics.forget(key)
            self._endpoints.forget(key)
            return False
        return not self._clusters.put(live)  # if it changed, the next pass is about that one

    async def _report_invalid(self, body: JsonObject, message: str, now: datetime) -> None:
        """A spec that cannot be read: say so and change nothing."""
        try:
            last = parse_status(body)
        except InvalidSpecError:
            last = Status()
        generation = body["metadata"].get("generation", 0)
        status = invalid_status(last, generation, message, _rfc3339(now))
        await self._report(body, last, status, now)

    async def _report(self, body: JsonObject, last: Status, status: Status, now: datetime) -> bool:
        """Post what changed and write the status if it differs; False when it was outdated."""
        if to_json(status) == (body.get("status") or {}):
            return True
        uid = body["metadata"]["uid"]
        actions: list[Action] = [*events_between(uid, last, status), WriteStatus(status)]
        outcome = await self._executor.execute(body, actions, now=now)
        return len(outcome.performed) == len(actions)


def _rfc3339(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
