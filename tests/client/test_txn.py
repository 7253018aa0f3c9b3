"""Transactions, batches and ranges."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.client import Client, compare, op
from raftkv.client.txn import (
    CounterResult,
    DeleteResult,
    GetResult,
    JsonFields,
    PutResult,
    Txn,
)
from raftkv.client.wire import bytes_fields, duration, parse_duration, to_bytes
from tests.client.contract_server import Fault, contract_server


def client_of(url: str) -> Client:
    return Client([url], prefer_leader=False)


async def test_a_transaction_does_one_list_and_says_what_came_of_it() -> None:
    async with contract_server() as server, client_of(server.url) as client:
        await client.put(b"stock", b"1")
        sale = (
            client.txn()
            .when(compare.value(b"stock", "=", b"1"), compare.absent(b"sold"))
            .then(op.delete(b"stock"), op.put(b"sold", b"\xff"), op.increment(b"count", 2))
            .otherwise(op.get(b"sold"), op.get(b"stock"))
        )
        done = await sale.commit()
        assert (done.succeeded, done.revision, done.replayed) == (True, 102, False)
        assert done.results == (DeleteResult(1), PutResult(1), CounterResult(2, 1))
        again = await sale.commit()
        assert not again.succeeded
        sold, stock = again.results
        assert isinstance(sold, GetResult)
        assert sold.item is not None
        assert (sold.item.value, stock) == (b"\xff", GetResult(None))


async def test_a_transaction_whose_answer_is_lost_is_done_once() -> None:
    async with contract_server() as server, client_of(server.url) as client:
        faults = iter([Fault(after=True)])
        server.faults = lambda _: next(faults, None)
        done = await client.txn().then(op.increment(b"n")).commit()
        assert done.results == (CounterResult(1, 1),)
        assert len(server.executed) == 1


def test_everything_that_a_transaction_can_say() -> None:
    txn = Txn(Client(["localhost"]))
    txn.when(
        compare.version(b"k", ">", 3),
        compare.mod_revision(b"k", "<", 4),
        compare.create_revision(b"k", "!=", 5),
        compare.lease(b"k", "=", "0"),
        compare.exists(b"k"),
    ).then(
        op.put(b"\xff", b"v", ttl_seconds=1.5),
        op.put(b"k", b"v", lease="00000000000000aa"),
        op.append(b"k", b"\x80"),
        op.delete_range(b"p/"),
        op.delete_range(start=b"a", end=b"b"),
        op.delete_range(all_keys=True),
    )
    asked = json.loads(txn.body())
    assert [(each["target"], each["op"], each["value"]) for each in asked["compare"]] == [
        ("version", ">", 3),
        ("mod_revision", "<", 4),
        ("create_revision", "!=", 5),
        ("lease", "=", "0"),
        ("version", ">", 0),
    ]
    assert asked["success"] == [
        {"op": "put", "key": "/w==", "key_encoding": "base64", "value": "v", "ttl": "1500ms"},
        {"op": "put", "key": "k", "value": "v", "lease": "00000000000000aa"},
        {"op": "append", "key": "k", "value": "gA==", "value_encoding": "base64"},
        {"op": "delete_range", "prefix": "p/"},
        {"op": "delete_range", "start": "a", "end": "b"},
        {"op": "delete_range", "all": True},
    ]
    assert asked["failure"] == []


@given(st.binary(max_size=40))
def test_any_bytes_travel_as_json(data: bytes) -> None:
    fields: JsonFields = bytes_fields("key", data)
    assert to_bytes(str(fields["key"]), str(fields.get("key_encoding", "utf-8"))) == data


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("1m30s", 90), ("2h", 7200), ("1500ms", 1.5)],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1.5s", "1s ", "30 s", "1d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_duration(text)


# ---- batches --------------------------------------------------------------------------------


async def test_a_batch_sends_128_at_a_time_and_the_rest_at_the_end() -> None:
    async with contract_server() as server, client_of(server.url) as client:
        async with client.batch() as batch:
            for number in range(300):
                await batch.put(b"k%03d" % number, b"v")
            await batch.delete(b"k000")
        sent = [len(json.loads(body)["success"]) for body in server.bodies]
        assert sent == [128, 128, 45]
        assert len(server.items) == 299
        assert batch.revision == server.revision


async def test_a_batch_is_bounded_in_bytes_too() -> None:
    async with contract_server() as server, client_of(server.url) as client:
        async with client.batch() as batch:
            for number in range(5):
                await batch.put(b"k%d" % number, b"x" * 400_000)
        assert len(server.bodies) == 3


async def test_a_batch_that_is_left_with_an_error_sends_nothing_more() -> None:
    async with contract_server() as server, client_of(server.url) as client:

        async def fail() -> None:
            async with client.batch() as batch:
                await batch.put(b"k", b"v")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert not server.bodies


# ---- ranges ---------------------------------------------------------------------------------


async def test_a_range_is_paged_by_itself() -> None:
    async with contract_server() as server, client_of(server.url) as client:
        for number in range(7):
            await client.put(b"k%d" % number, b"v")
        await client.put(b"other", b"")
        keys = [item.key async for item in client.range(b"k", page_size=3)]
        assert keys == [b"k%d" % number for number in range(7)]
        cursors = ["cursor=" in request.raw_path for request in server.requests[-3:]]
        assert cursors == [False, True, True]


@pytest.mark.parametrize("fault", [Fault(before=True), Fault(status=503)])
async def test_a_stream_goes_on_where_it_broke(fault: Fault) -> None:
    async with contract_server() as server, client_of(server.url) as client:
        for number in range(5):
            await client.put(b"k%d" % number, b"v")
        faults = iter([fault])
        server.faults = lambda _: next(faults, None)
        items = [item async for item in client.stream(b"k")]
        assert [item.key for item in items] == [b"k%d" % number for number in range(5)]
        assert {item.revision for item in items} == {105}


async def test_waiting_for_a_change() -> None:
    async with contract_server() as server, client_of(server.url) as client:
        assert await client.wait_for_change(b"k", after=100, wait_seconds=0.1) is None
        await client.put(b"k", b"v")
        change = await client.wait_for_change(b"k", after=100, wait_seconds=0.1)
        assert change is not None
        assert change.item is not None
        assert (change.item.value, change.revision) == (b"v", 101)
        server.faults = lambda _: Fault(status=404, code="key_not_found", retryable=False)
        gone = await client.wait_for_change(b"k", after=100, wait_seconds=0.1)
        assert gone is not None
        assert gone.item is None
