"""The load generator: its schedule, what latencies count from, and what becomes of requests."""

import asyncio
from collections import Counter
from random import Random
from typing import cast

import pytest
from typing_extensions import override

from benchmarks.judge import Operation
from benchmarks.open_loop import Generator, LoadPlan, Result, schedule, zipf_keys

OK = b'HTTP/1.1 200 OK\r\nETag: "%d"\r\nContent-Length: 0\r\n\r\n'
BUSY = b'HTTP/1.1 429 Too Many\r\nContent-Length: 27\r\n\r\n{"outcome":"not_committed"}'


def plan_of(port: int = 0, **more: object) -> LoadPlan:
    values: dict[str, object] = {
        "system": "RaftKV",
        "addresses": (("127.0.0.1", port),),
        "rate": 500.0,
        "seconds": 0.2,
        "prefix": "k/",
        "keys": 10,
        "connections": 4,
        "connections_max": 4,
    }
    return LoadPlan(**values | more)  # type: ignore[arg-type]


class Server(asyncio.Protocol):
    """Answers by ``decide``: bytes, or None to cut the connection; stalls at the first request."""

    stall_seconds = 0.0
    refuse_every = 0
    cut_every = 0
    hold_every = 0
    seen = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        kind = type(self)
        kind.seen += 1
        if kind.hold_every and kind.seen % kind.hold_every == 0:
            return
        if kind.cut_every and kind.seen % kind.cut_every == 0:
            self._transport.abort()
            return
        is_refused = kind.refuse_every and kind.seen % kind.refuse_every == 0
        answer = BUSY if is_refused else OK % kind.seen
        delay = kind.stall_seconds if kind.seen <= 4 else 0.0
        asyncio.get_running_loop().call_later(delay, self._answer, answer)

    def _answer(self, answer: bytes) -> None:
        # In two pieces, as networks do.
        self._transport.write(answer[:20])
        self._transport.write(answer[20:])


async def perform(kind: type[Server], **more: object) -> Result:
    server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await Generator(plan_of(port, **more)).run()


def test_requests_are_evenly_spaced_and_numbered() -> None:
    wanted = schedule(plan_of(rate=100.0, seconds=0.5, first_number=7, keys=20))
    assert len(wanted) == 50
    assert [each.due for each in wanted[:3]] == [0.0, 0.01, 0.02]
    assert [each.number for each in wanted[:3]] == [7, 8, 9]
    assert Counter(each.key for each in wanted) == dict.fromkeys(range(10), 3) | dict.fromkeys(
        range(10, 20), 2
    )
    unique = schedule(plan_of(has_unique_keys=True, keys=1))
    assert len({each.key for each in unique}) == len(unique)


def test_a_schedule_is_the_same_each_time_and_has_its_share_of_reads() -> None:
    plan = plan_of(rate=2000.0, seconds=1.0, read_share=0.9, zipf=0.99, keys=1000)
    wanted = schedule(plan)
    assert [each.key for each in wanted] == [each.key for each in schedule(plan)]
    assert 0.87 < sum(each.is_read for each in wanted) / len(wanted) < 0.93


def test_zipf_has_the_frequencies_of_its_law() -> None:
    drawn = Counter(zipf_keys(1000, 1.0, 50_000, Random(3)))
    first, second, tenth = (
        count for _, count in [*drawn.most_common(2), *drawn.most_common(10)[9:]]
    )
    assert set(drawn) <= set(range(1000))
    assert first / second == pytest.approx(2, rel=0.1)
    assert first / tenth == pytest.approx(10, rel=0.2)


async def test_all_requests_are_made_once_and_recorded() -> None:
    class Plain(Server):
        pass

    result = await perform(Plain)
    assert len(result.history) == 100
    assert result.count("done") == 100
    assert sorted(each.number for each in result.history) == list(range(100))
    assert Plain.seen == 100


async def test_a_latency_counts_from_when_the_request_was_due() -> None:
    class Stalling(Server):
        stall_seconds = 0.1

    result = await perform(Stalling)
    ordered = result.latencies("put")
    # All four connections stall for 100 ms: the 50 requests of that time have waited, too.
    assert sum(each > 0.05 for each in ordered) >= 25
    # Most of them had to wait for a connection first: their own time on it says nothing of that.
    assert sum(each.start - due > 0.03 for each, due in _with_due(result)) >= 20


def _with_due(result: Result) -> list[tuple[Operation, float]]:
    return list(zip(result.history, result.due, strict=True))


async def test_refused_and_cut_requests_are_told_apart() -> None:
    class Bad(Server):
        refuse_every = 5
        cut_every = 8

    result = await perform(Bad)
    assert len(result.history) == 100
    assert result.count("unknown") == 100 // 8
    assert result.count("refused") == sum(n % 5 == 0 and n % 8 != 0 for n in range(1, 101))


async def test_a_request_that_hangs_is_given_up_as_unknown() -> None:
    class Holding(Server):
        hold_every = 50

    result = await perform(Holding, timeout_seconds=1.5)
    assert result.count("unknown") == 2
    assert result.count("done") == 98


async def test_what_found_no_connection_in_time_is_not_sent() -> None:
    class Stuck(Server):
        hold_every = 1

    result = await perform(Stuck, timeout_seconds=0.4, give_up_seconds=0.05, connections_max=2)
    assert result.unsent + len(result.history) == 100
    assert result.unsent > 50
    assert result.count("unknown") == len(result.history)
