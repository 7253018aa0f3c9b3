"""What earlier versions wrote is read: each file of testdata is a whole data directory."""

from pathlib import Path

import aiohttp
import pytest

from tests.process.cluster import Cluster
from tests.process.old_data import ask, read_old, unpack

pytestmark = pytest.mark.process

KEPT = sorted(Path(__file__).with_name("testdata").glob("*.json"))


def test_there_is_old_data() -> None:
    assert KEPT


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
async def test_row_39_a_data_directory_of_an_earlier_version_is_read(
    path: Path, tmp_path: Path
) -> None:
    old = read_old(path)
    # Its log and snapshot alone: the store is built from them.
    unpack(old.files, tmp_path / "n1")
    async with Cluster(tmp_path, 1) as cluster, aiohttp.ClientSession() as session:
        (node,) = cluster.nodes
        for key, value in old.keys.items():
            assert await ask(session, node, "GET", f"/v1/kv/{key}") == (200, value)
        for key in old.deleted:
            assert (await ask(session, node, "GET", f"/v1/kv/{key}"))[0] == 404
        _, page = await ask(session, node, "GET", "/v1/kv?limit=100")
        assert {item["key"]: item["value"] for item in page["items"]} == old.keys
        assert page["revision"] == old.revision
        lock = (await ask(session, node, "GET", f"/v1/locks/{old.lock}"))[1]
        assert lock["token"] == old.lock_token
        # A retry from then is answered as then, and counts nothing.
        once = {"Idempotency-Key": old.idempotency_key}
        _, counted = await ask(session, node, "POST", old.increment_target, headers=once)
        assert str(counted["value"]) == old.increment_value
        assert (await ask(session, node, "PUT", "/v1/kv/new", data=b"1"))[0] == 201
