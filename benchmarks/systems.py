"""Three nodes of a system on loopback: start, find the leader, hurt, count, end.

Every node has fsync on and default settings; its data directory is removed at the end. Processes
are ended by their own ids only. The rest of the harness knows nothing of either API but what
`dialects` says of requests.
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
from typing_extensions import override

from benchmarks.samples import ETCD, JSON, OURS
from benchmarks.workloads import Api, Request
from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.ports import free_port

NODES: Final = 3
_START_SECONDS_MAX: Final = 60.0
_CLIENT_SECONDS_MAX: Final = 2.0


class System(Protocol):
    """One cluster of three nodes, running while its context is entered."""

    @property
    def name(self) -> str:
        """As tables name it where the interface does not matter."""
        ...

    @property
    def dialect(self) -> str:
        """A key of `benchmarks.dialects.DIALECTS`; its HTTP interface in tables."""
        ...

    @property
    def api(self) -> Api:
        """How it spells the operations, for wrk."""
        ...

    @property
    def nodes(self) -> Sequence[NodeProcess]:
        """To be killed, stopped, started and looked at."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_error: object) -> None: ...

    async def leader(self) -> NodeProcess:
        """The node that leads now."""
        ...

    async def revision(self) -> int:
        """The leader's store revision: every write adds one."""
        ...

    async def wait_ready(self, nodes: Sequence[NodeProcess], seconds: float) -> None:
        """Until each of ``nodes`` answers a linearizable read, or says that it would."""
        ...

    async def count(self, prefix: str) -> int:
        """How many keys begin with ``prefix``, linearizably."""
        ...

    async def disk_bytes(self) -> int:
        """What the leader's store uses on disk, its log left out."""
        ...


SystemType = type["RaftKV"] | type["Etcd"]


def cpu_seconds(system: System) -> float:
    """User and system time that the nodes used since they started."""
    times = [psutil.Process(node.pid).cpu_times() for node in system.nodes]
    return sum(time.user + time.system for time in times)


def resident_bytes(nodes: Sequence[NodeProcess]) -> list[int]:
    """Of each node, pages of files that are mapped included."""
    return [psutil.Process(node.pid).memory_info().rss for node in nodes]


class RaftKV:
    """Ours, from this tree."""

    name = OURS
    dialect = OURS
    api = Api(
        put=lambda key, value: Request("PUT", f"/v1/kv/{key}", value),
        get=lambda key: Request("GET", f"/v1/kv/{key}"),
        put_many=lambda items: Request("POST", "/v1/txn", _raftkv_txn(items)),
    )

    def __init__(self, directory: Path) -> None:
        self._directory = TemporaryDirectory(dir=directory)
        self._cluster = Cluster(Path(self._directory.name), NODES)
        self._session: aiohttp.ClientSession | None = None

    @staticmethod
    def describe() -> str:
        """Name and version."""
        return f"RaftKV {version('raftkv')}"

    @property
    def cluster(self) -> Cluster:
        """For what only RaftKV is asked."""
        return self._cluster

    @property
    def nodes(self) -> Sequence[NodeProcess]:
        return self._cluster.nodes

    async def __aenter__(self) -> Self:
        await self._cluster.__aenter__()
        timeout = aiohttp.ClientTimeout(total=_CLIENT_SECONDS_MAX)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()
        await self._cluster.__aexit__(None, None, None)
        self._directory.cleanup()

    async def leader(self) -> NodeProcess:
        return await self._cluster.wait_leader()

    async def revision(self) -> int:
        return int((await self._status())["revision"])

    async def wait_ready(self, nodes: Sequence[NodeProcess], seconds: float) -> None:
        await self._cluster.wait_ready(nodes, seconds)

    async def count(self, prefix: str) -> int:
        assert self._session is not None
        url = f"{(await self.leader()).url}/v1/kv?prefix={prefix}&count_only=true&timeout=60s"
        async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=60)) as response:
            assert response.status == 200, await response.text()
            return int((await response.json())["count"])

    async def disk_bytes(self) -> int:
        return int((await self._status())["db_bytes"])

    async def _status(self) -> dict[str, int | str]:
        status = await self._cluster.status(await self.leader())
        assert status is not None, "the leader does not answer"
        return status


class _Header(msgspec.Struct):
    member_id: str
    revision: str = "0"


class _EtcdStatus(msgspec.Struct):
    header: _Header
    leader: str = "0"
    #: Bytes of the store in use, and of its file.
    dbSizeInUse: str = "0"  # noqa: N815 etcd's name
    dbSize: str = "0"  # noqa: N815 etcd's name


class _EtcdCount(msgspec.Struct):
    count: str = "0"


class _EtcdNode(NodeProcess):
    """One etcd process."""

    @override
    def start(self) -> None:
        assert not self.is_running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


