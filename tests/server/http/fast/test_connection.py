"""Connections on the short way: order, bodies in pieces, handing over, deadlines, the end."""

import asyncio
import sys
from dataclasses import replace
from functools import partial

import pytest

from raftkv.kv.commands import Put
from raftkv.node.events import Query
from raftkv.node.messages import Failure, FailureCode, RequestId
from raftkv.node.status import State
from raftkv.server.driver_api import Done, HowToRead
from raftkv.server.http.fast.connection import PIPELINED_MAX, FastConnection
from raftkv.server.http.settings import HttpSettings
from tests.server.http.fake_driver import FakeDriver
from tests.server.http.harness import Raw, Served, serving, until

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

BOTH_LOOPS = True

HOST = b"Host: localhost\r\n"
GET = b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"\r\n"
STATUS = b"GET /v1/status HTTP/1.1\r\n" + HOST + b"\r\n"


def put(value: bytes, key: bytes = b"a") -> bytes:
    return b"PUT /v1/kv/%b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (
        key,
        HOST,
        len(value),
        value,
    )


def fast_connections(served: Served) -> list[FastConnection]:
    assert served.server._fast is not None
    return list(served.server._fast.connections)


async def test_a_write_waits_for_what_is_before_it_and_holds_what_is_behind() -> None:
    driver = FakeDriver(gate=asyncio.Event())
    async with serving(driver) as served, served.connect() as raw:
        raw.send(GET + GET + put(b"1") + put(b"2") + GET)
        assert driver.gate is not None
        await until(lambda: driver.waiting == 2)
        assert (len(driver.reads), len(driver.commands)) == (2, 0)
        driver.gate.set()
        statuses = [(await raw.answer()).status for _ in range(4)]
        last = await raw.answer()
        assert (statuses, last.status, last.body) == ([404, 404, 201, 200], 200, b"2")
        assert driver.commands == [Put(b"a", b"1"), Put(b"a", b"2")]
        assert len(fast_connections(served)) == 1


async def test_reads_are_answered_in_order_whichever_is_done_first(served: Served) -> None:
    driver = served.driver
    for number in range(PIPELINED_MAX):
        driver.apply_put(b"%d" % number)
    first = asyncio.Event()
    driver.gate = first
    async with served.connect() as raw:
        raw.send(GET.replace(b"kv/a", b"kv/0"))
        await until(lambda: driver.waiting == 1)
        driver.gate = None
        raw.send(b"".join(GET.replace(b"kv/a", b"kv/%d" % n) for n in range(1, 9)))
        await until(lambda: len(driver.reads) == 9)
        first.set()
        assert [(await raw.answer()).body for _ in range(9)] == [b"%d" % n for n in range(9)]


async def test_a_body_in_pieces(served: Served) -> None:
    value = bytes(range(256)) * 4096  # 1 MiB
    async with served.connect() as raw:
        raw.send(put(value)[:100])
        await until(lambda: served.server.in_flight)
        for start in range(100, len(put(value)), 100_000):
            raw.send(put(value)[start : start + 100_000])
            await raw.writer.drain()
        assert (await raw.answer()).status == 201
        raw.send(GET)
        assert (await raw.answer()).body == value
        assert len(fast_connections(served)) == 1


async def test_a_head_in_pieces(served: Served) -> None:
    async with served.connect() as raw:
        for piece in (GET[:1], GET[1:20], GET[20:-1], GET[-1:] + GET[:10], GET[10:]):
            raw.send(piece)
            await asyncio.sleep(0.01)
        assert [(await raw.answer()).status for _ in range(2)] == [404, 404]
        assert len(fast_connections(served)) == 1


