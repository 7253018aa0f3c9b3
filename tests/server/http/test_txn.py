"""`POST /v1/txn` (API contract; faults.md section 6, rows 8, 9, 10 and 17)."""

import json
from typing import Any

import pytest

from raftkv.kv.commands import (
    Append,
    Compare,
    Comparison,
    Delete,
    DeleteRange,
    Increment,
    Put,
    ReadKey,
    Target,
    Txn,
)
from raftkv.kv.outcomes import (
    CounterOverflow,
    Deleted,
    Got,
    Incremented,
    Item,
    LeaseNotFound,
    NotACounter,
    Replayed,
    TooLarge,
    TooManyKeys,
    TxnDone,
    TxnFailed,
    Written,
)
from raftkv.server.http.authorisation import ReadKey as ToReadKey
from raftkv.server.http.authorisation import WriteKey, WriteRange
from raftkv.server.http.problems import Refused
from raftkv.server.http.settings import HttpSettings
from raftkv.server.http.txns import accesses_of, leases_of, parse_txn
from tests.server.http.fake_driver import LEADER_ID, FakeDriver
from tests.server.http.harness import Served, serving

LIMIT = 100  # of a value


def parse(**lists: list[Any]) -> Txn:
    return parse_txn(json.dumps(lists).encode(), LIMIT)


def test_every_operation() -> None:
    ops = [
        {"op": "put", "key": "a", "value": "v"},
        {"op": "put", "key": "/w==", "key_encoding": "base64", "value": "", "ttl": "1m30s"},
        {"op": "put", "key": "a", "value": "/w==", "value_encoding": "base64",
         "lease": "00000000000000ff"},
        {"op": "get", "key": "\x00"},
        {"op": "delete", "key": "é"},
        {"op": "delete_range", "prefix": "p"},
        {"op": "delete_range", "start": "a", "end": "/w==", "end_encoding": "base64"},
        {"op": "delete_range", "all": True},
        {"op": "append", "key": "a", "value": "v"},
        {"op": "increment", "key": "n"},
        {"op": "increment", "key": "n", "by": -(2**63)},
    ]  # fmt: skip
    expected = (
        Put(b"a", b"v"),
        Put(b"\xff", b"", None, 0, 90_000),
        Put(b"a", b"\xff", None, 255),
        ReadKey(b"\x00"),
        Delete("é".encode()),
        DeleteRange(b"p", b"q", 10_000),
        DeleteRange(b"a", b"\xff", 10_000),
        DeleteRange(b"", None, 10_000),
        Append(b"a", b"v", LIMIT),
        Increment(b"n", 1),
        Increment(b"n", -(2**63)),
    )
    assert parse(success=ops) == Txn((), expected, (), 10_000, 4 << 20)
    assert parse(failure=ops) == Txn((), (), expected, 10_000, 4 << 20)
    assert leases_of(parse(success=ops)) == {255}


def test_every_compare() -> None:
    compares: list[dict[str, Any]] = [
        {"key": "a", "target": "value", "op": "=", "value": "v"},
        {"key": "a", "target": "value", "op": "!=", "value": "/w==", "value_encoding": "base64"},
        {"key": "a", "target": "version", "op": "<", "value": 0},
        {"key": "a", "target": "create_revision", "op": ">", "value": 2**63 - 1},
        {"key": "a", "target": "mod_revision", "op": "=", "value": 7},
        {"key": "a", "target": "lease", "op": "=", "value": "00000000000000ff"},
        {"key": "a", "target": "lease", "op": "!=", "value": "0"},
    ]
    assert parse(compare=compares).compares == (
        Compare(b"a", Target.VALUE, Comparison.EQUAL, b"v"),
        Compare(b"a", Target.VALUE, Comparison.NOT_EQUAL, b"\xff"),
        Compare(b"a", Target.VERSION, Comparison.LESS, 0),
        Compare(b"a", Target.CREATE_REVISION, Comparison.GREATER, 2**63 - 1),
        Compare(b"a", Target.MOD_REVISION, Comparison.EQUAL, 7),
        Compare(b"a", Target.LEASE, Comparison.EQUAL, 255),
        Compare(b"a", Target.LEASE, Comparison.NOT_EQUAL, 0),
    )


