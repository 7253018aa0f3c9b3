"""`/v1/locks` (API contract)."""

import asyncio
import json
from typing import Any

import pytest

from raftkv.kv.commands import AcquireLock, KeepLockAlive, Once, ReleaseLock
from raftkv.kv.outcomes import LockBusy, LockHeld, LockLost, LockQueued, LockReleased, Replayed
from raftkv.node.events import GetLock, ListLocks, LockFound, LockInfo, LocksFound
from raftkv.node.status import State
from tests.server.http.fake_driver import LEADER_ID, FakeDriver
from tests.server.http.harness import Served, serving, until

HELD = LockHeld(300, 255, 30_000)


def ask(**fields: Any) -> bytes:
    return json.dumps({"ttl": "30s"} | fields).encode()


async def test_acquire(served: Served) -> None:
    served.driver.outcomes = [HELD]
    body = ask(wait="1m30s", owner="me")
    answer = await served.ask("POST", "/v1/locks/a%2Fb?timeout=2s", body=body)
    assert (answer.status, answer.headers["X-RaftKV-Revision"]) == (200, "300")
    assert answer.json() == {
        "name": "a/b",
        "name_encoding": "utf-8",
        "token": 255,
        "lease": "00000000000000ff",
        "ttl": "30s",
        "revision": 300,
        "owner": "me",
        "owner_encoding": "utf-8",
    }
    assert served.driver.commands == [AcquireLock(b"a/b", b"me", 30_000, 91_000, 1000)]
    assert served.driver.lock_waits == [(b"a/b", 90.0)]
    assert served.driver.timeouts == [2.0]


async def test_an_owner_is_made_up_once_for_each_request(served: Served) -> None:
    served.driver.outcomes = [HELD, HELD]
    first = await served.ask("POST", "/v1/locks/a", body=ask())
    second = await served.ask("POST", "/v1/locks/a", body=ask())
    owners = [command.owner for command in served.driver.commands]  # type: ignore[union-attr]
    assert [first.json()["owner"].encode(), second.json()["owner"].encode()] == owners
    assert owners[0] != owners[1]
    assert served.driver.lock_waits == [(b"a", 0.0)] * 2


async def test_a_retry_under_a_key_is_the_same_owner(served: Served) -> None:
    served.driver.outcomes = [HELD, Replayed(301, HELD), HELD]
    for key in ("k", "k", "other"):
        await served.ask("POST", "/v1/locks/a", body=ask(), headers={"Idempotency-Key": key})
    commands = served.driver.commands
    assert commands[0] == commands[1]
    owners = []
    for command in commands:
        assert isinstance(command, Once)
        assert isinstance(command.command, AcquireLock)
        owners.append(command.command.owner)
    assert owners[0] != owners[2]


@pytest.mark.parametrize("outcome", [LockBusy(300, b"other"), LockQueued(300, 299)])
async def test_a_lock_that_another_holds_is_409(served: Served, outcome: Any) -> None:
    served.driver.outcomes = [outcome]
    answer = await served.ask("POST", "/v1/locks/a", body=ask(wait="1s"))
    assert (answer.status, answer.code()) == (409, "lock_held")
    assert (answer.json()["retryable"], answer.json()["outcome"]) == (False, "not_committed")


@pytest.mark.parametrize(
    ("wait", "wait_ms"), [(None, 0), ("0s", 0), ("1ms", 1001), ("10m", 601_000)]
)
async def test_a_place_in_the_queue_outlives_the_wait(
    served: Served, wait: str | None, wait_ms: int
) -> None:
    """Log time may be behind when it is taken, and is not when it would end."""
    served.driver.outcomes = [HELD]
    await served.ask("POST", "/v1/locks/a", body=ask(owner="me", wait=wait))
    assert served.driver.commands == [AcquireLock(b"a", b"me", 30_000, wait_ms, 1000)]
    ((_, seconds),) = served.driver.lock_waits
    assert round(seconds * 1000) == max(0, wait_ms - 1000)


async def test_operator_rule_15_who_waits_at_a_node_that_drains_is_sent_elsewhere(
    served: Served,
) -> None:
    served.driver.outcomes = [LockQueued(300, 299), LockBusy(300, b"other")]
    served.driver.change(state=State.DRAINING)
    answer = await served.ask("POST", "/v1/locks/a", body=ask(wait="60s"))
    assert (answer.status, answer.code()) == (503, "stopping")
    assert (answer.json()["retryable"], answer.json()["outcome"]) == (True, "not_committed")
    answer = await served.ask("POST", "/v1/locks/a", body=ask())
    assert (answer.status, answer.code()) == (409, "lock_held")


async def test_keepalive_and_release(served: Served) -> None:
    served.driver.outcomes = [HELD, LockReleased(301)]
    kept = await served.ask("POST", "/v1/locks/%FF/keepalive?token=255", body=b"")
    assert (kept.status, kept.json()["token"], kept.json()["ttl"]) == (200, 255, "30s")
    given = await served.ask("DELETE", "/v1/locks/%FF?token=255&timeout=1s")
    assert (given.status, given.json()) == (
        200,
        {"name": "/w==", "name_encoding": "base64", "released": True, "revision": 301},
    )
    assert served.driver.commands == [KeepLockAlive(b"\xff", 255), ReleaseLock(b"\xff", 255)]


