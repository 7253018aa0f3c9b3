"""Every byte a key may hold goes through curl, on any node, and stays itself."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.process.cluster import Cluster

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

KEYS = [
    *(bytes([value]) for value in range(256)),
    bytes(range(256)),
    *(b"..", b"a/../b", b"a//b", b"//", b"%FF", b"%25FF", b"a+b", b"a b", b"k" * 511),
]


async def test_all_256_bytes_through_curl(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        for place, key in enumerate(KEYS):
            (tmp_path / f"value{place}").write_bytes(b"value of " + key)
        writer, reader = cluster.urls[0], cluster.urls[1]
        codes = curl(
            f'{target(writer, key)}\nupload-file = "{tmp_path}/value{place}"'
            for place, key in enumerate(KEYS)
        )
        assert codes == ["201"] * len(KEYS)
        codes = curl(
            f'{target(reader, key)}\noutput = "{tmp_path}/read{place}"'
            for place, key in enumerate(KEYS)
        )
        assert codes == ["200"] * len(KEYS)
    for place, key in enumerate(KEYS):
        assert (tmp_path / f"read{place}").read_bytes() == b"value of " + key


def target(url: str, key: bytes) -> str:
    """The lines of a curl configuration that address a key, every byte of it escaped."""
    return f'path-as-is\nurl = "{url}/v1/kv/{"".join(f"%{byte:02X}" for byte in key)}"'


def curl(requests: Iterable[str]) -> list[str]:
    """Make all requests in one process; the status codes."""
    common = 'silent\nshow-error\nwrite-out = "%{stderr}%{http_code}\\n"\n'
    configuration = "next\n".join(f"{common}{request}\n" for request in requests)
    ended = subprocess.run(
        ["curl", "--config", "-"],
        check=False,
        input=configuration.encode(),
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stderr.decode().split()
