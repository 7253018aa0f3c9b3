"""`GET /v1/watch` on a real socket: what is sent, in which order, and how it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from raftkv.kv.commands import Command, Compact, Delete, DeleteRange, Put, Txn, encode_command
from raftkv.node.messages import Failure, FailureCode
from raftkv.node.status import State
from raftkv.server import watches
from raftkv.server.http import app
from raftkv.server.http.settings import HttpSettings
from raftkv.server.watch_events import epoch_of
from tests.server.http.harness import SECONDS_MAX, Raw, Served, serving, until

BOTH_LOOPS = True

EPOCH = epoch_of("c1")


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(app, "_DRAIN_CHECK_SECONDS", -1.0)


@dataclass(frozen=True)
class Event:
    kind: str
    data: Any
    id: str | None = None

    @property
    def revision(self) -> int:
        assert self.id is not None
        epoch, _, revision = self.id.partition(":")
        assert epoch == EPOCH
        return int(revision)


class Events:
    """A stream of events, read from chunks."""

    def __init__(self, raw: Raw, headers: dict[str, str]) -> None:
        self.raw = raw
        self.headers = headers
        self._text = b""
        self.is_ended = False

    async def next(self) -> Event:
        """The next event; AssertionError when the stream ends instead."""
        while b"\n\n" not in self._text:
            assert await self._more(), "the stream ended"
        block, _, self._text = self._text.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        assert list(fields) in (["event", "data"], ["event", "data", "id"])
        return Event(fields["event"], json.loads(fields["data"]), fields.get("id"))

    async def take(self, count: int) -> list[Event]:
        return [await self.next() for _ in range(count)]

    async def last_words(self) -> list[Event]:
        """All that comes before the end, which must be one."""
        events = []
        while b"\n\n" in self._text or await self._more():
            if b"\n\n" in self._text:
                events.append(await self.next())
        assert self._text == b""
        return events

    async def _more(self) -> bool:
        if self.is_ended:
            return False
        async with asyncio.timeout(SECONDS_MAX):
            size = int((await self.raw.reader.readline()).strip(), 16)
            self._text += await self.raw.reader.readexactly(size)
            assert await self.raw.reader.readexactly(2) == b"\r\n"
        self.is_ended = size == 0
        return not self.is_ended


@asynccontextmanager
async def watching(
    served: Served, query: str = "prefix=", headers: dict[str, str] | None = None
) -> AsyncIterator[Events]:
    """An open watch whose head was read."""
    async with served.connect() as raw:
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        raw.send(f"GET /v1/watch?{query} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        async with asyncio.timeout(SECONDS_MAX):
            head = (await raw.reader.readuntil(b"\r\n\r\n")).decode()
        status, *fields = head.strip().split("\r\n")
        assert status == "HTTP/1.1 200 OK", head
        yield Events(raw, dict(field.split(": ", 1) for field in fields))


def change(served: Served, *commands: Command) -> None:
    served.driver.apply(*(encode_command(command) for command in commands))


def item(key: str, value: str, revision: int, version: int = 1, create: int = 0) -> dict[str, Any]:
    return {
        "key": key,
        "key_encoding": "utf-8",
        "value": value,
        "value_encoding": "utf-8",
        "create_revision": create or revision,
        "mod_revision": revision,
        "version": version,
        "lease": "0",
    }


async def test_a_watch_begins_with_progress_and_tells_what_follows(served: Served) -> None:
    change(served, Put(b"a/old", b""))
    async with watching(served, "prefix=a/") as events:
        assert events.headers["Content-Type"] == "text/event-stream"
        assert events.headers["Cache-Control"] == "no-store, no-transform"
        assert events.headers["X-Accel-Buffering"] == "no"
        assert events.headers["X-Content-Type-Options"] == "nosniff"
        assert events.headers["X-RaftKV-Revision"] == "101"
        assert "Content-Length" not in events.headers
        assert await events.next() == Event("progress", {"revision": 101}, f"{EPOCH}:101")
        change(served, Put(b"a/1", b"x"), Put(b"b", b"other"), Put(b"a/1", b"y"), Delete(b"a/1"))
        assert await events.take(3) == [
            Event("put", item("a/1", "x", 102), f"{EPOCH}:102"),
            Event("put", item("a/1", "y", 104, 2, 102), f"{EPOCH}:104"),
            Event(
                "delete",
                {"key": "a/1", "key_encoding": "utf-8", "mod_revision": 105},
                f"{EPOCH}:105",
            ),
        ]


async def test_a_watch_of_one_key_leaves_out_those_that_begin_like_it(served: Served) -> None:
    async with watching(served, "key=a%FF") as events:
        await events.next()
        change(served, Put(b"a", b""), Put(b"a\xff\x00", b""), Put(b"a\xff", b"\xfe"))
        event = await events.next()
        assert event.data["key_encoding"] == event.data["value_encoding"] == "base64"
        assert event.revision == 103


async def test_the_start_is_found_by_a_linearizable_read_and_has_no_gap(served: Served) -> None:
    """What is written while the watch is being set up is told exactly once."""
    served.driver.gate = asyncio.Event()
    async with served.connect() as raw:
        raw.send(b"GET /v1/watch?prefix= HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: served.driver.waiting == 1)
        change(served, Put(b"a", b""))
        served.driver.gate.set()
        await raw.reader.readuntil(b"\r\n\r\n")
        events = Events(raw, {})
        assert (await events.next()).revision == 101
        change(served, Put(b"b", b""))
        assert [event.revision for event in await events.take(1)] == [102]
    assert served.driver.reads[0][1].name == "LINEARIZABLE"


@pytest.mark.parametrize("count", [1, 30, 700])
async def test_from_tells_the_past_and_then_the_present(served: Served, count: int) -> None:
    """More than one piece of it, while it goes on."""
    for number in range(count):
        change(served, Put(b"a/%d" % number, b"x" * 1000), Put(b"b", b""))
    async with watching(served, "prefix=a/&from=100") as events:
        assert await events.next() == Event("progress", {"revision": 100}, f"{EPOCH}:100")
        for number in range(count, count + 20):
            change(served, Put(b"a/%d" % number, b""))
            await asyncio.sleep(0)
        found = await events.take(count + 20)
    assert [event.data["key"] for event in found] == [f"a/{n}" for n in range(count + 20)]
    assert [event.revision for event in found] == [
        *range(101, 101 + 2 * count, 2),
        *range(101 + 2 * count, 121 + 2 * count),
    ]


async def test_last_event_id_counts_more_than_from(served: Served) -> None:
    change(served, Put(b"a", b"1"), Put(b"a", b"2"))
    for query, headers in (
        ("key=a&from=100", {"Last-Event-ID": f"{EPOCH}:101"}),
        ("key=a&from=101", {}),
        ("key=a&from=101", {"Last-Event-ID": ""}),
        (f"key=a&from={EPOCH}:101", {}),
    ):
        async with watching(served, query, headers) as events:
            assert [event.revision for event in await events.take(2)] == [101, 102]


async def test_previous_items_are_told_when_asked_for(served: Served) -> None:
    async with watching(served, "key=a&prev=true") as told, watching(served, "key=a") as plain:
        for events in (told, plain):
            await events.next()
        change(served, Put(b"a", b"1"), Put(b"a", b"2"), Delete(b"a"))
        first, second, third = await told.take(3)
        assert first.data == item("a", "1", 101) | {"prev": None}
        assert second.data == item("a", "2", 102, 2, 101) | {"prev": item("a", "1", 101)}
        assert third.data["prev"] == item("a", "2", 102, 2, 101)
        assert not any("prev" in event.data for event in await plain.take(3))
    async with watching(served, "key=a&prev=true&from=101") as events:
        assert [event.data["prev"]["mod_revision"] for event in (await events.take(3))[1:]] == [
            101,
            102,
        ]


async def test_events_of_one_revision_come_together_and_the_last_has_the_id(
    served: Served,
) -> None:
    puts = tuple(Put(b"a/%d" % number, b"") for number in range(3))
    async with watching(served, "prefix=a/") as live, watching(served, "key=a/1") as one:
        await live.next()
        await one.next()
        change(served, Txn((), (*puts, Put(b"z", b"")), (), 9, 9), DeleteRange(b"a/", b"a0", 9))
        expected = [None, None, f"{EPOCH}:101", None, None, f"{EPOCH}:102"]
        assert [event.id for event in await live.take(6)] == expected
        # The last of those that are told: another may be left out.
        assert [event.id for event in await one.take(2)] == [f"{EPOCH}:101", f"{EPOCH}:102"]
    async with watching(served, "prefix=a/&from=100") as past:
        await past.next()
        assert [event.id for event in await past.take(6)] == expected


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("", {}, 400, "bad_parameter"),
        ("key=a&prefix=a", {}, 400, "bad_parameter"),
        ("key=", {}, 400, "bad_key"),
        ("key=" + "k" * 512, {}, 400, "bad_key"),
        ("prefix=a&from=-1", {}, 400, "bad_parameter"),
        ("prefix=a&from=9223372036854775808", {}, 400, "bad_parameter"),
        ("prefix=a&from=1e3", {}, 400, "bad_parameter"),
        ("prefix=a&from=101", {}, 400, "future_revision"),
        ("prefix=a&prev=1", {}, 400, "bad_parameter"),
        ("prefix=a&prefix=b", {}, 400, "bad_parameter"),
        ("prefix=a&filter=x", {}, 400, "bad_parameter"),
        ("prefix=a", {"Last-Event-ID": "100"}, 400, "bad_header"),
        ("prefix=a", {"Last-Event-ID": f"{EPOCH}:-1"}, 400, "bad_header"),
        ("prefix=a", {"Last-Event-ID": f"{EPOCH}:101"}, 400, "future_revision"),
        ("prefix=a", {"Last-Event-ID": "0123456789abcdef:1"}, 410, "epoch_changed"),
        ("prefix=a&from=0123456789abcdef:1", {}, 410, "epoch_changed"),
    ],
)
async def test_what_cannot_be_watched_is_refused(
    served: Served, query: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await served.ask("GET", f"/v1/watch?{query}", headers=headers)
    assert (answer.status, answer.code()) == (status, code)


async def test_head_has_the_headers_alone(served: Served) -> None:
    answer = await served.ask("HEAD", "/v1/watch?prefix=")
    assert (answer.status, answer.headers["X-RaftKV-Revision"]) == (200, "100")


async def test_a_node_without_a_cluster_or_a_leader_says_so(served: Served) -> None:
    served.driver.failure = Failure(FailureCode.NO_LEADER, "none")
    answer = await served.ask("GET", "/v1/watch?prefix=")
    assert (answer.status, answer.code()) == (503, "no_leader")
    served.driver.change(cluster_id=None)
    answer = await served.ask("GET", "/v1/watch?prefix=")
    assert (answer.status, answer.code()) == (503, "uninitialised")


async def test_a_compacted_start_is_410_and_a_compacted_stream_ends(served: Served) -> None:
    change(served, Put(b"a", b"1"), Put(b"a", b"2"), Compact(102))
    answer = await served.ask("GET", "/v1/watch?prefix=&from=101")
    assert (answer.status, answer.code()) == (410, "compacted")
    async with watching(served, "prefix=&from=102") as events:
        await events.next()
        # As a snapshot does that this node takes over: the history is gone in one step.
        real, served.driver.failure = (
            served.driver.failure,
            Failure(FailureCode.COMPACTED, "gone", revision=105),
        )
        change(served, Put(b"a", b"3"))
        assert await events.last_words() == [Event("compacted", {"oldest_revision": 105})]
        served.driver.failure = real


async def test_more_watches_than_allowed_are_refused() -> None:
    async with (
        serving(settings=HttpSettings(node_name="n1", watchers_max=2)) as served,
        watching(served) as one,
    ):
        await one.next()
        async with watching(served) as two:
            await two.next()
            assert b"raftkv_watchers 2.0" in served.metrics.render(
                served.driver.status(), served.driver.cluster()
            )
            answer = await served.ask("GET", "/v1/watch?prefix=")
            assert (answer.status, answer.code()) == (429, "overloaded")
        hub = served.server._handlers.endpoint.watches
        await until(lambda: hub.count == 1)
        async with watching(served) as three:
            await three.next()


async def test_progress_is_told_while_nothing_happens() -> None:
    settings = HttpSettings(node_name="n1", watch_progress_seconds=0.05)
    async with serving(settings=settings) as served, watching(served, "key=a") as events:
        assert [event.revision for event in await events.take(3)] == [100, 100, 100]
        change(served, Put(b"other", b""))
        async with asyncio.timeout(SECONDS_MAX):
            while (event := await events.next()).revision == 100:
                pass
        assert event == Event("progress", {"revision": 101}, f"{EPOCH}:101")


async def test_a_draining_node_says_good_bye_and_serves_those_that_come_until_it_ends(
    served: Served,
) -> None:
    async with watching(served, "key=a") as events:
        await events.next()
        change(served, Put(b"b", b""))
        served.driver.change(state=State.DRAINING)
        (bye,) = await events.last_words()
        assert (bye.kind, bye.data["revision"]) == ("bye", bye.revision)
        assert bye.revision in (100, 101)
    async with watching(served, f"key=a&from={bye.id}") as events:
        assert events.headers["Connection"] == "close"
        await events.next()
        change(served, Put(b"a", b""))
        assert (await events.next()).revision == 102
        served.server.end_watches()
        assert [event.kind for event in await events.last_words()] == ["bye"]
        assert await events.raw.until_closed() == b""
    async with watching(served, "key=a") as late:
        assert [event.kind for event in await late.last_words()] == ["progress", "bye"]
    assert served.server.in_flight == 0


async def test_a_node_that_is_cut_off_sends_its_watchers_elsewhere(served: Served) -> None:
    """They would see nothing, and could not tell that from a store in which nothing happens."""
    async with watching(served, "key=a") as events:
        await events.next()
        served.driver.change(seconds_since_leader=10.5, leader=None)
        assert [event.kind for event in await events.last_words()] == ["bye"]
    served.driver.failure = Failure(FailureCode.NO_LEADER, "none")
    answer = await served.ask("GET", "/v1/watch?key=a&from=100")
    assert (answer.status, answer.code()) == (503, "no_leader")
    # A moment without a leader matters to those who begin now alone.
    served.driver.change(seconds_since_leader=9.5)
    answer = await served.ask("GET", "/v1/watch?key=a")
    assert answer.status == 503
    served.driver.failure = None
    async with watching(served, "key=a&from=100") as events:
        await events.next()


async def test_http_1_0_gets_the_stream_without_chunks(served: Served) -> None:
    async with served.connect() as raw:
        raw.send(b"GET /v1/watch?key=a HTTP/1.0\r\n\r\n")
        head = await raw.reader.readuntil(b"\r\n\r\n")
        assert b"Transfer-Encoding" not in head
        await raw.reader.readuntil(b"\n\n")
        change(served, Put(b"a", b""))
        assert (await raw.reader.readuntil(b"\n\n")).startswith(b"event: put\ndata: {")
        served.server.end_watches()
        assert (await raw.until_closed()).startswith(b"event: bye\n")


async def test_a_client_that_goes_away_is_forgotten(served: Served) -> None:
    async with watching(served) as events:
        await events.next()
        hub = served.server._handlers.endpoint.watches
        assert hub.count == 1
    await until(lambda: hub.count == 0)
    feed = hub._feed
    assert feed is not None
    await until(feed.done)
    # The next one is served as if nothing had been.
    async with watching(served) as events:
        await events.next()
        change(served, Put(b"a", b""))
        assert (await events.next()).revision == 101


async def test_a_slow_reader_is_cut_and_goes_on_behind_what_it_has_read() -> None:
    async with serving() as served, watching(served) as slow, watching(served) as quick:
        await slow.next()
        await quick.next()
        transport = slow.raw.writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]
        hub = served.server._handlers.endpoint.watches
        seen: list[int] = []
        value = bytes(200_000)
        async with asyncio.timeout(SECONDS_MAX):
            while hub.count == 2:
                change(served, Put(b"a", value))
                seen.append((await quick.next()).revision)
        assert seen == list(range(101, 101 + len(seen)))
        # What is kept for it is bounded, whatever the kernel takes.
        assert hub.count == 1
        transport.resume_reading()  # type: ignore[attr-defined]
        read = await until_cut(slow)
        assert len(read) < len(seen)
        last = read[-1].id if read else f"{EPOCH}:100"
        async with watching(served, "prefix=", {"Last-Event-ID": str(last)}) as again:
            rest = [(await again.next()).revision for _ in range(1 + len(seen) - len(read))]
        assert [event.revision for event in read] + rest[1:] == seen


async def until_cut(events: Events) -> list[Event]:
    """All that can be read of a stream that was cut off."""
    read: list[Event] = []
    try:
        while True:
            read.append(await events.next())
    except (ConnectionError, asyncio.IncompleteReadError, ValueError):
        return read


async def test_a_thousand_changes_at_once_to_many_kinds_of_watches(served: Served) -> None:
    queries = ["prefix=", "prefix=k/1", "key=k/10", "prefix=k/&prev=true", "key=none"]
    expected = {
        "prefix=": range(1000),
        "prefix=k/1": [n for n in range(1000) if str(n).startswith("1")],
        "key=k/10": [10],
        "prefix=k/&prev=true": range(1000),
    }
    streams = {}
    async with asyncio.TaskGroup() as group:
        ready = asyncio.Barrier(len(queries) * 3 + 1)

        async def follow(query: str) -> None:
            async with watching(served, query) as events:
                await events.next()
                await ready.wait()
                wanted = expected.get(query)
                if wanted is not None:
                    found = [event.data["key"] for event in await events.take(len(wanted))]
                    assert found == [f"k/{number}" for number in wanted]

        for query in queries * 3:
            streams[group.create_task(follow(query))] = query
        await ready.wait()
        for number in range(1000):
            change(served, Put(b"k/%d" % number, b""))
            if number % 7 == 0:
                await asyncio.sleep(0)
