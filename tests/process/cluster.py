"""Real `raftkv node` processes on loopback: start them, hurt them, and read what they logged.

Every process belongs to one `Cluster`, which ends it by its own id, whatever happened, and prints
the end of its log when the test failed. Waiting always means polling a condition with a deadline.
"""

import asyncio
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from tests.process.ports import free_port

COMMAND = (sys.executable, "-m", "raftkv")
_POLL_SECONDS = 0.02
_LOG_TAIL_LINES = 25


Found = TypeVar("Found")


class ClusterError(AssertionError):
    """A cluster did not do in time what was waited for."""


async def wait_until(
    what: str, look: Callable[[], Awaitable[Found | None]], seconds: float
) -> Found:
    """The first answer of ``look`` that is not None. Raises ClusterError after ``seconds``."""
    deadline = monotonic() + seconds
    while True:
        found = await look()
        if found is not None:
            return found
        if monotonic() > deadline:
            raise ClusterError(f"not within {seconds} s: {what}")
        await asyncio.sleep(_POLL_SECONDS)


@dataclass
class NodeProcess:
    """One node: its place, and the process that runs it now, if any."""

    name: str
    port: int
    peer_port: int
    data: Path
    log: Path
    arguments: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    scheme: str = "http"
    command: Sequence[str] = COMMAND

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process; returns at once."""
        assert not self.is_running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "node", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def send_signal(self, number: signal.Signals) -> None:
        """Deliver a signal: SIGSTOP, SIGCONT, SIGTERM."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        shown = "\n".join(f"    {line}" for line in lines[-_LOG_TAIL_LINES:])
        state = "running" if self.is_running else "not running"
        return f"  {self.name} ({state}), the end of its log:\n{shown}"


class Cluster:
    """N nodes that form one cluster by `--peers`. Use it with ``async with``."""

    def __init__(
        self,
        directory: Path,
        count: int = 3,
        extra: Sequence[str] = (),
        *,
        tls: ssl.SSLContext | None = None,
        token: str | None = None,
        ready_seconds: float = 60.0,
    ) -> None:
        """With ``tls`` and ``token``, how nodes are looked at that ``extra`` makes demand it.

        ``ready_seconds``: how long the machine may take to start them all.
        """
        self._ready_seconds = ready_seconds
        self.directory = directory
        self._tls = tls
        self._token = token
        names = [f"n{number}" for number in range(1, count + 1)]
        ports = {name: (free_port(), free_port()) for name in names}
        peers = ",".join(f"{name}=127.0.0.1:{ports[name][1]}" for name in names)
        self.nodes = [
            self.new_node(name, ports[name], ("--peers", peers, *extra)) for name in names
        ]
        self._session: aiohttp.ClientSession | None = None

    def new_node(
        self, name: str, ports: tuple[int, int], more: Sequence[str], data: Path | None = None
    ) -> NodeProcess:
        """A node of this directory that is not part of ``nodes``: end it yourself."""
        data = data or self.directory / name
        arguments = [
            *("--id", name, "--data", str(data)),
            *("--addr", f"127.0.0.1:{ports[0]}", "--peer-addr", f"127.0.0.1:{ports[1]}"),
            *more,
        ]
        scheme = "http" if self._tls is None else "https"
        log = self.directory / f"{name}.log"
        return NodeProcess(name, *ports, data, log, arguments, scheme=scheme)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=2.0),
            connector=aiohttp.TCPConnector(ssl=True if self._tls is None else self._tls),
            headers={} if self._token is None else {"Authorization": f"Bearer {self._token}"},
        )
        try:
            for node in self.nodes:
                node.start()
            await self.wait_ready(seconds=self._ready_seconds)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes:
            if kind is not None:
                print(node.log_tail())  # noqa: T201 pytest shows it with the failure
            node.kill()
        if self._session is not None:
            await self._session.close()

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    @property
    def running(self) -> list[NodeProcess]:
        return [node for node in self.nodes if node.is_running]

    async def status(self, node: NodeProcess) -> dict[str, Any] | None:
        """`/v1/status` of a node; None when it does not answer."""
        assert self._session is not None
        try:
            async with self._session.get(f"{node.url}/v1/status") as response:
                answer: dict[str, Any] = await response.json()
                return answer
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def leader(self) -> NodeProcess | None:
        """The running node that says it leads the highest term, if any does."""
        statuses = await asyncio.gather(*(self.status(node) for node in self.running))
        leaders = [
            (status["term"], node.name, node)
            for node, status in zip(self.running, statuses, strict=False)
            if status is not None and status["role"] == "leader"
        ]
        return max(leaders)[2] if leaders else None

    async def wait_leader(self, seconds: float = 10.0) -> NodeProcess:
        return await wait_until("some node leads", self.leader, seconds)

    async def wait_ready(self, nodes: Sequence[NodeProcess] = (), seconds: float = 60.0) -> None:
        """Until ``nodes`` (default: all) answer /readyz with 200."""
        waited_for = nodes or self.nodes

        async def look() -> bool | None:
            self.check_alive(waited_for)
            ready = await asyncio.gather(*(self._is_ready(node) for node in waited_for))
            return all(ready) or None

        await wait_until(f"{', '.join(node.name for node in waited_for)} ready", look, seconds)

    async def _is_ready(self, node: NodeProcess) -> bool:
        assert self._session is not None
        try:
            async with self._session.get(f"{node.url}/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def check_alive(self, nodes: Sequence[NodeProcess]) -> None:
        """Raises ClusterError if one of the nodes ended by itself."""
        for node in nodes:
            if not node.is_running and node.process is not None:
                code = node.process.returncode
                raise ClusterError(f"{node.name} ended by itself with exit code {code}")

    async def wait_exit(self, node: NodeProcess, seconds: float) -> int:
        """The node's exit code, once it ended."""
        process = node.process
        assert process is not None

        async def look() -> int | None:
            return process.poll()

        return await wait_until(f"{node.name} ended", look, seconds)