PUT = {"op": "put", "key": "a", "value": "v"}
COMPARE = {"key": "a", "target": "version", "op": "=", "value": 0}
NUL_KEY = b'{"success":[{"op":"get","key":"'


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", ""),
        (b"null", ""),
        (b"[]", ""),
        (b"NaN", ""),
        (b"1e999", ""),
        (b"[" * 60_000, ""),
        (b'{"success":' * 5000, ""),
        (b'{"success":[' + b"9" * 60_000 + b"]}", ""),
        (b"\xef\xbb\xbf{}", ""),
        ("{}".encode("utf-16"), ""),
        (NUL_KEY + b'\xff"}]}', ""),
        (NUL_KEY + b'\\ud800"}]}', ""),
        (b'{"success":[],"success":[]}', "'success'"),
        (b'{"success":[{"op":"get","key":"a","key":"b"}]}', "'key'"),
        ({"succes": []}, "succes"),
        ({"success": [PUT] * 129}, "success"),
        ({"failure": [PUT] * 129}, "failure"),
        ({"compare": [COMPARE] * 129}, "compare"),
        ({"success": [{"op": "txn", "success": []}]}, "success[0]"),
        ({"success": [{"op": "get"}]}, "success[0]"),
        ({"success": [{"key": "a"}]}, "success[0]"),
        ({"success": [[PUT]]}, "success[0]"),
        ({"success": [PUT, PUT | {"flags": 1}]}, "success[1]"),
        ({"success": [PUT | {"key": 7}]}, "success[0].key"),
        ({"success": [PUT | {"key": ""}]}, "success[0].key"),
        ({"success": [PUT | {"key": "k" * 512}]}, "success[0].key"),
        ({"success": [PUT | {"key": "a", "key_encoding": "base64"}]}, "success[0].key"),
        ({"success": [PUT | {"key": "/x==", "key_encoding": "base64"}]}, "success[0].key"),
        ({"success": [PUT | {"key": "_w==", "key_encoding": "base64"}]}, "success[0].key"),
        ({"success": [PUT | {"key_encoding": "hex"}]}, "success[0].key_encoding"),
        ({"failure": [PUT | {"value": None}]}, "failure[0].value"),
        ({"success": [PUT | {"ttl": "0s"}]}, "success[0].ttl"),
        ({"success": [PUT | {"ttl": "-1s"}]}, "success[0].ttl"),
        ({"success": [PUT | {"ttl": "1e18s"}]}, "success[0].ttl"),
        ({"success": [PUT | {"ttl": 30}]}, "success[0].ttl"),
        ({"success": [PUT | {"lease": "7"}]}, "success[0].lease"),
        ({"success": [PUT | {"lease": "0" * 15 + "7", "ttl": "1s"}]}, "success[0]"),
        ({"success": [{"op": "increment", "key": "n", "by": 2**63}]}, "success[0].by"),
        ({"success": [{"op": "increment", "key": "n", "by": 1.5}]}, "success[0].by"),
        ({"success": [{"op": "increment", "key": "n", "by": "1"}]}, "success[0].by"),
        ({"success": [{"op": "delete_range"}]}, "success[0]"),
        ({"success": [{"op": "delete_range", "start": "a"}]}, "success[0]"),
        ({"success": [{"op": "delete_range", "start": "b", "end": "a"}]}, "success[0]"),
        ({"success": [{"op": "delete_range", "prefix": "p" * 512}]}, "success[0]"),
        ({"compare": [COMPARE | {"op": "=="}]}, "compare[0].op"),
        ({"compare": [COMPARE | {"target": "lock"}]}, "compare[0].target"),
        ({"compare": [COMPARE | {"value": "0"}]}, "compare[0].value"),
        ({"compare": [COMPARE | {"value": -1}]}, "compare[0].value"),
        ({"compare": [COMPARE | {"value": 2**63}]}, "compare[0].value"),
        ({"compare": [COMPARE | {"value": True}]}, "compare[0].value"),
        ({"compare": [COMPARE | {"target": "value"}]}, "compare[0].value"),
        ({"compare": [COMPARE | {"target": "lease"}]}, "compare[0].value"),
        ({"compare": [COMPARE | {"target": "lease", "value": "7"}]}, "compare[0].value"),
    ],
)
def test_row_17_a_body_that_is_not_understood_is_400_and_named(body: Any, named: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refused) as caught:
        parse_txn(data, LIMIT)
    assert caught.value.problem.kind.code == "bad_body"
    assert named in caught.value.problem.detail


def test_a_value_beyond_the_limit_is_413() -> None:
    for op in (PUT, PUT | {"op": "append"}):
        with pytest.raises(Refused) as caught:
            parse(success=[op | {"value": "v" * (LIMIT + 1)}])
        assert caught.value.problem.kind.code == "too_large"
    assert len(parse(success=[PUT | {"value": "v" * LIMIT}]).success) == 1


def test_row_23_all_that_a_transaction_touches_is_stated() -> None:
    txn = parse(
        compare=[COMPARE],
        success=[PUT | {"key": "b"}, {"op": "get", "key": "c"}, {"op": "increment", "key": "d"}],
        failure=[{"op": "delete_range", "prefix": "e"}, {"op": "delete", "key": "f"}],
    )
    assert accesses_of(txn) == [
        ToReadKey(b"a"),
        WriteKey(b"b"),
        ToReadKey(b"c"),
        WriteKey(b"d"),
        WriteRange(b"e", b"f"),
        WriteKey(b"f"),
    ]


