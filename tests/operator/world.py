"""An operator in a world of its own: a fake Kubernetes over HTTP, fake nodes, and a fixed clock.

`World.settle` runs passes, and pods in between, until nothing more is done.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

from aiohttp.test_utils import TestServer
from kubernetes_asyncio.client import Configuration
from typing_extensions import override

from raftkv_operator.clusters import ClusterKey, Clusters
from raftkv_operator.endpoints import Endpoints
from raftkv_operator.errors import NotFoundError, OperatorError
from raftkv_operator.execute import Executor
from raftkv_operator.failpoints import Failpoints
from raftkv_operator.kube import Kube
from raftkv_operator.metrics import Metrics
from raftkv_operator.objects import JsonObject, Kind
from raftkv_operator.reconcile import Reconciler
from raftkv_operator.repair_limit import RepairLimit
from raftkv_operator.resources import OWNED_KINDS, WATCHED_KINDS
from raftkv_operator.watch import Caches
from tests.operator.examples import body
from tests.operator.fake_kubernetes import FakeKubernetes
from tests.operator.fake_nodes import FakeNodes

KEY = ClusterKey("default", "demo")
_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_STEPS = ("add ", "promote ", "replace ", "remove ")  # of the membership: one a pass
_PASSES_MAX = 200
_PATIENCE_SECONDS = 4.0  # longer than the operator waits for anything that it does not see


class CrashError(BaseException):
    """The operator died here. Not an Exception: nothing in the operator may survive it."""


class CrashingFailpoints(Failpoints):
    """Raises instead of killing the test, and remembers every point that was reached."""

    def __init__(self, crash_at: str | None = None) -> None:
        super().__init__(crash_at)
        self.reached: list[str] = []
        self.ever: set[str] = set()  # also before `reached` was cleared
        self._armed = crash_at

    @override
    def reach(self, point: str) -> None:
        self.reached.append(point)
        self.ever.add(point)
        if point == self._armed:
            raise CrashError(point)


class OpenGate:
    """A Lease that is held until the test says otherwise."""

    def __init__(self) -> None:
        self.is_open = True


class Looker(Kube):
    """Lists without HTTP, since every round of every scenario lists every kind.

    `test_watch.py` and `test_kube.py` hold the same calls over HTTP.
    """

    def __init__(self, kubernetes: FakeKubernetes) -> None:  # no connection: none is used
        self._kubernetes = kubernetes

    @override
    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = ""
    ) -> tuple[list[JsonObject], str]:
        if kind.plural in self._kubernetes.absent:
            raise NotFoundError(f"{kind.plural} is not known")
        return self._kubernetes.listed(kind, namespace or "", selector), "0"


class Operator:
    """One operator process: its own caches and view, none of which survive it."""

    def __init__(self, world: "World", name: str, own_namespace: str) -> None:
        kube, nodes = world.kube, world.nodes
        self.clock = 0.0  # monotonic, in seconds
        self.failpoints = CrashingFailpoints()
        self.gate = OpenGate()
        self.clusters = Clusters()
        self.metrics = Metrics()
        self._kubernetes = world.kubernetes
        kinds = (*OWNED_KINDS, *WATCHED_KINDS)
        self.caches = Caches(world.looker, kinds, ["default"], lambda _namespace, _name: None)
        self._drawn = 0
        self._reconciler = Reconciler(
            kube=kube,
            caches=self.caches,
            nodes=nodes,
            endpoints=Endpoints(lambda: self.clock),
            clusters=self.clusters,
            gate=self.gate,
            executor=Executor(
                kube=kube,
                caches=self.caches,
                nodes=nodes,
                clusters=self.clusters,
                gate=self.gate,
                repair_limit=RepairLimit(lambda: self.clock),
                failpoints=self.failpoints,
            ),
            metrics=self.metrics,
            new_cluster_id=lambda: self._draw(name),
            now=lambda: world.now,
            operator_namespace=own_namespace,
        )

    def crash_at(self, point: str) -> None:
        """Arm a point."""
        reached, ever = self.failpoints.reached, self.failpoints.ever
        self.failpoints.__init__(point)  # type: ignore[misc]
        self.failpoints.reached, self.failpoints.ever = reached, ever

    async def see(self) -> None:
        """Bring caches and clusters up to date."""
        for cache in self.caches.all():
            await cache.list()
        item = self._kubernetes.get("raftkvclusters", KEY.name)
        if item is None:
            self.clusters.remove(KEY)
        else:
            self.clusters.put(item)

    async def reconcile(self) -> float | None:
        """One pass."""
        return await self._reconciler.reconcile(KEY)

    def _draw(self, name: str) -> str:
        self._drawn += 1
        return f"{name}-{self._drawn}"


class World:
    """Kubernetes, nodes, and any number of operators."""

    def __init__(self, kubernetes: FakeKubernetes, kube: Kube) -> None:
        self.kubernetes = kubernetes
        self.kube = kube
        self.api_requests: list[str] = []  # the verbs of all that was asked, reads too
        kube.on_request = self.api_requests.append
        self.looker = Looker(kubernetes)
        self.nodes = FakeNodes(self._pod_uid)
        kubernetes.on_claim_gone = self.nodes.lose_volume
        self.now = datetime(2026, 11, 21, 10, tzinfo=UTC)
        self.may_lose_quorum = False  # whether the test takes it, and not the operator
        self._operators = 0

    def operator(self, own_namespace: str = "raftkv-system") -> Operator:
        """A new operator process."""
        self._operators += 1
        name = f"id{self._operators}"
        return Operator(self, name, own_namespace)

    def _pod_uid(self, name: str) -> str | None:
        pod = self.kubernetes.get("pods", name)
        return None if pod is None else str(pod["metadata"]["uid"])

    def apply_cluster(self, **spec: Any) -> None:
        """Create or change the cluster `demo`."""
        live = self.kubernetes.get("raftkvclusters", "demo")
        if live is None:
            item = body(**spec)
            del item["metadata"]["uid"]
            self.kubernetes.put("raftkvclusters", item)
        else:
            self.kubernetes.put("raftkvclusters", {**live, "spec": {**live["spec"], **spec}})

    def status(self) -> JsonObject:
        """The status of `demo`."""
        item = self.kubernetes.get("raftkvclusters", "demo")
        assert item is not None
        status: JsonObject = item.get("status") or {}
        return status

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        (found,) = [item for item in self.status()["conditions"] if item["type"] == kind]
        return found["status"], found["reason"]

    async def settle(self, *operators: Operator) -> None:
        """Run passes until a whole round writes nothing, also after a while."""
        quiet_rounds = 0
        for _ in range(_PASSES_MAX):
            before = self._writes()
            await self.step(*operators)
            if before != self._writes():
                quiet_rounds = 0
                continue
            quiet_rounds += 1
            if quiet_rounds == 2:
                return
            for operator in operators:  # it may wait for nothing but time
                operator.clock += _PATIENCE_SECONDS
        raise OperatorError(
            f"not settled: {self.kubernetes.requests[-20:]} {self.nodes.calls[-9:]}"
        )

    async def step(self, *operators: Operator) -> None:
        """A second: Kubernetes makes pods and slices, then each operator passes once."""
        self.kubernetes.run_stateful_sets()
        self.sync_readiness()
        self.kubernetes.run_endpoint_slices()
        for operator in operators:
            operator.clock += 1.0
            await operator.see()
        for operator in operators:
            had_quorum, before = self._has_spare_quorum(), len(self.nodes.calls)
            await operator.reconcile()
            steps = [call for call in self.nodes.calls[before:] if call.startswith(_STEPS)]
            assert len(steps) <= 1, steps
            if had_quorum and not self.may_lose_quorum:
                assert self._is_asleep() or self.nodes.has_quorum(), self.kubernetes.requests[-5:]

    def sync_readiness(self) -> None:
        """The probes' answers, as the kubelets write them."""
        for pod in self.kubernetes.of("pods"):
            name = pod["metadata"]["name"]
            status = "True" if self.nodes.is_ready(name) else "False"
            if pod["status"]["conditions"][0]["status"] != status:
                pod["status"]["conditions"][0]["status"] = status
                self.kubernetes.put("pods", pod, is_spec_changed=False)

    def _writes(self) -> tuple[int, ...]:
        nodes = self.nodes
        return len(self.kubernetes.requests), len(nodes.bootstraps), len(nodes.calls)

    def _has_spare_quorum(self) -> bool:
        """Whether there is a quorum of three voters or more, which the operator must not take."""
        formed = list(self.nodes.formed.values())
        return len(formed) == 1 and len(formed[0].voters) > 2 and self.nodes.has_quorum()

    def _is_asleep(self) -> bool:
        item = self.kubernetes.get("raftkvclusters", KEY.name)
        return item is not None and item["spec"].get("replicas") == 0


@asynccontextmanager
async def new_world() -> AsyncIterator[World]:
    """A world, and the HTTP server in it."""
    kubernetes = FakeKubernetes()
    server = TestServer(kubernetes.build_app())
    await server.start_server()
    configuration = Configuration(host=str(server.make_url("")).rstrip("/"))
    try:
        # The client reads all certificates of the machine, which costs more than a scenario.
        with patch.object(ssl, "create_default_context", lambda *_, **__: _TLS):
            client = Kube(configuration)
        async with client as kube:
            yield World(kubernetes, kube)
    finally:
        await server.close()
