"""Leases and locks: kept alive, given back, and lost in time."""

import asyncio
from contextlib import suppress

import pytest
from aiohttp import web

from raftkv.client import (
    Client,
    ConditionFailedError,
    Fence,
    LeaseLostError,
    LockHeldError,
    LockLostError,
    NotFoundError,
)
from tests.client.contract_server import ContractServer, Fault, contract_server
from tests.server.http.harness import until


def client_of(server: ContractServer, seconds: float = 5.0) -> Client:
    return Client([server.url], timeout_seconds=seconds, prefer_leader=False)


def keepalives(server: ContractServer) -> int:
    return sum(path.partition("?")[0].endswith("keepalive") for _, path in server.executed)


async def test_a_lease_lives_as_long_as_its_block_and_takes_its_keys_along() -> None:
    async with contract_server() as server, client_of(server) as client:
        async with client.lease(0.3) as lease:
            await client.put(b"k", b"v", lease=lease.id)
            await until(lambda: keepalives(server) >= 2)
            found = await client.get_lease(lease.id)
            assert found is not None
            assert (found.ttl_seconds, found.keys) == (0.3, (b"k",))
            assert [each.id for each in await client.list_leases()] == [lease.id]
            item = await client.get(b"k")
            assert item is not None
            assert item.lease == lease.id
        assert await client.get(b"k") is None
        assert await client.get_lease(lease.id) is None
        with pytest.raises(NotFoundError):
            await client.keep_lease_alive(lease.id)


async def test_a_lease_that_ended_cancels_the_block() -> None:
    async with contract_server() as server, client_of(server) as client:

        async def hold() -> None:
            async with client.lease(0.2):
                server.leases.clear()
                await asyncio.sleep(30)

        with pytest.raises(LeaseLostError, match="has ended"):
            await hold()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_a_lease_that_nobody_renews_is_lost_before_nodes_end_it() -> None:
    async with contract_server() as server, client_of(server, seconds=0.1) as client:
        loop = asyncio.get_running_loop()
        granted_at = loop.time()

        async def hold() -> None:
            async with client.lease(0.5):
                server.faults = lambda _: Fault(before=True)
                await asyncio.sleep(30)

        with pytest.raises(LeaseLostError, match="could not be kept alive"):
            await hold()
        assert 0.3 < loop.time() - granted_at < 5


async def test_renewing_survives_failures_that_pass() -> None:
    async with contract_server() as server, client_of(server) as client:
        async with client.lease(0.5):
            seen = 0

            def every_other(request: web.BaseRequest) -> Fault | None:
                nonlocal seen
                seen += "keepalive" in request.raw_path
                return Fault(status=503) if seen % 2 else None

            server.faults = every_other
            await until(lambda: keepalives(server) >= 3)
            server.faults = lambda _: None
        assert not server.leases


async def test_without_cancelling_the_loss_is_an_event() -> None:
    async with contract_server() as server, client_of(server) as client:
        async with client.lease(0.2, cancel_on_loss=False) as lease:
            server.leases.clear()
            async with asyncio.timeout(10):
                await lease.lost.wait()
        assert lease.is_lost


async def test_a_cancelled_block_is_cancelled_and_gives_the_lease_back() -> None:
    async with contract_server() as server, client_of(server) as client:
        entered = asyncio.Event()

        async def hold() -> None:
            async with client.lease(10):
                entered.set()
                await asyncio.sleep(30)

        task = asyncio.create_task(hold())
        await entered.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert not server.leases


async def test_an_error_of_the_block_is_the_blocks() -> None:
    async with contract_server() as server, client_of(server) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.lease(10):
                raise ZeroDivisionError
        assert not server.leases


# ---- locks ----------------------------------------------------------------------------------


async def test_a_lock_is_held_fences_writes_and_is_given_back() -> None:
    async with contract_server() as server, client_of(server) as client:
        async with client.lock("my jobs/1", 0.3) as lock:
            await client.put(b"k", b"v", fence=lock.fence)
            assert server.requests[-1].headers["X-RaftKV-Fence"] == f"my%20jobs%2F1:{lock.token}"
            held = await client.get_lock("my jobs/1")
            assert held is not None
            assert (held.token, held.owner) == (lock.token, lock.owner)
            assert [each.name for each in await client.list_locks()] == ["my jobs/1"]
            await until(lambda: keepalives(server) >= 2)
        assert await client.get_lock("my jobs/1") is None
        with pytest.raises(ConditionFailedError) as caught:
            await client.put(b"k", b"w", fence=lock.fence)
        assert caught.value.code == "lock_lost"


async def test_a_lock_that_is_held_by_another() -> None:
    async with contract_server() as server, client_of(server) as client:
        first = await client.acquire_lock("jobs", 10, owner="one")
        assert await client.acquire_lock("jobs", 10, owner="one") == first
        with pytest.raises(LockHeldError):
            await client.acquire_lock("jobs", 10, owner="two")
        with pytest.raises(LockHeldError):
            async with client.lock("jobs", 10, wait_seconds=0):
                pass
        with pytest.raises(ConditionFailedError):
            await client.release_lock("jobs", first.token + 1)
        await client.release_lock("jobs", first.token)


async def test_a_lock_is_waited_for_again_and_again() -> None:
    async with contract_server() as server, client_of(server) as client:
        first = await client.acquire_lock("jobs", 10, owner="one")

        async def wait() -> int:
            async with client.lock("jobs", 10, owner="two") as lock:
                return lock.token

        waiting = asyncio.create_task(wait())
        await until(lambda: len(server.executed) > 5)
        await client.release_lock("jobs", first.token)
        async with asyncio.timeout(10):
            assert await waiting > first.token


async def test_a_lock_that_is_lost_cancels_the_block() -> None:
    async with contract_server() as server, client_of(server) as client:

        async def hold() -> None:
            async with client.lock("jobs", 0.2):
                server.locks.clear()
                await asyncio.sleep(30)

        with pytest.raises(LockLostError, match="the lock 'jobs' has ended"):
            await hold()


async def test_the_answer_to_an_acquisition_may_be_lost() -> None:
    async with contract_server() as server, client_of(server) as client:
        faults = iter([Fault(after=True)])
        server.faults = lambda _: next(faults, None)
        async with client.lock("jobs", 10, wait_seconds=0) as lock:
            assert lock.fence == Fence("jobs", lock.token)
        assert not server.locks
