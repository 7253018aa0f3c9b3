"""An operator in a world of its own: a fake Kubernetes over HTTP, fake nodes, and a fixed clock.

`World.settle` runs passes, and pods in between, until nothing more is done.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp.test_utils import TestServer
from kubernetes_asyncio.client import Configuration
from typing_extensions import override

from raftkv_operator.clusters import ClusterKey, Clusters
from raftkv_operator.errors import OperatorError
from raftkv_operator.execute import Executor
from raftkv_operator.failpoints import Failpoints
from raftkv_operator.kube import Kube
from raftkv_operator.metrics import Metrics
from raftkv_operator.objects import JsonObject
from raftkv_operator.reconcile import Reconciler
from raftkv_operator.repair_limit import RepairLimit
from raftkv_operator.resources import OWNED_KINDS, POD, POD_MONITOR
from raftkv_operator.watch import Caches
from tests.operator.examples import body
from tests.operator.fake_kubernetes import FakeKubernetes
from tests.operator.fake_nodes import FakeNodes

KEY = ClusterKey("default", "demo")
_PASSES_MAX = 40


class CrashError(BaseException):
    """The operator died here. Not an Exception: nothing in the operator may survive it."""


class CrashingFailpoints(Failpoints):
    """Raises instead of killing the test, and remembers every point that was reached."""

    def __init__(self, crash_at: str | None = None) -> None:
        super().__init__(crash_at)
        self.reached: list[str] = []
        self._armed = crash_at

    @override
    def reach(self, point: str) -> None:
        self.reached.append(point)
        if point == self._armed:
            raise CrashError(point)


class OpenGate:
    """A Lease that is held until the test says otherwise."""

    def __init__(self) -> None:
        self.is_open = True


class Operator:
    """One operator process: its own caches and view, none of which survive it."""

    def __init__(
        self,
        kubernetes: FakeKubernetes,
        kube: Kube,
        nodes: FakeNodes,
        name: str,
        own_namespace: str,
    ) -> None:
        self.clock = 0.0  # monotonic, in seconds
        self.failpoints = CrashingFailpoints()
        self.gate = OpenGate()
        self.clusters = Clusters()
        self.metrics = Metrics()
        self._kubernetes = kubernetes
        kinds = [kind for kind in (*OWNED_KINDS, POD) if kind != POD_MONITOR]
        self.caches = Caches(kube, kinds, ["default"], lambda _namespace, _name: None)
        self._drawn = 0
        self._reconciler = Reconciler(
            kube=kube,
            caches=self.caches,
            nodes=nodes,
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
            now=lambda: datetime(2026, 11, 21, 10, tzinfo=UTC),
            operator_namespace=own_namespace,
        )

    def crash_at(self, point: str) -> None:
        """Arm a point."""
        reached = self.failpoints.reached
        self.failpoints.__init__(point)  # type: ignore[misc]
        self.failpoints.reached = reached

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
        self.nodes = FakeNodes(lambda pod: kubernetes.get("pods", pod) is not None)
        self._operators = 0

    def operator(self, own_namespace: str = "raftkv-system") -> Operator:
        """A new operator process."""
        self._operators += 1
        name = f"id{self._operators}"
        return Operator(self.kubernetes, self.kube, self.nodes, name, own_namespace)

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
        """Run passes until a whole round writes nothing."""
        for _ in range(_PASSES_MAX):
            before = len(self.kubernetes.requests), len(self.nodes.bootstraps)
            self.kubernetes.run_stateful_sets()
            for operator in operators:
                await operator.see()
            for operator in operators:
                await operator.reconcile()
            after = len(self.kubernetes.requests), len(self.nodes.bootstraps)
            if before == after:
                return
        raise OperatorError(f"not settled: {self.kubernetes.requests[-20:]}")


@asynccontextmanager
async def new_world() -> AsyncIterator[World]:
    """A world, and the HTTP server in it."""
    kubernetes = FakeKubernetes()
    server = TestServer(kubernetes.build_app())
    await server.start_server()
    configuration = Configuration(host=str(server.make_url("")).rstrip("/"))
    try:
        async with Kube(configuration) as kube:
            yield World(kubernetes, kube)
    finally:
        await server.close()
