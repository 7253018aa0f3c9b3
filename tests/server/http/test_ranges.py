"""Ranges over HTTP: parameters, pages of one revision, lines (API contract)."""

import json
import sys

import aiohttp
import pytest
from multidict import CIMultiDict

from raftkv.kv.commands import DeleteRange, Put, encode_command
from raftkv.kv.ranges import Range
from raftkv.node.events import Consistency, Found, Query, Stale
from raftkv.node.messages import Failure, FailureCode
from raftkv.server.http import ranges
from raftkv.server.http.problems import Refused
from raftkv.server.http.ranges import parse_delete, parse_range
from tests.server.http.fake_driver import FakeDriver
from tests.server.http.harness import Served, serving

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

COUNT = 1203


@pytest.fixture
def driver() -> FakeDriver:
    """Holds more keys than one piece looks at, and than a default page holds."""
    driver = FakeDriver()
    puts = [encode_command(Put(b"k%04d" % number, b"v")) for number in range(COUNT)]
    driver.apply(*puts)
    return driver


def test_defaults() -> None:
    asked = parse_range("", [])
    assert asked.first == Range(b"", None, limit=1000, bytes_max=256 << 10, scan_max=500)
    assert asked.how == (Consistency.LINEARIZABLE, 0, 5.0, 0.0)
    assert not asked.as_lines


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("prefix=a", b"a", b"b"),
        ("prefix=%FF%FE", b"\xff\xfe", b"\xff\xff"),
        ("prefix=%FF", b"\xff", None),
        ("start=a&end=c", b"a", b"c"),
        ("start=a+b", b"a b", None),
        ("prefix=a&start=ab&end=az", b"ab", b"az"),
        ("prefix=b&start=a&end=z", b"b", b"c"),
        ("end=", b"", None),
    ],
)
def test_bounds(query: str, start: bytes, end: bytes | None) -> None:
    first = parse_range(query, []).first
    assert (first.start, first.end) == (start, end)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=10001", "limit"),
        ("limit=9223372036854775808", "limit"),
        ("limit=1e2", "limit"),
        ("start=b&end=a", "start"),
        ("prefix=" + "a" * 512, "prefix"),
        ("order=up", "order"),
        ("order=%FF", "order"),
        ("keys_only=1", "keys_only"),
        ("count_only=yes", "count_only"),
        ("revision=0", "revision"),
        ("revision=-1", "revision"),
        ("revision=9223372036854775808", "revision"),
        ("cursor=x", "cursor"),
        ("cursor=%C3%A4", "cursor"),
        ("cursor=kwEBxAFr", "cursor"),
        ("prefix=a&prefix=b", "prefix"),
        ("colour=red", "colour"),
    ],
)
def test_bad_parameters_are_named(query: str, named: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_range(query, [])
    assert caught.value.problem.kind.code == "bad_parameter"
    assert named in caught.value.problem.detail


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_every_page_of_a_cursor_is_read_at_one_revision(
    driver: FakeDriver, order: str
) -> None:
    async with serving(driver) as served:
        keys: list[str] = []
        cursor = ""
        while True:
            answer = await served.ask("GET", f"/v1/kv?prefix=k&order={order}&limit=500{cursor}")
            page = answer.json()
            assert (answer.status, page["revision"]) == (200, 100 + COUNT)
            assert answer.headers["X-RaftKV-Revision"] == str(100 + COUNT)
            keys += [item["key"] for item in page["items"]]
            # What happens between two pages is not in them.
            await served.ask("DELETE", "/v1/kv/k0600")
            await served.ask("PUT", "/v1/kv/k0601x", body=b"new")
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        expected = [f"k{number:04}" for number in range(COUNT)]
        assert keys == (expected if order == "asc" else expected[::-1])
        other = await served.ask("GET", f"/v1/kv?prefix=l{cursor}")
        assert (other.status, other.code()) == (400, "bad_parameter")


async def test_limit_keys_only_count_and_delimiter(driver: FakeDriver) -> None:
    async with serving(driver) as served:
        page = (await served.ask("GET", "/v1/kv")).json()
        assert len(page["items"]) == 1000
        page = (await served.ask("GET", "/v1/kv?limit=10000")).json()
        assert (len(page["items"]), page["next_cursor"]) == (COUNT, None)
        assert page["items"][0] == {
            "key": "k0000",
            "key_encoding": "utf-8",
            "value": "v",
            "value_encoding": "utf-8",
            "create_revision": 101,
            "mod_revision": 101,
            "version": 1,
            "lease": "0",
        }
        page = (await served.ask("GET", "/v1/kv?limit=1&keys_only=true")).json()
        assert "value" not in page["items"][0]
        page = (await served.ask("GET", "/v1/kv?count_only=true&limit=1")).json()
        assert page == {"revision": 100 + COUNT, "count": COUNT}
        page = (await served.ask("GET", "/v1/kv?prefix=k&delimiter=0&end=k2")).json()
        assert page["prefixes"][0] == {"prefix": "k0", "prefix_encoding": "utf-8"}
        assert [each["prefix"] for each in page["prefixes"]][:3] == ["k0", "k10", "k110"]
        past = (await served.ask("GET", "/v1/kv?revision=102")).json()
        assert [item["key"] for item in past["items"]] == ["k0000", "k0001"]
        future = await served.ask("GET", "/v1/kv?revision=999999")
        assert (future.status, future.code()) == (400, "future_revision")
        assert (await served.ask("HEAD", "/v1/kv?limit=1")).status == 200


async def test_a_page_is_bounded_in_bytes(served: Served) -> None:
    for number in range(6):
        served.driver.apply(encode_command(Put(b"%d" % number, bytes(1 << 20))))
    page = (await served.ask("GET", "/v1/kv")).json()
    assert len(page["items"]) == 4
    assert page["next_cursor"] is not None


async def test_lines_have_no_limit(driver: FakeDriver) -> None:
    async with serving(driver) as served, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{served.port}/v1/kv"
        headers = {"Accept": "application/x-ndjson"}
        async with session.get(url, headers=headers) as response:
            assert response.headers["Content-Type"] == "application/x-ndjson"
            assert response.headers["X-RaftKV-Revision"] == str(100 + COUNT)
            lines = (await response.text()).splitlines()
        assert [json.loads(line)["key"] for line in lines][::600] == ["k0000", "k0600", "k1200"]
        assert len(lines) == COUNT
        async with session.get(url + "?limit=7", headers=headers) as response:
            assert len((await response.text()).splitlines()) == 7


class FailsLater(FakeDriver):
    """Answers the first piece of a range, and fails on the next."""

    @override
    async def read(
        self,
        query: Query,
        consistency: Consistency,
        min_revision: int,
        timeout_seconds: float,
        max_stale_seconds: float = 0.0,
    ) -> Found | Stale | Failure:
        if consistency is Consistency.LOCAL:
            return Failure(FailureCode.DEADLINE, "too late")
        return await super().read(query, consistency, min_revision, timeout_seconds)


async def test_lines_that_cannot_be_finished_break_the_connection(driver: FakeDriver) -> None:
    failing = FailsLater(store=driver.store)
    async with serving(failing) as served, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{served.port}/v1/kv"
        with pytest.raises(aiohttp.ClientError):
            async with session.get(url, headers={"Accept": "application/x-ndjson"}) as response:
                await response.read()
        page = await served.ask("GET", "/v1/kv")
        assert (page.status, page.code()) == (504, "deadline")


# ---- removing a range -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("prefix=a", b"a", b"b"),
        ("start=a&end=c", b"a", b"c"),
        ("all=true", b"", None),
        ("start=a&all=true", b"a", None),
    ],
)
def test_what_is_removed(query: str, start: bytes, end: bytes | None) -> None:
    asked = parse_delete(query, CIMultiDict())
    assert asked.command == DeleteRange(start, end, 10_000)