async def test_a_wrong_token_is_412(served: Served) -> None:
    served.driver.outcomes = [LockLost(300), LockLost(300)]
    for method, target in (("POST", "/v1/locks/a/keepalive"), ("DELETE", "/v1/locks/a")):
        answer = await served.ask(method, target + "?token=7", body=b"")
        assert (answer.status, answer.code()) == (412, "lock_lost")


@pytest.mark.parametrize("query", ["", "token=", "token=0", "token=-1", "token=x", "token=ff",
                                   "token=9223372036854775808", "token=1&token=1"])  # fmt: skip
async def test_a_token_that_is_none_is_400(served: Served, query: str) -> None:
    for method, target in (("POST", "/v1/locks/a/keepalive"), ("DELETE", "/v1/locks/a")):
        answer = await served.ask(method, f"{target}?{query}", body=b"")
        assert (answer.status, answer.code()) == (400, "bad_parameter")
        assert "token" in answer.json()["detail"]
    assert not served.driver.commands


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        ask(ttl="0s"),
        ask(ttl=30),
        ask(wait="-1s"),
        ask(wait="601s"),
        ask(wait=1),
        ask(owner=""),
        ask(owner="o" * 256),
        ask(owner=7),
        ask(owner="_", owner_encoding="base64"),
        ask(token=7),
        b'{"ttl":"30s","ttl":"30s"}',
    ],
)
async def test_a_body_that_is_not_understood_is_400(served: Served, body: bytes) -> None:
    answer = await served.ask("POST", "/v1/locks/a", body=body)
    assert (answer.status, answer.code()) == (400, "bad_body")
    assert not served.driver.commands


async def test_no_wait_can_be_said(served: Served) -> None:
    served.driver.outcomes = [HELD]
    assert (await served.ask("POST", "/v1/locks/a", body=ask(wait="0s"))).status == 200
    assert served.driver.lock_waits == [(b"a", 0.0)]


@pytest.mark.parametrize("name", ["", "n" * 512, "%"])
async def test_a_name_that_is_none_is_400(served: Served, name: str) -> None:
    for method, target in (("POST", f"/v1/locks/{name}"), ("GET", f"/v1/locks/{name}")):
        answer = await served.ask(method, target, body=ask())
        assert (answer.status, answer.code()) == (400, "bad_key")


INFO = LockInfo(b"a", b"me", 255, 30_000, 12_000, (b"you", b"\xff"))
LISTED = {
    "name": "a",
    "name_encoding": "utf-8",
    "owner": "me",
    "owner_encoding": "utf-8",
    "token": 255,
    "lease": "00000000000000ff",
    "ttl": "30s",
    "remaining": "12s",
    "waiters": [
        {"owner": "you", "owner_encoding": "utf-8"},
        {"owner": "/w==", "owner_encoding": "base64"},
    ],
}


async def test_read_one(served: Served) -> None:
    served.driver.finds[GetLock] = LockFound(INFO, 300)
    answer = await served.ask("GET", "/v1/locks/a")
    assert answer.json() == LISTED | {"revision": 300}
    served.driver.finds[GetLock] = LockFound(None, 300)
    free = await served.ask("GET", "/v1/locks/a?consistency=local")
    assert (free.status, free.code()) == (404, "lock_not_found")
    assert free.headers["X-RaftKV-Age-Seconds"] == "0.250"


async def test_list_in_pages(served: Served) -> None:
    served.driver.finds[ListLocks] = LocksFound((INFO,), 300, b"\xff\xfe")
    page = (await served.ask("GET", "/v1/locks?limit=1")).json()
    assert page == {"revision": 300, "locks": [LISTED], "next_cursor": "__4"}
    served.driver.finds[ListLocks] = LocksFound((), 300, None)
    page = (await served.ask("GET", "/v1/locks?cursor=__4")).json()
    assert page == {"revision": 300, "locks": [], "next_cursor": None}
    assert served.driver.queries == [ListLocks(b"", 1), ListLocks(b"\xff\xfe", 1000)]
    for query in ("cursor=", "cursor=%2B%2B", "cursor=%C3%A9", "limit=1001", "limit=0"):
        answer = await served.ask("GET", "/v1/locks?" + query)
        assert (answer.status, answer.code()) == (400, "bad_parameter")


async def test_a_client_that_disconnects_leaves_the_queue() -> None:
    driver = FakeDriver(gate=asyncio.Event())
    async with serving(driver) as served:
        async with served.connect() as raw:
            body = ask(wait="10m")
            head = f"POST /v1/locks/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
            raw.send(head.encode() + b"\r\n\r\n" + body)
            await until(lambda: driver.waiting)
        await until(lambda: driver.cancelled == 1)


async def test_redirects(served: Served) -> None:
    served.driver.change(leader=LEADER_ID, role="follower")
    for method, target in (
        ("POST", "/v1/locks/a?redirect=true"),
        ("POST", "/v1/locks/a/keepalive?token=7&redirect=true"),
        ("DELETE", "/v1/locks/a?redirect=true&token=7"),
    ):
        answer = await served.ask(method, target, body=b"")
        assert answer.headers["Location"] == "http://n2:7400" + target
    assert not served.driver.commands
