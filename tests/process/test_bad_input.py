"""A node that cannot run as asked says why in one sentence, fails, and changes nothing on disk."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from tests.process.cluster import COMMAND, Cluster, NodeProcess
from tests.process.ports import free_port

pytestmark = pytest.mark.process

# Tries to read, and so also to search directories, that the file mode forbids, are always granted
# to the superuser, unless these are taken away.
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def node_arguments(data: Path) -> list[str]:
    return [
        *("--id", "n1", "--data", str(data)),
        *("--addr", f"127.0.0.1:{free_port()}", "--peer-addr", f"127.0.0.1:{free_port()}"),
    ]


def refusal(arguments: Sequence[str], prefix: Sequence[str] = ()) -> str:
    """What the node says when it ends by itself, with a failure; its last line."""
    ended = subprocess.run(
        [*prefix, *COMMAND, "node", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert not ended.stdout
    return ended.stderr.splitlines()[-1]


def contents(directory: Path) -> dict[str, bytes | None]:
    """Every path below ``directory`` with its bytes; None for what is no file."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture
def occupied_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_unknown_flag(tmp_path: Path) -> None:
    said = refusal([*node_arguments(tmp_path / "data"), "--adress", "127.0.0.1:7400"])
    assert said.startswith("Error: No such option '--adress'")
    assert contents(tmp_path) == {}


def test_peers_without_this_node(tmp_path: Path) -> None:
    said = refusal([*node_arguments(tmp_path / "data"), "--peers", "n2=127.0.0.1:7401"])
    assert said.startswith("Error: --peers lists n2, but this node's --id is n1")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("flag", ["--addr", "--peer-addr"])
def test_occupied_port(tmp_path: Path, occupied_port: int, flag: str) -> None:
    taken = f"127.0.0.1:{occupied_port}"
    said = refusal([*node_arguments(tmp_path / "data"), flag, taken])
    assert said.startswith("Error: cannot listen for ")
    assert taken in said
    assert contents(tmp_path) == {}


def test_data_is_a_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"mine")
    assert refusal(node_arguments(data)).startswith(f"Error: the data directory {data} cannot be")
    assert contents(tmp_path) == {"data": b"mine"}


def test_data_leads_nowhere(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.symlink_to(data)
    assert refusal(node_arguments(data)).startswith(f"Error: the data directory {data} cannot be")
    assert data.is_symlink()


def test_unreadable_data_directory(tmp_path: Path) -> None:
    is_privileged = os.geteuid() == 0
    if is_privileged and shutil.which("setpriv") is None:
        pytest.skip("the superuser may read everything, and setpriv (util-linux) is not there")
    data = tmp_path / "data"
    data.mkdir(mode=0o000)
    said = refusal(node_arguments(data), WITHOUT_PRIVILEGE if is_privileged else ())
    assert said.endswith(f"Path '{data}' is not readable.")
    assert data.stat().st_mode & 0o777 == 0
    data.chmod(0o700)
    assert contents(data) == {}


def test_foreign_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "photos.db").write_bytes(b"irreplaceable")
    said = refusal(node_arguments(data))
    assert said.startswith("Error: the data directory has no identity file but holds 'photos.db'")
    assert contents(data) == {"photos.db": b"irreplaceable"}


async def test_second_process_on_the_same_directory(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        (node,) = cluster.nodes
        said = refusal(node_arguments(node.data))
        assert said.startswith(f"Error: the data directory {node.data} is in use by another")
        assert await put(node, "still", b"served") == 201


async def test_damaged_log(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        (node,) = cluster.nodes
        for number in range(20):
            assert await put(node, f"key{number}", b"value-%d-of-a-key" % number) == 201
    segment = damage(node.data / "wal", b"value-3-of-a-key")
    before = contents(node.data)
    said = refusal(node.arguments)
    assert f"wal/{segment.name} at offset " in said
    assert "must rejoin as a new one" in said
    assert contents(node.data) == before


async def put(node: NodeProcess, key: str, value: bytes) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{node.url}/v1/kv/{key}", data=value) as response,
    ):
        return response.status


def damage(log: Path, needle: bytes) -> Path:
    """Flip one bit of a record that others follow; the segment it is in."""
    for segment in sorted(log.iterdir()):
        data = bytearray(segment.read_bytes())
        place = data.find(needle)
        if place >= 0:
            data[place] ^= 1
            segment.write_bytes(data)
            return segment
    raise AssertionError(f"{needle!r} is not in the log")