@pytest.mark.parametrize("other", [STATUS, b"HEAD" + GET[3:], b"nonsense\r\n\r\n"])
async def test_a_connection_is_handed_over_behind_its_answers(other: bytes) -> None:
    driver = FakeDriver(gate=asyncio.Event())
    async with serving(driver) as served, served.connect() as raw:
        raw.send(GET + GET + other[:12])
        await until(lambda: driver.waiting == 2)
        assert driver.gate is not None
        raw.send(other[12:])
        await asyncio.sleep(0.01)
        assert not served.server.connections
        driver.gate.set()
        assert [(await raw.answer()).status for _ in range(2)] == [404, 404]
        answer = await raw.answer(is_head=other.startswith(b"HEAD"))
        assert answer.status == {STATUS: 200, b"nonsense\r\n\r\n": 400}.get(other, 404)
        if answer.status != 400:
            raw.send(put(b"v") + GET)
            assert [(await raw.answer()).status for _ in range(2)] == [201, 200]
            assert len(served.server.connections) == served.server.connection_count == 1
    await until(lambda: not served.server.connection_count)


async def test_a_head_that_began_here_keeps_its_deadline_when_handed_over() -> None:
    settings = HttpSettings("n1", head_seconds_max=0.5)
    async with serving(settings=settings) as served, served.connect() as raw:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        raw.send(b"HEAD /v1/kv/a HT")
        assert await raw.until_closed() == b""
        assert 0.3 < loop.time() - began_at < 5.0
        await until(lambda: not served.server.connection_count)


async def test_a_client_that_leaves_is_forgotten_by_the_node() -> None:
    driver = FakeDriver(gate=asyncio.Event())
    async with serving(driver) as served:
        async with served.connect() as raw:
            raw.send(GET * 3)
            await until(lambda: driver.waiting == 3)
        await until(lambda: driver.cancelled == 3)
        await until(lambda: not served.server.connection_count)


async def test_an_idle_connection_is_closed_in_the_end() -> None:
    settings = replace(HttpSettings("n1"), keepalive_seconds=0.2, linger_seconds=0.2)
    async with serving(settings=settings) as served, served.connect() as raw:
        raw.send(GET)
        assert (await raw.answer()).status == 404
        assert await raw.until_closed() == b""


async def test_large_answers_are_given_one_by_one(served: Served) -> None:
    async with served.connect() as raw:
        raw.send(put(b"x" * 100_000))
        assert (await raw.answer()).status == 201
        raw.send(GET)
        assert (await raw.answer()).status == 200
        served.driver.gate = asyncio.Event()
        raw.send(GET * 10)
        await until(lambda: served.driver.waiting)
        assert served.driver.waiting == 1
        served.driver.gate.set()
        for _ in range(10):
            assert len((await raw.answer()).body) == 100_000


async def test_at_the_end_requests_are_answered_and_idle_connections_closed() -> None:
    driver = FakeDriver(gate=asyncio.Event())
    async with serving(driver) as served, served.connect() as idle, served.connect() as busy:
        idle.send(GET.replace(b"kv/a", b"kv/%"))  # refused by aiohttp
        assert (await idle.answer()).status == 400
        busy.send(put(b"v"))
        await until(lambda: driver.waiting)
        assert driver.gate is not None
        served.server.close_idle_connections()
        ending = asyncio.create_task(served.server.shutdown(5.0))
        assert await idle.until_closed() == b""
        driver.gate.set()
        assert (await busy.answer()).status == 201
        assert await busy.until_closed() == b""
        await ending


async def test_what_no_answer_comes_for_is_cut_at_the_end() -> None:
    driver = FakeDriver(gate=asyncio.Event())
    async with serving(driver) as served, served.connect() as raw:
        raw.send(GET)
        await until(lambda: driver.waiting)
        await served.server.shutdown(0.1)
        assert await raw.until_closed() == b""
        await until(lambda: driver.cancelled == 1)


