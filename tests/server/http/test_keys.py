"""Keys over a real socket: every method and parameter of a key, and its bytes."""

import base64
from urllib.parse import quote_from_bytes

import aiohttp
import pytest
from yarl import URL

from raftkv.kv.commands import Append, Condition, Delete, Put
from raftkv.node.events import Consistency
from raftkv.server.http.settings import HttpSettings
from tests.server.http.harness import Served, serving, until

pytestmark = pytest.mark.usefixtures("both_ways")
BOTH_LOOPS = True


async def test_put_get_head_delete(served: Served) -> None:
    created = await served.ask("PUT", "/v1/kv/a", body=b"one")
    assert (created.status, created.headers["ETag"]) == (201, '"101"')
    replaced = await served.ask("PUT", "/v1/kv/a", body=b"two")
    assert (replaced.status, replaced.json()["version"]) == (200, 2)

    got = await served.ask("GET", "/v1/kv/a")
    assert (got.status, got.body) == (200, b"two")
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert got.headers["X-RaftKV-Consistency"] == "linearizable"
    assert got.headers["X-RaftKV-Node"] == "n1"

    head = await served.ask("HEAD", "/v1/kv/a")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "3")
    assert head.headers["ETag"] == got.headers["ETag"] == '"102"'

    deleted = await served.ask("DELETE", "/v1/kv/a")
    assert deleted.json() == {"deleted": 1, "revision": 103}
    assert (await served.ask("DELETE", "/v1/kv/a")).json() == {"deleted": 0, "revision": 103}
    gone = await served.ask("GET", "/v1/kv/a")
    assert (gone.status, gone.code()) == (404, "key_not_found")
    assert (await served.ask("HEAD", "/v1/kv/a")).status == 404


async def test_a_value_as_of_a_revision(served: Served) -> None:
    await served.ask("PUT", "/v1/kv/a", body=b"one")
    await served.ask("PUT", "/v1/kv/a", body=b"two")
    await served.ask("DELETE", "/v1/kv/a")
    for revision, status in ((100, 404), (101, 200), (102, 200), (103, 404)):
        answer = await served.ask("GET", f"/v1/kv/a?revision={revision}")
        assert answer.status == status
        assert answer.headers["X-RaftKV-Revision"] == "103"
    old = await served.ask("GET", "/v1/kv/a?revision=101")
    assert (old.body, old.headers["ETag"]) == (b"one", '"101"')
    future = await served.ask("GET", "/v1/kv/a?revision=104")
    assert (future.status, future.code()) == (400, "future_revision")
    assert "the store is at 103" in future.json()["detail"]


async def test_a_write_returns_what_was_there_before(served: Served) -> None:
    created = await served.ask("PUT", "/v1/kv/a?prev=true", body=b"\xff")
    assert (created.status, created.json()["prev"]) == (201, None)
    replaced = await served.ask("POST", "/v1/kv/a?op=append&prev=true", body=b"x")
    assert replaced.json()["version"] == 2
    assert replaced.json()["prev"] == {
        "key": "a",
        "key_encoding": "utf-8",
        "value": "/w==",
        "value_encoding": "base64",
        "create_revision": 101,
        "mod_revision": 101,
        "version": 1,
        "lease": "0",
    }
    deleted = await served.ask("DELETE", "/v1/kv/a?prev=true")
    assert (deleted.json()["deleted"], deleted.json()["prev"]["mod_revision"]) == (1, 102)
    assert "prev" not in (await served.ask("DELETE", "/v1/kv/a")).json()
    headers = {"If-Match": "*"}
    failed = await served.ask("PUT", "/v1/kv/a?prev=true", body=b"", headers=headers)
    assert (failed.status, failed.code()) == (412, "condition_failed")


async def test_increment(served: Served) -> None:
    created = await served.ask("POST", "/v1/kv/n?op=increment")
    assert (created.status, created.headers["ETag"]) == (201, '"101"')
    assert created.json() == {
        "key": "n",
        "key_encoding": "utf-8",
        "revision": 101,
        "version": 1,
        "value": "1",
        "value_encoding": "utf-8",
    }
    added = await served.ask("POST", "/v1/kv/n?op=increment&by=-43&prev=true")
    assert (added.status, added.json()["value"]) == (200, "-42")
    assert added.json()["prev"]["value"] == "1"
    overflow = await served.ask("POST", f"/v1/kv/n?op=increment&by={-(2**63)}")
    assert (overflow.status, overflow.code()) == (409, "counter_overflow")
    await served.ask("PUT", "/v1/kv/n", body=b"4.2")
    refused = await served.ask("POST", "/v1/kv/n?op=increment")
    assert (refused.status, refused.code()) == (409, "not_a_counter")
    assert served.driver.items[b"n"].value == b"4.2"


async def test_append(served: Served) -> None:
    created = await served.ask("POST", "/v1/kv/a?op=append", body=b"one")
    assert created.status == 201
    assert (await served.ask("POST", "/v1/kv/a?op=append", body=b"two")).status == 200
    assert served.driver.items[b"a"].value == b"onetwo"
    assert isinstance(served.driver.commands[0], Append)


async def test_append_beyond_the_limit_is_413() -> None:
    async with serving(settings=HttpSettings("n1", value_bytes_max=5)) as served:
        await served.ask("PUT", "/v1/kv/a", body=b"12345")
        answer = await served.ask("POST", "/v1/kv/a?op=append", body=b"6")
        assert (answer.status, answer.code()) == (413, "too_large")
        assert served.driver.items[b"a"].value == b"12345"


