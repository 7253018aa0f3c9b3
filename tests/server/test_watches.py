"""The feed of changes under every interleaving that a seed can find."""

import asyncio
import json
import random
import re

import pytest
from multidict import CIMultiDict
from typing_extensions import override

from raftkv.kv.changes import ChangesAfter, read_changes
from raftkv.kv.commands import Command, Compact, Delete, DeleteRange, Put, Txn, encode_command
from raftkv.node.events import Consistency, Found, Query, Stale
from raftkv.node.messages import Failure, FailureCode
from raftkv.server import watches
from raftkv.server.http.calls import watch as calls
from raftkv.server.http.calls.watch import watch
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.routes import Listener, match_route
from raftkv.server.http.settings import HttpSettings
from raftkv.server.metrics import Metrics
from raftkv.server.watch_events import Encoder, encode_change, epoch_of
from raftkv.server.watches import Stream, Wanted
from tests.server.http.fake_driver import FakeDriver

KEYS = (b"a", b"a/1", b"a/2", b"b", b"\xff")
WANTED = tuple(
    Wanted(key, is_prefix, with_previous)
    for key in (*KEYS, b"")
    for is_prefix in (False, True)
    for with_previous in (False, True)
    if key or is_prefix
)
ENCODER = Encoder(epoch_of("c1"))


class Sink:
    """A connection that keeps what it is sent, and is slow now and then."""

    def __init__(self, rng: random.Random) -> None:
        self.sent = b""
        self.is_aborted = False
        self._rng = rng

    async def write(self, raw: bytes) -> None:
        self.sent += raw
        for _ in range(self._rng.choice((0, 0, 1, 5))):
            await asyncio.sleep(0)

    def push(self, raw: bytes, chunk: bytes) -> bool:
        assert chunk == b"%x\r\n%b\r\n" % (len(raw), raw)
        self.sent += raw
        return True

    def abort(self) -> None:
        self.is_aborted = True


class SlowDriver(FakeDriver):
    """Answers reads some turns after they were asked, and fails some."""

    rng: random.Random

    @override
    async def read(
        self,
        query: Query,
        consistency: Consistency,
        min_revision: int,
        timeout_seconds: float,
        max_stale_seconds: float = 0.0,
    ) -> Found | Stale | Failure:
        await self._turns((0, 0, 1, 2, 7))
        if isinstance(query, ChangesAfter) and self.rng.random() < 0.02:
            return Failure(FailureCode.OVERLOADED, "injected")
        answer = await super().read(query, consistency, min_revision, timeout_seconds)
        await self._turns((0, 0, 1, 3))
        return answer

    async def _turns(self, choices: tuple[int, ...]) -> None:
        for _ in range(self.rng.choice(choices)):
            await asyncio.sleep(0)


def a_command(rng: random.Random) -> Command:
    keys = rng.sample(KEYS, 2)
    return rng.choice(
        (
            Put(keys[0], b"%d" % rng.randrange(9)),
            Put(keys[0], b"%d" % rng.randrange(9)),
            Delete(keys[0]),
            DeleteRange(b"a", b"b", 9),
            Txn((), (Put(keys[0], b"t"), Put(keys[1], b"t"), Put(keys[0], b"u")), (), 9, 9),
        )
    )


def expected(driver: FakeDriver, wanted: Wanted, after: int) -> bytes:
    """All events in one piece."""
    engine, revision = driver.store.engine, driver.store.revision
    query = ChangesAfter(after, *wanted.bounds, 1 << 20, 1 << 30, wanted.with_previous)
    changes = read_changes(engine, revision, query).changes
    return ENCODER.events(
        [encode_change(change, with_previous=wanted.with_previous) for change in changes]
    )


def target_of(wanted: Wanted, after: int | None) -> str:
    name = "prefix" if wanted.is_prefix else "key"
    query = f"{name}={''.join(f'%{byte:02x}' for byte in wanted.key)}"
    query += "&prev=true" * wanted.with_previous
    return query if after is None else f"{query}&from={after}"


async def begin(at: Endpoint, query: str, sink: Sink) -> asyncio.Future[None]:
    """A watch that was granted, and is served to ``sink`` from now on."""

    async def no_body(_: int) -> bytes:
        return b""

    request = Request("GET", f"/v1/watch?{query}", CIMultiDict(), no_body)
    match = match_route("GET", "/v1/watch", Listener.CLIENT)
    while True:
        response = await watch(at, request, match, query)
        if response.live is not None:
            return asyncio.ensure_future(response.live(sink))
        assert response.status == 429, "injected"