OPS = {
    "success": [
        {"op": "put", "key": "a", "value": "v"},
        {"op": "append", "key": "a", "value": "v"},
        {"op": "increment", "key": "n"},
        {"op": "delete", "key": "/w==", "key_encoding": "base64"},
        {"op": "delete_range", "prefix": "p"},
        {"op": "get", "key": "a"},
        {"op": "get", "key": "b"},
    ],
    "failure": [PUT],
}
DONE = TxnDone(
    101,
    succeeded=True,
    results=(
        Written(101, 1),
        Written(101, 2),
        Incremented(101, 1, 1),
        Deleted(101, 1),
        Deleted(101, 3),
        Got(Item(b"a", b"vv", 101, 101, 2)),
        Got(None),
    ),
)


async def test_what_came_of_it(served: Served) -> None:
    served.driver.outcomes = [DONE]
    answer = await served.ask("POST", "/v1/txn?timeout=2s", body=json.dumps(OPS).encode())
    assert (answer.status, answer.headers["X-RaftKV-Revision"]) == (200, "101")
    assert served.driver.timeouts == [2.0]
    of_a = {"key": "a", "key_encoding": "utf-8"}
    assert answer.json() == {
        "succeeded": True,
        "revision": 101,
        "results": [
            {"op": "put", **of_a, "revision": 101, "version": 1},
            {"op": "append", **of_a, "revision": 101, "version": 2},
            {"op": "increment", "key": "n", "key_encoding": "utf-8", "revision": 101,
             "version": 1, "value": "1", "value_encoding": "utf-8"},
            {"op": "delete", "key": "/w==", "key_encoding": "base64", "deleted": 1},
            {"op": "delete_range", "deleted": 3},
            {"op": "get", **of_a, "item": {
                **of_a, "value": "vv", "value_encoding": "utf-8", "create_revision": 101,
                "mod_revision": 101, "version": 2, "lease": "0"}},
            {"op": "get", "key": "b", "key_encoding": "utf-8", "item": None},
        ],
    }  # fmt: skip


async def test_a_replay_leaves_items_out(served: Served) -> None:
    results = (*DONE.results[:5], Got(None), Got(None))
    served.driver.outcomes = [Replayed(109, TxnDone(101, succeeded=True, results=results))]
    keyed = {"Idempotency-Key": "k"}
    body = json.dumps(OPS).encode()
    answer = await served.ask("POST", "/v1/txn", body=body, headers=keyed)
    assert (answer.status, answer.headers["Idempotency-Replayed"]) == (200, "true")
    assert [each["op"] for each in answer.json()["results"] if "item" not in each] == [
        each["op"] for each in answer.json()["results"]
    ]


async def test_the_other_list(served: Served) -> None:
    served.driver.outcomes = [TxnDone(101, succeeded=False, results=(Written(101, 1),))]
    answer = await served.ask("POST", "/v1/txn", body=json.dumps(OPS).encode())
    assert (answer.json()["succeeded"], len(answer.json()["results"])) == (False, 1)


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (NotACounter(100), 409, "not_a_counter"),
        (CounterOverflow(100, 7), 409, "counter_overflow"),
        (TooManyKeys(100), 409, "too_many_keys"),
        (TooLarge(100, 101), 413, "too_large"),
        (LeaseNotFound(100), 404, "lease_not_found"),
    ],
)
async def test_an_operation_that_cannot_be_done_is_named(
    served: Served, reason: Any, status: int, code: str
) -> None:
    served.driver.outcomes = [TxnFailed(100, succeeded=False, op=0, reason=reason)]
    answer = await served.ask("POST", "/v1/txn", body=json.dumps(OPS).encode())
    assert (answer.status, answer.code()) == (status, code)
    problem = answer.json()
    assert (problem["branch"], problem["op"]) == ("failure", 0)
    assert problem["detail"].startswith("failure[0]: ")
    assert problem["outcome"] == "not_committed"


async def test_a_body_beyond_the_limit_is_413() -> None:
    async with serving(settings=HttpSettings("n1", value_bytes_max=4 << 20)) as served:
        answer = await served.ask("POST", "/v1/txn", body=b" " * ((8 << 20) + 1))
        assert (answer.status, answer.code()) == (413, "too_large")


async def test_parameters(served: Served) -> None:
    for query in ("prefix=a", "timeout=0s", "redirect=1", "prev=true"):
        answer = await served.ask("POST", "/v1/txn?" + query, body=b"{}")
        assert (answer.status, answer.code()) == (400, "bad_parameter")
    served.driver.change(leader=LEADER_ID, role="follower")
    answer = await served.ask("POST", "/v1/txn?redirect=true", body=b"{}")
    assert (answer.status, answer.headers["Location"]) == (
        307,
        "http://n2:7400/v1/txn?redirect=true",
    )
    assert not served.driver.commands


async def test_only_post(served: Served) -> None:
    answer = await served.ask("GET", "/v1/txn")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_an_empty_transaction_is_one() -> None:
    driver = FakeDriver(outcomes=[TxnDone(100, succeeded=True, results=())])
    async with serving(driver) as served:
        answer = await served.ask("POST", "/v1/txn", body=b"{}")
        assert answer.json() == {"succeeded": True, "revision": 100, "results": []}
