"""Writes of many tasks that share transactions: each caller gets its own outcome."""

import asyncio
import json

import pytest
from aiohttp import web

from raftkv.client import Client, OutcomeUnknownError, RequestFailedError, Writer
from tests.client.contract_server import ContractServer, Fault, contract_server


def client_of(url: str) -> Client:
    return Client([url], prefer_leader=False)


def sizes(server: ContractServer) -> list[int]:
    return [len(json.loads(body)["success"]) for body in server.bodies]


async def test_writes_of_one_turn_share_transactions_of_128() -> None:
    async with (
        contract_server() as server,
        client_of(server.url) as client,
        client.writer() as writer,
    ):
        done = await asyncio.gather(*(writer.put(b"k%03d" % n, b"v") for n in range(300)))
        assert sizes(server) == [128, 128, 44]
        assert [each.version for each in done] == [1] * 300
        assert {each.revision for each in done} == {101, 102, 103}


async def test_a_lone_write_does_not_wait_and_the_next_gather_behind_it() -> None:
    async with (
        contract_server() as server,
        client_of(server.url) as client,
        client.writer() as writer,
    ):
        first = asyncio.create_task(writer.put(b"a", b"1"))
        while not server.bodies:  # noqa: ASYNC110 the server tells nobody
            await asyncio.sleep(0)
        appended, again, total = await asyncio.gather(
            writer.append(b"a", b"2"), writer.append(b"a", b"3"), writer.increment(b"n", 5)
        )
        assert sizes(server) == [1, 3]
        assert ((await first).version, appended.version, again.version, total) == (1, 2, 3, 5)
        assert server.items[b"a"].value == b"123"
        assert (await writer.delete(b"a")).deleted == 1
        assert (await writer.delete(b"a")).deleted == 0


async def test_a_transaction_is_bounded_in_bytes() -> None:
    async with (
        contract_server() as server,
        client_of(server.url) as client,
        client.writer() as writer,
    ):
        value = b"x" * 400_000
        await asyncio.gather(*(writer.put(b"k%d" % n, value) for n in range(5)))
        assert sizes(server) == [2, 2, 1]


async def test_a_write_that_cannot_be_done_fails_alone() -> None:
    async with (
        contract_server() as server,
        client_of(server.url) as client,
        client.writer() as writer,
    ):

        def fault(_: web.BaseRequest) -> Fault | None:
            bad = b'"bad"' in server.bodies[-1]
            return Fault(status=409, code="not_a_counter", retryable=False) if bad else None

        server.faults = fault
        writes = [writer.put(b"a", b"1"), writer.put(b"bad", b"1"), writer.put(b"c", b"1")]
        first, second, third = await asyncio.gather(*writes, return_exceptions=True)
        assert sizes(server) == [3, 1, 1, 1]
        assert not isinstance(first, BaseException)
        assert not isinstance(third, BaseException)
        assert isinstance(second, RequestFailedError)
        assert second.code == "not_a_counter"
        assert set(server.items) == {b"a", b"c"}


async def test_an_unknown_outcome_is_unknown_for_all_and_nothing_is_sent_again() -> None:
    async with contract_server() as server:
        client = Client([server.url], prefer_leader=False, retry_writes=False)
        server.faults = lambda _: Fault(after=True)
        async with client, client.writer() as writer:
            writes = (writer.append(b"a", b"%d" % n) for n in range(3))
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(each) for each in outcomes] == [OutcomeUnknownError] * 3
        assert server.items[b"a"].value == b"012"
        assert len(server.executed) == 1


async def test_a_write_that_was_given_up_before_it_was_sent_is_not_sent() -> None:
    async with (
        contract_server() as server,
        client_of(server.url) as client,
        client.writer() as writer,
    ):
        given_up = asyncio.create_task(writer.put(b"given up", b"1"))
        kept = asyncio.create_task(writer.put(b"kept", b"1"))
        asyncio.get_running_loop().call_soon(given_up.cancel)
        await asyncio.sleep(0)
        await kept
        assert given_up.cancelled()
        assert set(server.items) == {b"kept"}


async def test_no_more_than_so_many_writes_are_held() -> None:
    async with (
        contract_server() as server,
        client_of(server.url) as client,
        client.writer(pending_max=4) as writer,
    ):
        await asyncio.gather(*(writer.put(b"k%d" % n, b"v") for n in range(12)))
        assert max(sizes(server)) <= 4
        assert len(server.items) == 12


async def test_leaving_the_block_waits_for_what_is_held_and_closes() -> None:
    async with contract_server() as server, client_of(server.url) as client:
        async with client.writer() as writer:
            held = asyncio.create_task(writer.put(b"k", b"v"))
            await asyncio.sleep(0)
        assert set(server.items) == {b"k"}
        assert (await held).version == 1
        with pytest.raises(RuntimeError, match="closed"):
            await writer.put(b"k", b"v")


async def test_leaving_the_block_waits_for_calls_that_have_no_room_yet() -> None:
    async with contract_server() as server, client_of(server.url) as client:
        async with client.writer(pending_max=2) as writer:
            calls = [asyncio.create_task(writer.put(b"k%d" % n, b"v")) for n in range(7)]
            await asyncio.sleep(0)  # all are called; five wait for room
        assert all(call.done() for call in calls)
        assert [call.result().version for call in calls] == [1] * 7
        assert len(server.items) == 7


async def test_leaving_the_block_with_an_error_drops_what_was_not_sent() -> None:
    async with contract_server() as server, client_of(server.url) as client:
        held: list[asyncio.Task[object]] = []

        async def fail() -> None:
            async with client.writer() as writer:
                held.append(asyncio.create_task(_put(writer)))
                await asyncio.sleep(0)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        await asyncio.wait(held)
        assert held[0].cancelled()
        assert not server.bodies


async def _put(writer: Writer) -> object:
    return await writer.put(b"k", b"v")
