"""Retries, endpoints and the leader, against a server that keeps the contract and breaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
from aiohttp import web
from yarl import URL

from raftkv.client import (
    AccessError,
    Client,
    ConditionFailedError,
    OutcomeUnknownError,
    RequestFailedError,
    UnreachableError,
)
from raftkv.client.endpoints import EndpointPool
from tests.client.contract_server import ContractServer, Fault, contract_server
from tests.server.http.harness import until


@asynccontextmanager
async def client_of(*servers: ContractServer, seconds: float = 5.0) -> AsyncIterator[Client]:
    urls = [server.url for server in servers]
    async with Client(urls, timeout_seconds=seconds, prefer_leader=False) as client:
        yield client


def once(fault: Fault) -> "Faults":
    return Faults([fault])


class Faults:
    """The first requests fail so, then none."""

    def __init__(self, faults: list[Fault]) -> None:
        self.left = faults

    def __call__(self, _request: web.BaseRequest) -> Fault | None:
        return self.left.pop(0) if self.left else None


# ---- writes are done once (node design, rule 18) ----------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(before=True),
        Fault(after=True),
        Fault(status=503),
        Fault(status=504, code="unknown", outcome="unknown", retryable=False),
    ],
)
async def test_rule_18_every_write_is_executed_once_however_its_answer_is_lost(
    fault: Fault,
) -> None:
    async with contract_server() as server, client_of(server) as client:
        for number in range(1, 4):
            server.faults = once(fault)
            assert await client.increment(b"n") == number
        server.faults = once(fault)
        await client.append(b"log", b"x")
        server.faults = once(fault)
        await client.put(b"k", b"v", create_only=True)
        server.faults = once(fault)
        assert (await client.delete(b"k")).deleted == 1
        assert len(server.executed) == 6
        item = await client.get(b"log")
        assert item is not None
        assert item.value == b"x"


async def test_rule_18_aiohttp_resends_nothing_on_a_kept_connection_that_breaks() -> None:
    async with contract_server() as server:
        async with Client([server.url], retry_writes=False, prefer_leader=False) as client:
            await client.put(b"k", b"1")
            for call in (client.put(b"k", b"2"), client.delete(b"k"), client.append(b"k", b"3")):
                server.faults = once(Fault(after=True))
                with pytest.raises(OutcomeUnknownError):
                    await call
                # The connection that is kept for the next call.
                await client.put(b"other", b"")
        assert len(server.executed) == 1 + 2 * 3
        assert len(server.requests) == len(server.executed)


async def test_a_given_key_makes_two_calls_one() -> None:
    async with contract_server() as server, client_of(server) as client:
        assert await client.increment(b"n", idempotency_key="job-7") == 1
        assert await client.increment(b"n", idempotency_key="job-7") == 1
        with pytest.raises(RequestFailedError) as caught:
            await client.put(b"n", b"0", idempotency_key="job-7")
        assert (caught.value.status, caught.value.code) == (422, "idempotency_mismatch")
        assert len(server.executed) == 1


async def test_errors_say_what_the_node_said() -> None:
    async with contract_server() as server, client_of(server) as client:
        with pytest.raises(ConditionFailedError) as condition:
            await client.put(b"k", b"v", if_match=7)
        assert (condition.value.status, condition.value.outcome) == (412, "not_committed")
        server.faults = once(Fault(status=401, code="unauthorised", retryable=False))
        with pytest.raises(AccessError, match="because unauthorised") as access:
            await client.get(b"k")
        assert access.value.code == "unauthorised"
        server.faults = once(Fault(status=507, code="quota", retryable=False))
        with pytest.raises(RequestFailedError) as quota:
            await client.put(b"k", b"v")
        assert (quota.value.status, quota.value.detail) == (507, "because quota")


# ---- endpoints ------------------------------------------------------------------------------


async def test_retry_after_is_honoured_while_another_endpoint_serves() -> None:
    async with contract_server() as busy, contract_server() as good:
        busy.faults = lambda _: Fault(status=429, code="overloaded", headers={"Retry-After": "60"})
        async with client_of(busy, good) as client:
            for _ in range(5):
                await client.put(b"k", b"v")
        assert (len(busy.requests), len(good.executed)) == (1, 5)


async def test_a_call_does_not_wait_longer_than_its_deadline_for_a_busy_node() -> None:
    async with contract_server() as busy:
        busy.faults = lambda _: Fault(status=503, headers={"Retry-After": "60"})
        async with client_of(busy, seconds=0.5) as client:
            for _ in range(2):
                with pytest.raises(RequestFailedError) as caught:
                    await client.get(b"k")
                assert caught.value.code == "no_leader"
        assert len(busy.requests) == 2


async def test_a_service_that_comes_back_within_the_deadline_is_found() -> None:
    async with contract_server() as server:
        server.faults = Faults([Fault(before=True)] * 4)
        async with client_of(server) as client:
            await client.put(b"k", b"v")
        assert len(server.executed) == 1


def test_back_off_is_random_grows_and_is_bounded() -> None:
    pool = EndpointPool((URL("http://a"),), Random(7))
    waits = []
    endpoint, _ = pool.pick(100.0)
    for _ in range(60):
        pool.failed(endpoint, 100.0)
        waits.append(pool.pick(100.0)[1])
    assert len(set(waits)) == len(waits)
    assert all(0 <= wait <= 1 for wait in waits)
    assert max(waits[:1]) <= 0.1
    assert max(waits[10:]) > 0.5
    pool.succeeded(endpoint)
    assert pool.pick(100.0)[1] == 0


def test_endpoints_take_turns_when_they_fail() -> None:
    a, b, c = urls = (URL("http://a"), URL("http://b"), URL("http://c"))
    pool = EndpointPool(urls, Random(7))
    asked = []
    for _ in range(3):
        endpoint, wait_seconds = pool.pick(100.0)
        assert wait_seconds == 0
        asked.append(endpoint.url)
        pool.failed(endpoint, 100.0)
    assert asked == [a, b, c]
    best, wait_seconds = pool.pick(100.0)
    assert wait_seconds == best.not_before - 100.0


# ---- the leader -----------------------------------------------------------------------------


def knows_leader(server: ContractServer, leader: ContractServer, *, url: str = "") -> None:
    server.leader = leader.member_id
    server.members = [{"id": leader.member_id, "client_url": url or leader.url}]


async def test_writes_go_to_the_leader_once_it_is_known() -> None:
    async with contract_server() as follower, contract_server() as leader:
        knows_leader(follower, leader)
        async with Client([follower.url]) as client:
            await client.put(b"k", b"1")
            await until(lambda: any(r.raw_path == "/v1/status" for r in leader.requests))
            await until(lambda: client._transport.pool.leader is not None)
            await client.put(b"k", b"2")
            await client.get(b"k")
        assert [len(each.executed) for each in (follower, leader)] == [1, 1]
        # Reads stay where they were.
        assert follower.requests[-1].method == "GET"


async def test_a_leader_that_fails_is_forgotten() -> None:
    async with contract_server() as follower, contract_server() as leader:
        knows_leader(follower, leader)
        async with Client([follower.url]) as client:
            await client.put(b"k", b"1")
            await until(lambda: client._transport.pool.leader is not None)
            leader.faults = lambda _: Fault(before=True)
            await client.put(b"k", b"2")
        assert len(follower.executed) == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://127.0.0.1:7400", "nonsense://"])
async def test_an_address_that_the_client_cannot_use_is_not_used(url: str) -> None:
    async with contract_server() as follower:
        knows_leader(follower, follower, url=url)
        async with Client([follower.url]) as client:
            await client.put(b"k", b"1")
            search = client._leader_search
            assert search is not None
            await search
            assert client._transport.pool.leader is None


# ---- access, sessions -----------------------------------------------------------------------


async def test_the_token_and_the_cluster_go_with_every_request() -> None:
    async with contract_server() as server:
        async with Client([server.url], token="s3cret", cluster_id="c1") as client:
            await client.put(b"k", b"v")
            await client.cluster()
        for request in server.requests:
            assert request.headers["Authorization"] == "Bearer s3cret"
            assert request.headers["X-RaftKV-Cluster"] == "c1"


@pytest.mark.parametrize("token", ["", "two\nlines", "ü"])
def test_a_token_that_is_none(token: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        Client(["http://127.0.0.1:7400"], token=token)


async def test_reads_wait_for_what_the_client_has_written() -> None:
    async with contract_server() as ahead, contract_server() as behind:
        async with Client([ahead.url], prefer_leader=False) as plain:
            await plain.put(b"k", b"v")
            await plain.get(b"k", consistency="local")
            assert "min_revision" not in ahead.requests[-1].raw_path
        async with Client([ahead.url, behind.url], read_your_writes=True) as client:
            await client.put(b"k", b"w")
            assert client.revision == 102
            await client.get(b"k", consistency="local")
            assert "min_revision=102" in ahead.requests[-1].raw_path
            await client.list(b"", min_revision=1)
            assert "min_revision=102" in ahead.requests[-1].raw_path
            # A node that is behind says so, and another is asked.
            client._transport.pool._preferred = 1
            item = await client.get(b"k", consistency="local")
            assert item is not None
            assert item.value == b"w"
            assert behind.requests


async def test_an_address_that_swallows_packets_does_not_use_up_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 192.0.2.0/24 is for documentation: nobody answers there, or nothing is routed there.
    monkeypatch.setattr("raftkv.client.transport._CONNECT_SECONDS_MAX", 0.2)
    async with contract_server() as server:
        endpoints = ["http://192.0.2.1:7400", server.url]
        async with Client(endpoints, timeout_seconds=5, prefer_leader=False) as client:
            started_at = asyncio.get_running_loop().time()
            await client.put(b"k", b"v")
            assert asyncio.get_running_loop().time() - started_at < 3
        async with Client(endpoints[:1], timeout_seconds=0.3, fail_fast=True) as client:
            with pytest.raises(UnreachableError):
                await client.get(b"k")