async def run(seed: int) -> int:
    rng = random.Random(seed)
    driver = SlowDriver()
    driver.rng = rng
    at = Endpoint(driver, HttpSettings(node_name="n1", watch_progress_seconds=0.0005), Metrics())
    followed: list[tuple[Sink, Wanted]] = []

    async def follow() -> None:
        wanted, sink = rng.choice(WANTED), Sink(rng)
        after = rng.choice((None, None, rng.randint(100, driver.revision)))
        serving = await begin(at, target_of(wanted, after), sink)
        if rng.random() < 0.2:  # goes away
            for _ in range(rng.randrange(30)):
                await asyncio.sleep(0)
            serving.cancel()
            await asyncio.wait((serving,))
        else:
            followed.append((sink, wanted))
            await serving

    async with asyncio.TaskGroup() as group:
        for _ in range(60):
            if rng.random() < 0.2:
                group.create_task(follow())
            for _ in range(rng.randrange(3)):
                driver.apply(*(encode_command(a_command(rng)) for _ in range(rng.choice((1, 4)))))
            for _ in range(rng.choice((0, 1, 2, 9))):
                await asyncio.sleep(0)
        # All have been told when the last progress says so.
        done = ENCODER.progress(driver.revision)
        async with asyncio.timeout(20):
            while not all(sink.sent.endswith(done) for sink, _ in followed):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            while at.watches.count != len(followed):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        at.watches.close()
    for sink, wanted in followed:
        check(sink.sent, wanted, driver)
    return len(followed)


def check(sent: bytes, wanted: Wanted, driver: FakeDriver) -> None:
    """Progress first and good-bye last; the ids ascend; the changes are all there are."""
    blocks = re.findall(rb"(event: (\w+)\ndata: (.*)\n(?:id: \w+:(\d+)\n)?\n)", sent)
    assert b"".join(block for block, *_ in blocks) == sent
    assert (blocks[0][1], blocks[-1][1]) == (b"progress", b"bye")
    start = json.loads(blocks[0][2])["revision"]
    ids = [int(number) for *_, number in blocks if number]
    assert ids == sorted(ids)
    told = [block for block, kind, *_ in blocks if kind in (b"put", b"delete")]
    assert b"".join(told) == expected(driver, wanted, start)


@pytest.mark.parametrize("first_seed", range(0, 60, 20))
async def test_nobody_misses_anything_or_sees_it_twice(
    first_seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small pieces, so that everything is cut somewhere; short waits.
    monkeypatch.setattr(watches, "FEED_RECORDS_MAX", 2)
    monkeypatch.setattr(watches, "SLICE_STREAMS", 1)
    monkeypatch.setattr(watches, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(calls, "_PIECE_RECORDS_MAX", 1)
    monkeypatch.setattr(calls, "_RETRY_SECONDS", 0.0)
    followed = [await run(seed) for seed in range(first_seed, first_seed + 20)]
    assert sum(followed) > 50


async def test_a_feed_that_fails_cuts_everybody_rather_than_fall_silent() -> None:
    driver = FakeDriver()
    at = Endpoint(driver, HttpSettings(node_name="n1"), Metrics())
    sink = Sink(random.Random(0))
    stream = Stream(Wanted(b"", is_prefix=True), 100, sink, lambda: None)
    async with at.watches.stream(stream, ENCODER):
        assert at.watches.join(stream)

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        at.watches._match = fail  # type: ignore[assignment, method-assign]
        driver.apply(encode_command(Put(b"a", b"")))
        async with asyncio.timeout(5):
            await stream.ended
        assert sink.is_aborted


async def test_watches_after_a_gap_go_on_while_long_polls_overlap() -> None:
    """A snapshot took the place of what the feed would have read; somebody always polls."""
    driver = FakeDriver()
    at = Endpoint(driver, HttpSettings(node_name="n1"), Metrics())
    async with at.watches.poll(b"a") as looking, asyncio.timeout(5):
        gap = (encode_command(Put(b"b", b"%d" % number)) for number in range(9))
        driver.apply(*gap, encode_command(Compact(driver.revision + 9)))
        assert await looking  # anything may have happened
        sink = Sink(random.Random(0))
        serving = await begin(at, "prefix=", sink)
        wanted = Wanted(b"", is_prefix=True)
        while wanted not in at.watches._topics:  # noqa: ASYNC110
            await asyncio.sleep(0)
        driver.apply(encode_command(Put(b"b", b"new")))
        while b"new" not in sink.sent:
            assert b"compacted" not in sink.sent
            await asyncio.sleep(0)
        serving.cancel()
