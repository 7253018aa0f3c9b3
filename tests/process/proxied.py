"""A cluster whose nodes reach each other through a `FaultProxy`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.fault_proxy import FaultProxy
from tests.process.ports import free_port

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override


class ProxiedCluster(Cluster):
    """As `Cluster`; ``proxy`` holds the links. ``spares`` are nodes that are not founders."""

    def __init__(
        self,
        directory: Path,
        count: int = 3,
        extra: Sequence[str] = (),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(directory, count, extra)
        self._extra = tuple(extra)
        self._advertised = {node.name: free_port() for node in self.nodes}
        peers = ",".join(f"{name}=127.0.0.1:{port}" for name, port in self._advertised.items())
        for node in self.nodes:
            node.arguments = self._arguments(node, "--peers", peers)
        self._seed = seed
        self.proxy: FaultProxy

    def _arguments(self, node: NodeProcess, *more: str) -> list[str]:
        kept = list(node.arguments)
        if "--peers" in kept:
            place = kept.index("--peers")
            del kept[place : place + 2]
        return [*kept, "--advertise-peer", f"127.0.0.1:{self._advertised[node.name]}", *more]

    @override
    async def __aenter__(self) -> Self:
        self.proxy = FaultProxy(self._seed)
        try:
            for node in self.nodes:
                await self._forward(node)
            await super().__aenter__()
            await self.learn_names()
        except BaseException:
            await self.proxy.close()
            raise
        return self

    @override
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)
        await self.proxy.close()

    async def _forward(self, node: NodeProcess) -> None:
        await self.proxy.forward(node.name, self._advertised[node.name], node.peer_port)

    def advertised(self, node: NodeProcess) -> str:
        """Where peers find the node: at the proxy."""
        return f"127.0.0.1:{self._advertised[node.name]}"

    async def add_spare(self, name: str) -> NodeProcess:
        """A node that waits to be added; started, and ended with the cluster."""
        ports = free_port(), free_port()
        node = self.new_node(name, ports, self._extra)
        self._advertised[name] = free_port()
        node.arguments = self._arguments(node)
        await self._forward(node)
        self.nodes.append(node)
        node.start()
        return node

    async def learn_names(self) -> None:
        """Tell the proxy which member is which node."""
        for node in self.running:

            async def look(node: NodeProcess = node) -> str | None:
                status = await self.status(node)
                return str(status["member_id"]) if status else None

            # A node that was left out for being slow to answer would suffer nothing.
            member_id = await wait_until(f"the id of {node.name}", look, 60.0)
            self.proxy.names[int(member_id, 16)] = node.name

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.nodes]