async def test_json_item(served: Served) -> None:
    await served.ask("PUT", "/v1/kv/a", body=b"\xff")
    answer = await served.ask("GET", "/v1/kv/a", headers={"Accept": "application/json"})
    assert answer.headers["ETag"] == '"101-j"'
    assert answer.json()["value"] == "/w=="
    again = await served.ask(
        "GET", "/v1/kv/a", headers={"Accept": "application/json", "If-None-Match": '"101-j"'}
    )
    assert (again.status, again.body) == (304, b"")
    assert again.headers["X-RaftKV-Revision"] == "101"


async def test_conditional_writes(served: Served) -> None:
    assert (await served.ask("PUT", "/v1/kv/a", body=b"1", headers={"If-None-Match": "*"})).status
    create = await served.ask("PUT", "/v1/kv/a", body=b"2", headers={"If-None-Match": "*"})
    assert (create.status, create.code()) == (412, "condition_failed")
    assert (create.headers["ETag"], create.headers["X-RaftKV-Revision"]) == ('"101"', "101")
    stale = await served.ask("PUT", "/v1/kv/a", body=b"2", headers={"If-Match": '"99"'})
    assert (stale.status, stale.json()["outcome"]) == (412, "not_committed")
    fresh = await served.ask("PUT", "/v1/kv/a", body=b"2", headers={"If-Match": '"99", "101-j"'})
    assert fresh.status == 200
    absent = await served.ask("DELETE", "/v1/kv/b", headers={"If-Match": "*"})
    assert absent.status == 412
    assert "ETag" not in absent.headers
    command = served.driver.commands[-1]
    assert command == Delete(b"b", Condition(exists=True))


async def test_several_if_match_lines_are_one_list(served: Served) -> None:
    await served.ask("PUT", "/v1/kv/a", body=b"1")
    lines = [("If-Match", '"7"'), ("If-Match", '"101"')]
    assert (await served.ask("PUT", "/v1/kv/a", body=b"2", headers=lines)).status == 200


async def test_read_parameters_reach_the_node(served: Served) -> None:
    answer = await served.ask("GET", "/v1/kv/a?consistency=local&min_revision=7&timeout=250ms")
    assert answer.headers["X-RaftKV-Consistency"] == "local"
    assert served.driver.reads == [(b"a", Consistency.LOCAL, 7, 0.25)]
    await served.ask("PUT", "/v1/kv/a?timeout=2s", body=b"")
    assert served.driver.timeouts == [2.0]


async def test_all_256_bytes_are_keys_of_their_own(served: Served) -> None:
    for byte in range(256):
        key = bytes((byte,))
        target = "/v1/kv/" + quote_from_bytes(key, safe="")
        assert (await served.ask("PUT", target, body=key)).status == 201
    for byte in range(256):
        key = bytes((byte,))
        encoded = base64.urlsafe_b64encode(key).decode()
        assert (await served.ask("GET", "/v1/k/" + encoded)).body == key
    assert len(served.driver.items) == 256


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("/v1/kv/..", b".."),
        ("/v1/kv/../../v1/status", b"../../v1/status"),
        ("/v1/kv//", b"/"),
        ("/v1/kv/a//b/", b"a//b/"),
        ("/v1/kv/%2F", b"/"),
        ("/v1/kv/%FF", b"\xff"),
        ("/v1/kv/%25FF", b"%FF"),
        ("/v1/kv/a+b", b"a+b"),
        ("/v1/kv/a%20b", b"a b"),
        ("/v1/kv/%0D%0AX:%20y", b"\r\nX: y"),
        ("/v1/k/Li4", b".."),
    ],
)
async def test_keys_are_byte_exact(served: Served, target: str, key: bytes) -> None:
    answer = await served.ask("PUT", target, body=b"v")
    assert answer.status == 201
    assert served.driver.commands == [Put(key, b"v")]
    assert "X" not in answer.headers


async def test_keys_through_the_aiohttp_client(served: Served) -> None:
    key = bytes(range(256))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.port}") as session:
        url = URL("/v1/kv/" + quote_from_bytes(key, safe=""), encoded=True)
        async with session.put(url, data=b"v") as response:
            assert response.status == 201
        async with session.get(url) as response:
            assert await response.read() == b"v"
    assert list(served.driver.items) == [key]


async def test_an_empty_key_is_never_a_range(served: Served) -> None:
    for target in ("/v1/kv/", "/v1/k/"):
        for method in ("GET", "PUT", "DELETE"):
            answer = await served.ask(method, target, body=b"")
            assert (answer.status, answer.code()) == (400, "bad_key")
    assert not served.driver.commands


@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 20])
async def test_values_are_byte_exact(served: Served, size: int) -> None:
    value = bytes(size)
    await served.ask("PUT", "/v1/kv/a", body=value)
    assert (await served.ask("GET", "/v1/kv/a")).body == value


async def test_chunked_bodies(served: Served) -> None:
    async with served.connect() as raw:
        raw.send(
            b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n"
        )
        await until(lambda: served.server.in_flight)
        raw.send(b"2\r\nde\r\n0\r\n\r\n")
        assert (await raw.answer()).status == 201
    assert served.driver.items[b"a"].value == b"abcde"


async def test_expect_100_continue_is_answered_before_the_body(served: Served) -> None:
    async with served.connect() as raw:
        raw.send(
            b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert await raw.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.send(b"abc")
        assert (await raw.answer()).status == 201
        raw.send(b"GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await raw.answer()).body == b"abc"


async def test_a_refused_expectation_spares_the_body(served: Served) -> None:
    async with served.connect() as raw:
        raw.send(
            b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        answer = await raw.answer()
        assert (answer.status, answer.headers["Connection"]) == (413, "close")
