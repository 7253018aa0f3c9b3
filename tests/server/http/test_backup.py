"""`GET /v1/backup`: all bytes or a broken connection, and no file stays open."""

import aiohttp
import pytest

from raftkv.node.messages import Failure, FailureCode
from tests.server.http.fake_driver import FakeDriver
from tests.server.http.harness import Served, serving


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


def url_of(served: Served) -> str:
    return f"http://127.0.0.1:{served.port}/v1/backup"


async def test_a_backup_is_the_file_with_its_length(driver: FakeDriver) -> None:
    async with (
        serving(driver) as served,
        aiohttp.ClientSession() as session,
        session.get(url_of(served)) as response,
    ):
        assert response.status == 200
        assert response.content_length == len(driver.backup_bytes)
        assert response.headers["X-RaftKV-Revision"] == "100"
        assert await response.read() == driver.backup_bytes
    assert (driver.backups, driver.backups_ended) == (1, 1)
    assert driver.reads[0][1].name == "LINEARIZABLE", "what was acknowledged before is in it"


async def test_a_backup_that_cannot_be_read_on_breaks_the_connection(driver: FakeDriver) -> None:
    driver.piece_failure = Failure(FailureCode.DEADLINE, "too slow")
    async with (
        serving(driver) as served,
        aiohttp.ClientSession() as session,
        session.get(url_of(served)) as response,
    ):
        assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    assert driver.backups_ended == 1


async def test_a_backup_that_cannot_be_made_is_a_problem(driver: FakeDriver) -> None:
    driver.failure = Failure(FailureCode.OVERLOADED, "4 backups are being read already")
    async with (
        serving(driver) as served,
        aiohttp.ClientSession() as session,
        session.get(url_of(served)) as response,
    ):
        assert response.status == 429
        assert (await response.json())["code"] == "overloaded"


async def test_head_makes_no_backup(driver: FakeDriver) -> None:
    async with (
        serving(driver) as served,
        aiohttp.ClientSession() as session,
        session.head(url_of(served)) as response,
    ):
        assert response.status == 200
    assert driver.backups == 0
