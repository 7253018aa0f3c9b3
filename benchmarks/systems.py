"""Three nodes of a system on loopback: start, find the leader, count revisions and CPU, end.

Every node has fsync on and default settings; its data directory is removed at the end. Processes
are ended by their own ids only. The rest of the harness knows nothing of either API.
"""

import os
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol, Self

import aiohttp
import msgspec
import psutil

from benchmarks.workloads import Api, Request
from tests.process.cluster import Cluster, wait_until
from tests.process.ports import free_port

NODES: Final = 3
_START_SECONDS_MAX: Final = 30.0


class System(Protocol):
    """One cluster of three nodes, running while its context is entered."""

    @property
    def name(self) -> str:
        """As the table names it."""
        ...

    @property
    def api(self) -> Api:
        """How it spells the operations."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_error: object) -> None: ...

    async def leader_url(self) -> str:
        """Where the leader serves clients now."""
        ...

    async def revision(self) -> int:
        """The leader's store revision: every write adds one."""
        ...

    def cpu_seconds(self) -> float:
        """User and system time that the nodes used since they started."""
        ...


class RaftKV:
    """Ours, from this tree."""

    name = "RaftKV"
    api = Api(
        put=lambda key, value: Request("PUT", f"/v1/kv/{key}", value),
        get=lambda key: Request("GET", f"/v1/kv/{key}"),
    )

    def __init__(self, directory: Path) -> None:
        self._directory = TemporaryDirectory(dir=directory)
        self._cluster = Cluster(Path(self._directory.name), NODES)

    @staticmethod
    def describe() -> str:
        """Name and version."""
        return f"RaftKV {version('raftkv')}"

    async def __aenter__(self) -> Self:
        await self._cluster.__aenter__()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._cluster.__aexit__(None, None, None)
        self._directory.cleanup()

    async def leader_url(self) -> str:
        return (await self._cluster.wait_leader()).url

    async def revision(self) -> int:
        status = await self._cluster.status(await self._cluster.wait_leader())
        assert status is not None, "the leader does not answer"
        return int(status["revision"])

    def cpu_seconds(self) -> float:
        return _cpu_seconds([node.pid for node in self._cluster.nodes])


class _Header(msgspec.Struct):
    member_id: str
    revision: str = "0"


class _EtcdStatus(msgspec.Struct):
    header: _Header
    leader: str = "0"


class Etcd:
    """etcd with its defaults, through its JSON gateway."""

    name = "etcd"
    api = Api(
        put=lambda key, value: Request(
            "POST", "/v3/kv/put", f'{{"key":"{_base64(key)}","value":"{_base64(value)}"}}'
        ),
        get=lambda key: Request("POST", "/v3/kv/range", f'{{"key":"{_base64(key)}"}}'),
    )

    def __init__(self, directory: Path) -> None:
        self._directory = TemporaryDirectory(dir=directory)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0))
        self._urls = [f"http://127.0.0.1:{free_port()}" for _ in range(NODES)]
        self._processes: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def binary() -> str | None:
        """The program: `ETCD`, or `etcd` on the path; None when there is neither."""
        return shutil.which(os.environ.get("ETCD", "etcd"))

    @staticmethod
    def describe() -> str:
        """Name and version."""
        said = subprocess.run(
            [Etcd.binary() or "etcd", "--version"], capture_output=True, text=True, check=True
        )
        return said.stdout.splitlines()[0].replace(" Version:", "") + ", JSON gateway"

    async def leader_url(self) -> str:
        return await wait_until("etcd has a leader", self._find_leader, _START_SECONDS_MAX)

    async def revision(self) -> int:
        status = await self._status(await self.leader_url())
        assert status is not None, "the leader does not answer"
        return int(status.header.revision)

    async def __aenter__(self) -> Self:
        self._start()
        try:
            await self.leader_url()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        await self._session.close()
        self._directory.cleanup()

    def cpu_seconds(self) -> float:
        return _cpu_seconds([process.pid for process in self._processes])

    def _start(self) -> None:
        binary = self.binary()
        assert binary is not None, "etcd is not installed"
        path = Path(self._directory.name)
        peers = [f"http://127.0.0.1:{free_port()}" for _ in range(NODES)]
        names = [f"e{number}" for number in range(1, NODES + 1)]
        members = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
        for name, url, peer in zip(names, self._urls, peers, strict=True):
            arguments = [
                *(binary, "--name", name, "--data-dir", str(path / name)),
                *("--listen-client-urls", url, "--advertise-client-urls", url),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", members, "--initial-cluster-state", "new"),
            ]
            with (path / f"{name}.log").open("wb") as log:
                self._processes.append(
                    subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                )

    async def _find_leader(self) -> str | None:
        for url in self._urls:
            status = await self._status(url)
            if status is not None and status.leader == status.header.member_id:
                return url
        return None

    async def _status(self, url: str) -> _EtcdStatus | None:
        try:
            async with self._session.post(f"{url}/v3/maintenance/status", data=b"{}") as response:
                return msgspec.json.decode(await response.read(), type=_EtcdStatus)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
            return None


def _cpu_seconds(pids: Sequence[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(time.user + time.system for time in times)


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()