async def test_a_bug_in_the_connection_ends_it_and_nothing_else(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise TypeError

    async with served.connect() as raw:
        raw.send(GET)
        assert (await raw.answer()).status == 404
        assert served.server._fast is not None
        monkeypatch.setattr(served.server._fast, "render", fail)
        raw.send(GET)
        assert await raw.until_closed() == b""
    assert "is a bug of this server" in caplog.text


async def test_ten_thousand_pipelined_reads(served: Served) -> None:
    served.driver.apply_put(b"a")

    async def read(raw: Raw) -> None:
        for _ in range(10_000):
            assert (await raw.answer()).status == 200

    async with served.connect() as raw:
        raw.send(GET * 10_000)
        await read(raw)
        assert len(fast_connections(served)) == 1


async def test_faults_row_6_large_answers_that_nobody_reads_are_not_held(served: Served) -> None:
    large = 1 << 20
    async with served.connect() as raw:
        raw.send(put(b"x" * large) + put(b"s", b"small"))
        assert [(await raw.answer()).status for _ in range(2)] == [201, 201]
        small = GET.replace(b"kv/a", b"kv/small")
        raw.send((GET + small) * (PIPELINED_MAX // 2) + put(b"1", b"b") + GET)
        [connection] = fast_connections(served)
        await until(
            lambda: connection._is_blocked and all(each.done() for each in served.driver.begun)
        )
        transport = connection._transport
        assert transport is not None
        kept = sum(len(each.raw[0]) for each in connection._queue if each.raw)
        assert transport.get_write_buffer_size() + kept < 2 * large
        for _ in range(PIPELINED_MAX // 2):
            assert len((await raw.answer()).body) == large
            assert (await raw.answer()).body == b"s"
        assert (await raw.answer()).status == 201
        assert len((await raw.answer()).body) == large
    assert len(served.driver.reads) < 3 * PIPELINED_MAX


class FullDriver(FakeDriver):
    """Refuses reads as the real one does: soon, under no id that could be forgotten."""

    @override
    def begin_read(self, query: Query, how: HowToRead, done: Done) -> RequestId:
        failure = Failure(FailureCode.OVERLOADED, "too many requests are in flight on this node")
        asyncio.get_running_loop().call_soon(done, failure)
        return 0

    @override
    def forget(self, request_id: RequestId) -> None:
        assert request_id == 0


async def test_operator_rule_15_what_is_behind_the_last_answer_of_a_drain_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = FullDriver()
    driver.change(state=State.DRAINING)
    async with serving(driver) as served, served.connect() as raw:
        raw.send(GET * 3)
        answer = await raw.answer()
        assert (answer.status, answer.headers["Connection"]) == (429, "close")
        assert await raw.until_closed() == b""
        await until(lambda: not served.server.connection_count)
    assert not caplog.records


async def fill(served: Served, raw: Raw) -> int:
    """Ask for a MiB until the client's side takes no more; how often that was."""
    raw.send(put(b"x" * (1 << 20)))
    assert (await raw.answer()).status == 201
    [connection] = fast_connections(served)

    def is_answered(count: int) -> bool:
        return len(served.driver.reads) == count and not connection._queue

    count = 0
    while not connection._is_blocked:
        raw.send(GET)
        count += 1
        await until(partial(is_answered, count))
    return count


async def test_a_client_that_reads_slowly_has_no_deadline_for_what_it_has_sent(
    served: Served,
) -> None:
    async with served.connect() as raw:
        count = await fill(served, raw)
        raw.send(put(b"1", b"b") + STATUS)
        [connection] = fast_connections(served)
        await until(lambda: connection._buffer)
        assert connection._deadline is None
        assert b"b" not in served.driver.items
        for _ in range(count):
            assert len((await raw.answer()).body) == 1 << 20
        assert [(await raw.answer()).status for _ in range(2)] == [201, 200]


async def test_a_connection_that_is_closing_begins_nothing(served: Served) -> None:
    async with served.connect() as raw:
        await fill(served, raw)
        raw.send(put(b"1", b"b"))
        [connection] = fast_connections(served)
        await until(lambda: connection._buffer)
        connection.close()
        await raw.until_closed()
        assert b"b" not in served.driver.items
