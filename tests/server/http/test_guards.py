"""Idempotency-Key and X-RaftKV-Fence (API contract; node rule 22; faults.md 6, 18 and 19)."""

import pytest
from multidict import CIMultiDict

from raftkv.kv.commands import (
    DeleteRange,
    Fenced,
    GrantLease,
    KeepLeaseAlive,
    Once,
    Put,
    RevokeLease,
    Txn,
)
from raftkv.kv.outcomes import (
    ConditionFailed,
    IdempotencyMismatch,
    Item,
    LockLost,
    Replayed,
    Returned,
    Written,
)
from raftkv.server.http.endpoint import Request
from raftkv.server.http.guards import Guards, fingerprint, parse_guards
from raftkv.server.http.problems import Refused
from tests.server.http.fake_driver import FakeDriver
from tests.server.http.harness import Served, serving


async def no_body(_limit: int) -> bytes:
    return b""


def asked(method: str = "PUT", target: str = "/v1/kv/a", **headers: str) -> Request:
    lines = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return Request(method, target, lines, no_body)


def test_rule_22_a_fingerprint_tells_requests_apart() -> None:
    requests = [
        (asked(), b""),
        (asked(), b"x"),
        (asked("DELETE"), b""),
        (asked(target="/v1/kv/b"), b""),
        (asked(target="/v1/kv/a?prev=true"), b""),
        (asked(If_Match='"7"'), b""),
        (asked(If_None_Match='"7"'), b""),
        (asked(X_RaftKV_Fence="l:7"), b""),
        (asked(target="/v1/kv/"), b"a"),
    ]
    prints = [fingerprint(*request) for request in requests]
    assert {len(each) for each in prints} == {16}
    assert len(set(prints)) == len(prints)


def test_rule_22_a_fingerprint_is_of_what_the_request_means() -> None:
    plain = fingerprint(asked(), b"x")
    assert plain == fingerprint(asked(User_Agent="other", X_RaftKV_Cluster="c1"), b"x")
    # Kept for as long as the records are: it must not change between versions.
    assert plain.hex() == "1ce58e1db982faf129ca8e09c3d2b131"


@pytest.mark.parametrize(
    ("text", "fence"),
    [
        ("jobs:7", (b"jobs", 7)),
        ("a%2Fb:7", (b"a/b", 7)),
        ("a/b:7", (b"a/b", 7)),
        ("a:b:7", (b"a:b", 7)),
        ("%FF:9223372036854775807", (b"\xff", 2**63 - 1)),
        ("+:7", (b"+", 7)),
    ],
)
def test_a_fence_is_split_at_its_last_colon(text: str, fence: tuple[bytes, int]) -> None:
    assert parse_guards(CIMultiDict({"X-RaftKV-Fence": text})) == Guards(None, fence)


