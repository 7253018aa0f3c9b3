"""Watches: nothing lost, nothing twice, whatever breaks."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterable, AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.client import (
    Client,
    CompactedError,
    EpochChangedError,
    Event,
    RequestFailedError,
    UnreachableError,
)
from raftkv.client.sse import SseEvent, SseParser
from raftkv.client.streams import BrokenStreamError, lines
from tests.client.contract_server import ContractServer, Fault, contract_server


def client_of(*servers: ContractServer, seconds: float = 5.0) -> Client:
    urls = [server.url for server in servers]
    return Client(urls, timeout_seconds=seconds, prefer_leader=False)


async def take(events: AsyncIterable[Event], count: int) -> list[Event]:
    taken: list[Event] = []
    async with asyncio.timeout(10):
        async for event in events:
            taken.append(event)
            if len(taken) == count:
                break
    return taken


async def test_a_watch_sees_what_happens_after_it_began() -> None:
    async with contract_server() as server, client_of(server) as client:
        await client.put(b"a", b"before")
        async with client.watch(prefix=b"a", prev=True) as watch:
            assert watch.revision == 101
            await client.put(b"a", b"1")
            await client.put(b"b", b"another")
            await client.delete(b"a")
            put, delete = await take(watch, 2)
        assert (put.kind, put.key, put.revision) == ("put", b"a", 102)
        assert put.item is not None
        assert put.prev is not None
        assert (put.item.value, put.prev.value) == (b"1", b"before")
        assert (delete.kind, delete.item, delete.revision) == ("delete", None, 104)
        assert "prev=true" in server.requests[-4].raw_path + server.requests[1].raw_path


async def test_a_watch_of_one_key_from_a_revision() -> None:
    async with contract_server() as server, client_of(server) as client:
        for number in range(5):
            await client.put(b"k", str(number).encode())
        async with client.watch(key=b"k", from_revision=102) as watch:
            events = await take(watch, 3)
        assert [event.revision for event in events] == [103, 104, 105]


@pytest.mark.parametrize("cut_after", range(8))
async def test_a_watch_that_breaks_anywhere_goes_on_without_loss_or_repetition(
    cut_after: int,
) -> None:
    async with contract_server() as server, client_of(server) as client:
        async with client.watch(prefix=b"") as watch:
            # Single changes and groups of three, so that a cut falls into the middle of some.
            for number in range(3):
                await client.put(b"single", str(number).encode())
                server._apply([(f"g{each}".encode(), b"%d" % number) for each in range(3)])
            events = await take(watch, 12)
        uncut = [(event.revision, event.key) for event in events]
        server.cut_after = lambda count: cut_after if count < 5 else None
        async with client.watch(prefix=b"", from_revision=100) as watch:
            events = await take(watch, 12)
        assert [(event.revision, event.key) for event in events] == uncut
        assert len(server.watch_ids) > 2


async def test_groups_of_one_revision_come_whole() -> None:
    async with contract_server() as server, client_of(server) as client:
        server.cut_after = lambda count: 2 if count == 1 else None
        async with client.watch(prefix=b"") as watch:
            server._apply([(b"a", b"1"), (b"b", b"1"), (b"c", b"1")])
            server._apply([(b"a", b"2")])
            groups = aiter(watch.groups())
            first = await anext(groups)
            second = await anext(groups)
        assert [event.key for event in first] == [b"a", b"b", b"c"]
        assert [event.revision for event in second] == [102]
        assert server.watch_ids == [None, "cafe:100"]
        assert watch.last_event_id == "cafe:102"


async def test_who_stops_amid_a_revision_and_iterates_again_misses_nothing() -> None:
    async with contract_server() as server, client_of(server) as client:
        async with client.watch(prefix=b"") as watch:
            server._apply([(b"a", b"1"), (b"b", b"1")])
            server._apply([(b"c", b"1")])
            seen = [(await take(watch, 1))[0].key for _ in range(3)]
        assert seen == [b"a", b"b", b"c"]


async def test_a_wait_for_events_that_is_cancelled_can_be_repeated() -> None:
    async with contract_server() as server, client_of(server) as client:
        async with client.watch(prefix=b"") as watch:
            await client.put(b"a", b"1")
            seen = await take(watch, 1)
            waiting = asyncio.ensure_future(take(watch, 1))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait((waiting,))
            await client.put(b"b", b"1")
            await client.put(b"c", b"1")
            seen += await take(watch, 2)
        assert [event.key for event in seen] == [b"a", b"b", b"c"]


async def test_a_watch_goes_on_at_another_endpoint() -> None:
    async with contract_server() as one, contract_server() as other:
        async with client_of(one, other) as client, client.watch(prefix=b"") as watch:
            for server in (one, other):
                server._apply([(b"k", b"1")])
                server._apply([(b"k", b"2")])
            first = await take(watch, 2)
            one.faults = lambda _: Fault(before=True)
            one.cut_after = lambda _: 0
            for connection in one.requests:
                assert connection.transport is not None
                connection.transport.abort()
            other._apply([(b"k", b"3")])
            (last,) = await take(watch, 1)
        assert [event.revision for event in (*first, last)] == [101, 102, 103]
        assert other.watch_ids == ["cafe:102"]


async def test_lost_history_is_said() -> None:
    async with contract_server() as server, client_of(server) as client:
        server.oldest_revision = 90
        with pytest.raises(CompactedError) as caught:
            async with client.watch(prefix=b"", from_revision=80):
                pass
        assert caught.value.oldest_revision == 90


async def test_another_epoch_is_said() -> None:
    async with (
        contract_server() as server,
        client_of(server) as client,
        client.watch(prefix=b"") as watch,
    ):
        server._apply([(b"k", b"1")])
        await take(watch, 1)
        server.epoch = "beef"
        for connection in server.requests:
            assert connection.transport is not None
            connection.transport.abort()
        with pytest.raises(EpochChangedError):
            await take(watch, 1)


async def test_a_watch_that_never_began_says_why() -> None:
    async with client_of_nobody() as client:
        with pytest.raises(UnreachableError, match="connection refused"):
            async with client.watch(prefix=b""):
                pass


def client_of_nobody() -> Client:
    return Client(["http://127.0.0.1:9"], timeout_seconds=0.3)


async def test_a_refusal_that_will_pass_is_waited_for() -> None:
    async with contract_server() as server, client_of(server) as client:
        waits = iter([Fault(status=503), Fault(status=429, code="overloaded")])
        server.faults = lambda _: next(waits, None)
        async with client.watch(prefix=b""):
            assert len(server.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: put\ndata: x\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: x\n\n",
    ],
)
async def test_what_is_no_stream_of_events_is_said_in_time(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, Client([f"127.0.0.1:{port}"], timeout_seconds=0.3) as client:
        with pytest.raises((UnreachableError, RequestFailedError)):
            await asyncio.wait_for(client.watch(prefix=b"").__aenter__(), 20)


async def test_misuse_is_said() -> None:
    async with client_of_nobody() as client:
        with pytest.raises(ValueError, match="either a key or a prefix"):
            client.watch()
        with pytest.raises(ValueError, match="either a key or a prefix"):
            client.watch(key=b"k", prefix=b"p")
        with pytest.raises(RuntimeError, match="context manager"):
            async for _ in client.watch(prefix=b""):
                pass


# ---- the parser -----------------------------------------------------------------------------


def parse(text: bytes) -> list[SseEvent]:
    parser = SseParser()
    found = (parser.feed(line) for line in text.split(b"\n"))
    return [event for event in found if event is not None]


def test_events_are_parsed() -> None:
    stream = b": hello\n\nevent: put\ndata: 1\ndata:2\n\nevent:delete\nid: e:7\ndata: x\n\nfoo: 1\n"
    assert parse(stream) == [SseEvent("put", b"1\n2", None), SseEvent("delete", b"x", "e:7")]


async def chunks_of(data: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    at = 0
    for size in itertools.chain(sizes, [len(data)]):
        yield data[at : at + size]
        at += size


@given(st.binary(max_size=60), st.lists(st.integers(0, 9), max_size=12))
def test_lines_do_not_depend_on_how_they_arrive(data: bytes, sizes: list[int]) -> None:
    async def collect() -> list[bytes]:
        return [line async for line in lines(chunks_of(data, sizes), 1000)]

    expected = [line.removesuffix(b"\r") for line in data.split(b"\n")[:-1]]
    assert asyncio.run(collect()) == expected


async def test_a_line_without_end_is_cut_off() -> None:
    with pytest.raises(BrokenStreamError, match="longer than 100 bytes"):
        async for _ in lines(chunks_of(b"x" * 300, [50] * 6), 100):
            pass


def test_json_of_events_is_text() -> None:
    assert json.loads(parse(b'data: {"a": "\xc3\xa9"}\n\n')[0].data) == {"a": "é"}