class Etcd:
    """etcd with its defaults."""

    name = ETCD
    dialect = JSON
    api = Api(
        put=lambda key, value: Request("POST", "/v3/kv/put", _etcd_put(key, value)),
        get=lambda key: Request("POST", "/v3/kv/range", f'{{"key":"{_base64(key)}"}}'),
        put_many=lambda items: Request("POST", "/v3/kv/txn", _etcd_txn(items)),
    )

    def __init__(self, directory: Path) -> None:
        self._directory = TemporaryDirectory(dir=directory)
        self._session: aiohttp.ClientSession | None = None
        self.nodes: list[NodeProcess] = []

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
        return said.stdout.splitlines()[0].replace(" Version:", "")

    async def __aenter__(self) -> Self:
        self.nodes = _etcd_nodes(Path(self._directory.name))
        timeout = aiohttp.ClientTimeout(total=_CLIENT_SECONDS_MAX)
        self._session = aiohttp.ClientSession(timeout=timeout)
        try:
            for node in self.nodes:
                node.start()
            await self.wait_ready(self.nodes, _START_SECONDS_MAX)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        for node in self.nodes:
            node.kill()
        if self._session is not None:
            await self._session.close()
        self._directory.cleanup()

    async def leader(self) -> NodeProcess:
        return await wait_until("etcd has a leader", self._find_leader, _START_SECONDS_MAX)

    async def revision(self) -> int:
        return int((await self._leader_status()).header.revision)

    async def wait_ready(self, nodes: Sequence[NodeProcess], seconds: float) -> None:
        async def look() -> bool | None:
            for node in nodes:
                if await self._read(node, '{"key":"AA=="}', _CLIENT_SECONDS_MAX) is None:
                    return None
            return True

        await wait_until("etcd answers", look, seconds)

    async def count(self, prefix: str) -> int:
        if prefix:
            end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
            span = f'"key":"{_base64(prefix)}","range_end":"{_base64(end)}"'
        else:
            span = '"key":"AA==","range_end":"AA=="'
        found = await self._read(await self.leader(), f'{{{span},"count_only":true}}', 60.0)
        assert found is not None, "the leader does not answer"
        return int(found.count)

    async def disk_bytes(self) -> int:
        return int((await self._leader_status()).dbSize)

    async def _read(self, node: NodeProcess, body: str, seconds: float) -> _EtcdCount | None:
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.post(
                f"{node.url}/v3/kv/range", data=body.encode(), timeout=timeout
            ) as response:
                if response.status != 200:
                    return None
                return msgspec.json.decode(await response.read(), type=_EtcdCount)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
            return None

    async def _leader_status(self) -> _EtcdStatus:
        status = await self._status(await self.leader())
        assert status is not None, "the leader does not answer"
        return status

    async def _find_leader(self) -> NodeProcess | None:
        for node in self.nodes:
            status = await self._status(node) if node.is_running else None
            if status is not None and status.leader == status.header.member_id:
                return node
        return None

    async def _status(self, node: NodeProcess) -> _EtcdStatus | None:
        assert self._session is not None
        try:
            async with self._session.post(
                f"{node.url}/v3/maintenance/status", data=b"{}"
            ) as response:
                return msgspec.json.decode(await response.read(), type=_EtcdStatus)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
            return None


def _etcd_nodes(path: Path) -> list[NodeProcess]:
    binary = Etcd.binary()
    assert binary is not None, "etcd is not installed"
    names = [f"e{number}" for number in range(1, NODES + 1)]
    ports = {name: (free_port(), free_port()) for name in names}
    members = ",".join(f"{name}=http://127.0.0.1:{ports[name][1]}" for name in names)
    nodes: list[NodeProcess] = []
    for name in names:
        client, peer = (f"http://127.0.0.1:{port}" for port in ports[name])
        arguments = [
            *(binary, "--name", name, "--data-dir", str(path / name)),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", members, "--initial-cluster-state", "new"),
        ]
        nodes.append(_EtcdNode(name, *ports[name], path / name, path / f"{name}.log", arguments))
    return nodes


def _etcd_put(key: str, value: str) -> str:
    return f'{{"key":"{_base64(key)}","value":"{_base64(value)}"}}'


def _etcd_txn(items: Sequence[tuple[str, str]]) -> str:
    puts = ",".join(f'{{"requestPut":{_etcd_put(key, value)}}}' for key, value in items)
    return f'{{"success":[{puts}]}}'


def _raftkv_txn(items: Sequence[tuple[str, str]]) -> str:
    puts = [{"op": "put", "key": key, "value": value} for key, value in items]
    return msgspec.json.encode({"compare": [], "success": puts, "failure": []}).decode()


def _base64(text: str) -> str:
    """Each character is a byte: keys of etcd's own tool are no UTF-8."""
    return b64encode(text.encode("latin-1")).decode()
