"""Data directories of earlier versions, kept as text: every later version must read them.

    python -m tests.process.old_data tests/process/testdata/NAME.json

runs a node of this version, lets it store something of every kind, and keeps its identity, log and
snapshot, with what a client was told. Do that when a format changes, under a new name; the old
files stay. Trailing zeros are left out, so a segment of 64 MiB takes some hundred characters.
"""

import asyncio
import base64
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.process.cluster import Cluster, NodeProcess

# What a node cannot make anew by itself.
_KEPT = ("identity", "wal", "snapshots")


class KeptFile(msgspec.Struct):
    """A file without the zeros at its end."""

    size_bytes: int
    content: str  # base 85 of zlib


class OldData(msgspec.Struct):
    """A data directory, and what it holds by the words of the version that wrote it."""

    version: str
    files: dict[str, KeptFile]
    revision: int
    state_hash: str
    state_hash_index: int
    keys: dict[str, str]  # key -> value
    deleted: list[str]
    lock: str
    lock_token: int
    idempotency_key: str
    increment_target: str  # under that key it gave
    increment_value: str


def read_old(path: Path) -> OldData:
    """What one of the kept files holds."""
    return msgspec.json.decode(path.read_bytes(), type=OldData)


def pack(data: Path) -> dict[str, KeptFile]:
    """The files of the data directory of a node that is not running."""
    packed = {}
    for path in sorted(data.rglob("*")):
        name = path.relative_to(data)
        if path.is_file() and name.parts[0] in _KEPT:
            content = path.read_bytes()
            squeezed = base64.b85encode(zlib.compress(content.rstrip(b"\0"), 9))
            packed[str(name)] = KeptFile(len(content), squeezed.decode())
    return packed


def unpack(files: dict[str, KeptFile], data: Path) -> None:
    """The inverse of `pack`; the zeros are holes."""
    for name, kept in files.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(zlib.decompress(base64.b85decode(kept.content)))
            file.truncate(kept.size_bytes)
        path.chmod(0o600)


async def ask(
    session: aiohttp.ClientSession, node: NodeProcess, method: str, target: str, **more: Any
) -> tuple[int, Any]:
    async with session.request(method, node.url + target, **more) as answer:
        body = await answer.read()
        is_json = answer.content_type.endswith("json")
        return answer.status, msgspec.json.decode(body) if is_json else body.decode()


async def make(directory: Path) -> OldData:
    """Something of every kind, half of it in a snapshot, half in the log after it."""
    async with (
        Cluster(directory, 1, ("--drain-seconds", "0")) as cluster,
        aiohttp.ClientSession() as session,
    ):
        (node,) = cluster.nodes

        async def do(method: str, target: str, **more: Any) -> Any:
            status, answer = await ask(session, node, method, target, **more)
            assert status in (200, 201), answer
            return answer

        for number in range(4):
            await do("PUT", f"/v1/kv/before/{number}", data=b"value %d" % number)
        await do("PUT", "/v1/kv/gone", data=b"for a while")
        lease = await do("POST", "/v1/leases", json={"ttl": "8760h"})
        await do("PUT", f"/v1/kv/leased?lease={lease['id']}", data=b"for a year")
        await do("POST", "/v1/maintenance/snapshot")
        await do("DELETE", "/v1/kv/gone")
        for number in range(4):
            await do("PUT", f"/v1/kv/after/{number}", data=b"value %d" % number)
        await do("POST", "/v1/kv/before/0?op=append", data=b", and more")
        target, once = "/v1/kv/counter?op=increment&by=5", {"Idempotency-Key": "kept"}
        counted = await do("POST", target, headers=once)
        held = await do("POST", "/v1/locks/kept", json={"ttl": "8760h", "owner": "me"})
        page = await do("GET", "/v1/kv?limit=100")
        cluster_status = await do("GET", "/v1/cluster")
        status = await cluster.status(node)
        assert status is not None
        node.kill()
        return OldData(
            version=status["version"],
            files=pack(node.data),
            revision=page["revision"],
            state_hash=cluster_status["state_hash"],
            state_hash_index=cluster_status["state_hash_index"],
            keys={item["key"]: item["value"] for item in page["items"]},
            deleted=["gone"],
            lock="kept",
            lock_token=held["token"],
            idempotency_key="kept",
            increment_target=target,
            increment_value=str(counted["value"]),
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        made = asyncio.run(make(Path(name)))
    written = Path(sys.argv[1])
    written.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
    print(f"{written}: {written.stat().st_size} bytes")  # noqa: T201 the report