@pytest.mark.parametrize(
    "query", ["", "prefix=", "start=a", "end=b", "start=a&end=", "prefix=&all=false", "limit=1"]
)
def test_an_open_range_is_not_removed_by_mistake(query: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_delete(query, CIMultiDict())
    assert caught.value.problem.kind.code == "bad_parameter"


def test_a_range_takes_no_condition() -> None:
    with pytest.raises(Refused) as caught:
        parse_delete("prefix=a", CIMultiDict({"If-Match": "*"}))
    assert caught.value.problem.kind.code == "bad_header"


async def test_a_range_is_removed_at_one_revision(driver: FakeDriver) -> None:
    async with serving(driver) as served:
        answer = await served.ask("DELETE", "/v1/kv?prefix=k0")
        assert answer.json() == {"deleted": 1000, "revision": 100 + COUNT + 1}
        assert len(driver.items) == COUNT - 1000
        again = await served.ask("DELETE", "/v1/kv?prefix=k0")
        assert again.json() == {"deleted": 0, "revision": 100 + COUNT + 1}
        page = await served.ask("GET", f"/v1/kv?count_only=true&revision={100 + COUNT}")
        assert page.json()["count"] == COUNT


async def test_more_than_10000_keys_are_too_many_and_stay(served: Served) -> None:
    puts = [encode_command(Put(b"%05d" % number, b"")) for number in range(10_001)]
    served.driver.apply(*puts)
    refused = await served.ask("DELETE", "/v1/kv?all=true")
    assert (refused.status, refused.code()) == (409, "too_many_keys")
    assert len(served.driver.items) == 10_001
    done = await served.ask("DELETE", "/v1/kv?start=00000&end=10000")
    assert done.json()["deleted"] == 10_000
    assert list(served.driver.items) == [b"10000"]


async def test_the_head_of_lines_is_that_of_the_lines(served: Served) -> None:
    """And nothing is read for it beyond the first piece."""
    served.driver.apply(*(encode_command(Put(b"%d/" % n, b"")) for n in range(2000)))
    lines = {"Accept": "application/x-ndjson"}
    head = await served.ask("HEAD", "/v1/kv?delimiter=/", headers=lines)
    assert (head.status, head.headers["Content-Type"]) == (200, "application/x-ndjson")
    assert len(served.driver.queries) == 1


async def test_prefixes_count_towards_the_size_of_a_page(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.driver.apply(*(encode_command(Put(b"%04d/" % n, b"")) for n in range(2000)))
    monkeypatch.setattr(ranges, "PAGE_BYTES_MAX", 1000)
    page = (await served.ask("GET", "/v1/kv?delimiter=/&limit=2000")).json()
    assert page["next_cursor"] is not None
