"""The real operator as a process, killed by its crash points; API server and nodes are fakes.

Kubernetes' controllers are played by the test. What needs a real API server is in tests/e2e.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from raftkv_operator.lease import LEASE_NAME
from tests.operator.fake_kubernetes import FakeKubernetes
from tests.operator.fake_node_server import serving_nodes
from tests.operator.world import World, new_world

pytestmark = pytest.mark.process

_TURN_SECONDS = 0.05  # of the controllers
_PATIENCE_SECONDS = 90.0  # of the test, on a loaded machine


class Real:
    """A world whose operator is a process."""

    def __init__(self, world: World, kubeconfig: Path) -> None:
        self.world = world
        self._kubeconfig = kubeconfig

    @asynccontextmanager
    async def operator(self, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A process of the operator, at an end when the context is left."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "raftkv_operator", "--namespaces", "default",
            "--identity", "one", "--metrics-addr", "127.0.0.1:0", *options,
            env={**os.environ, "KUBECONFIG": str(self._kubeconfig)},
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def until(self, what: str, fact: Callable[[], bool]) -> None:
        """Play the controllers until ``fact`` holds."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not fact():
                    self._turn()
                    await asyncio.sleep(_TURN_SECONDS)
        except TimeoutError:
            pytest.fail(f"not seen: {what}; {self.world.kubernetes.requests[-9:]}")

    async def until_dead(self, process: asyncio.subprocess.Process) -> int:
        await self.until("the end of the process", lambda: process.returncode is not None)
        assert process.returncode is not None
        return process.returncode

    def _turn(self) -> None:
        self.world.kubernetes.run_stateful_sets()
        self.world.sync_readiness()
        self.world.kubernetes.run_endpoint_slices()

    def is_serving(self, voters: int) -> bool:
        formed = self.world.nodes.formed
        status = self.world.status()
        conditions = {item["type"]: item["status"] for item in status.get("conditions", ())}
        return (
            len(formed) == 1
            and len(self.world.nodes.voters()) == voters
            and status.get("readyReplicas") == voters
            and conditions.get("Available") == "True"
            and conditions.get("Progressing") == "False"
        )


@asynccontextmanager
async def new_real(tmp_path: Path, pods: int) -> AsyncIterator[Real]:
    network = f"127.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}."
    async with new_world() as world:
        kubernetes: FakeKubernetes = world.kubernetes
        kubernetes.pod_network = network
        server = TestServer(kubernetes.build_app())
        await server.start_server()
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(str(server.make_url("")).rstrip("/"))))
        try:
            async with serving_nodes(world.nodes, network, pods):
                yield Real(world, kubeconfig)
        finally:
            await server.close()


def _kubeconfig(url: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": "none"}}],
        "contexts": [{"name": "test", "context": {"cluster": "fake", "user": "test"}}],
        "current-context": "test",
    }


async def test_rule_01_real_process_killed_again_and_again_forms_one_cluster(
    tmp_path: Path,
) -> None:
    """Founding, with a change of the spec in between; each process goes on where the last died."""
    async with new_real(tmp_path, pods=4) as real:
        real.world.apply_cluster()
        for point in ("after:apply-statefulset", "after:record-bootstrap", "after:bootstrap"):
            async with real.operator("--crash-at", point) as process:
                assert await real.until_dead(process) == -signal.SIGKILL, point
        recorded = real.world.status()["clusterID"]
        real.world.apply_cluster(replicas=4)
        async with real.operator("--crash-at", "before:promote-learner") as process:
            assert await real.until_dead(process) == -signal.SIGKILL
        async with real.operator() as process:
            await real.until("four voters", lambda: real.is_serving(4))
            process.send_signal(signal.SIGTERM)
            assert await real.until_dead(process) == 0
        assert real.world.status()["clusterID"] == recorded
        assert real.world.nodes.clusters() == {recorded}
        assert {cluster_id for _, cluster_id in real.world.nodes.bootstraps} == {recorded}
        lease = real.world.kubernetes.get("leases", LEASE_NAME)
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == ""  # given back