@pytest.mark.parametrize(
    "text",
    ["", ":7", "a", "a:", "a:0", "a:-1", "a:7 ", "a:7x", "a:07", "%:7", "%2:7", "a b:7", "\xe9:7",
     "a:9223372036854775808", "a:" + "9" * 5000, "a" * 512 + ":7"],
)  # fmt: skip
def test_a_fence_that_is_none_is_400(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_guards(CIMultiDict({"X-RaftKV-Fence": text}))
    assert caught.value.problem.kind.code == "bad_header"
    assert "X-RaftKV-Fence" in caught.value.problem.detail


@pytest.mark.parametrize("text", ["", "a b", "k" * 129, "\xe9", "a\tb"])
def test_an_idempotency_key_is_visible_ascii(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_guards(CIMultiDict({"Idempotency-Key": text}))
    assert caught.value.problem.kind.code == "bad_header"
    assert parse_guards(CIMultiDict({"Idempotency-Key": "~" * 128})) == Guards(b"~" * 128, None)


@pytest.mark.parametrize("name", ["Idempotency-Key", "X-RaftKV-Fence"])
def test_a_guard_is_given_once(name: str) -> None:
    with pytest.raises(Refused):
        parse_guards(CIMultiDict([(name, "a:1"), (name, "a:1")]))


GUARDS = {"Idempotency-Key": "k", "X-RaftKV-Fence": "l:7"}
LEASE = "/v1/leases/00000000000000ff"


@pytest.mark.parametrize(
    ("method", "target", "body", "kind"),
    [
        ("PUT", "/v1/kv/a", b"v", Put),
        ("DELETE", "/v1/kv?prefix=a", b"", DeleteRange),
        ("POST", "/v1/txn", b"{}", Txn),
        ("POST", "/v1/leases", b'{"ttl":"30s"}', GrantLease),
        ("POST", LEASE + "/keepalive", b"", KeepLeaseAlive),
        ("DELETE", LEASE, b"", RevokeLease),
    ],
)
async def test_every_write_takes_guards(method: str, target: str, body: bytes, kind: type) -> None:
    driver = FakeDriver(outcomes=[LockLost(100)])
    async with serving(driver) as served:
        answer = await served.ask(method, target, body=body, headers=GUARDS)
    assert (answer.status, answer.code()) == (412, "lock_lost")
    (command,) = driver.commands
    assert isinstance(command, Once)
    assert (command.key, command.keep_ms) == (b"k", 601_000)
    assert command.fingerprint == fingerprint(
        asked(method, target, Idempotency_Key="k", X_RaftKV_Fence="l:7"), body
    )
    assert isinstance(command.command, Fenced)
    assert (command.command.name, command.command.token) == (b"l", 7)
    assert isinstance(command.command.command, kind)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/cluster/bootstrap"),
        ("POST", "/v1/cluster/members"),
        ("DELETE", "/v1/cluster/members/00000000000000ff"),
        ("POST", "/v1/cluster/leader"),
        ("POST", "/v1/maintenance/compact"),
        ("POST", "/v1/maintenance/drain"),
        ("DELETE", "/v1/maintenance/drain"),
        ("POST", "/v1/maintenance/snapshot"),
    ],
)
@pytest.mark.parametrize("name", GUARDS)
async def test_a_call_that_is_no_write_refuses_guards(
    served: Served, method: str, target: str, name: str
) -> None:
    answer = await served.ask(method, target, body=b"", headers={name: "l:7"})
    assert (answer.status, answer.code()) == (400, "bad_header")
    assert not served.driver.commands
    assert not served.driver.drains


async def test_a_fence_on_a_call_of_locks_is_400(served: Served) -> None:
    for method, target in (
        ("POST", "/v1/locks/a"),
        ("POST", "/v1/locks/a/keepalive?token=7"),
        ("DELETE", "/v1/locks/a?token=7"),
    ):
        answer = await served.ask(method, target, body=b"", headers={"X-RaftKV-Fence": "l:7"})
        assert (answer.status, answer.code()) == (400, "bad_header")


async def test_row_18_a_retry_gets_the_first_answer_and_is_told_so(served: Served) -> None:
    keyed = {"Idempotency-Key": "k"}
    served.driver.outcomes = [
        Replayed(109, Written(101, 1)),
        Replayed(110, ConditionFailed(102, 7)),
        Written(103, 1),
    ]
    again = await served.ask("PUT", "/v1/kv/a", body=b"v", headers=keyed)
    assert (again.status, again.headers["ETag"], again.json()["revision"]) == (201, '"101"', 101)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["X-RaftKV-Revision"] == "109"
    failed = await served.ask("PUT", "/v1/kv/a", body=b"v", headers=keyed)
    assert (failed.status, failed.code(), failed.headers["ETag"]) == (
        412, "condition_failed", '"7"',
    )  # fmt: skip
    assert failed.headers["Idempotency-Replayed"] == "true"
    first = await served.ask("PUT", "/v1/kv/a", body=b"v", headers=keyed)
    assert "Idempotency-Replayed" not in first.headers


async def test_a_replay_leaves_values_out(served: Served) -> None:
    written = Returned(Written(102, 2), None)
    served.driver.outcomes = [
        Returned(Written(102, 2), Item(b"a", b"v", 101, 101, 1)),
        Replayed(102, written),
    ]
    first = await served.ask("PUT", "/v1/kv/a?prev=true", body=b"w")
    assert first.json()["prev"]["value"] == "v"
    again = await served.ask("PUT", "/v1/kv/a?prev=true", body=b"w")
    assert (again.status, "prev" in again.json()) == (200, False)


async def test_row_19_another_request_under_the_same_key_is_422(served: Served) -> None:
    served.driver.outcomes = [IdempotencyMismatch(105)]
    answer = await served.ask("PUT", "/v1/kv/a", body=b"v", headers={"Idempotency-Key": "k"})
    assert (answer.status, answer.code()) == (422, "idempotency_mismatch")
    assert answer.json()["outcome"] == "not_committed"
    assert answer.headers["X-RaftKV-Revision"] == "105"
