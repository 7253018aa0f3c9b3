"""Clients of everything but plain keys, and what must hold of what they were told.

Counters under retries, words under a lock's fence, keys of leases, and watches: each is a task that
goes on whatever happens to the nodes, until it is told to stop; `check` then compares what it
recorded with what the cluster holds. Written with the client library, whose retries are tested too.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from raftkv.client import Client, ClientError, Event, LeaseLostError
from tests.linearizability.history import Certainty, Kind, Operation, describe

_LAST_SECONDS = 60.0  # to find out, once all is well, how a request ended


class Session(Protocol):
    """One kind of client; `run` ends soon after ``stopping`` is set."""

    async def run(self, client: Client, stopping: asyncio.Event) -> None:
        """Make requests until it is time to stop."""
        ...

    async def check(self, client: Client) -> str:
        """Raise AssertionError if a promise was broken; else say how much was done."""
        ...


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


@dataclass
class Counting:
    """Increments, each sent again under its idempotency key until it is answered for good."""

    key: bytes = b"counter"
    clients: int = 2
    sums: list[int] = field(default_factory=list)

    async def run(self, client: Client, stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.clients):
                group.create_task(self._count(client, stopping))

    async def _count(self, client: Client, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            once, give_up_at = secrets.token_hex(8), float("inf")
            while True:
                try:
                    self.sums.append(await client.increment(self.key, idempotency_key=once))
                    break
                except ClientError:
                    if stopping.is_set():
                        give_up_at = min(give_up_at, monotonic() + _LAST_SECONDS)
                    assert monotonic() < give_up_at, "the cluster did not come back"
                    await pause(stopping, 0.05)
            await pause(stopping, 0.01)

    async def check(self, client: Client) -> str:
        item = await client.get(self.key)
        total = 0 if item is None else int(item.value)
        assert sorted(self.sums) == list(range(1, total + 1)), (
            f"{len(self.sums)} increments were answered, the sum is {total}"
        )
        return f"{total} increments, each once"


@dataclass
class Locking:
    """Words appended under a lock: in the order of its tokens, by one holder each."""

    name: str = "job"
    key: bytes = b"fenced"
    clients: int = 3
    ttl_seconds: float = 2.0
    holders: dict[int, str] = field(default_factory=dict)
    written: list[bytes] = field(default_factory=list)
    lost: int = 0

    async def run(self, client: Client, stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._hold(client, stopping, f"owner-{number}"))

    async def _hold(self, client: Client, stopping: asyncio.Event, owner: str) -> None:
        while not stopping.is_set():
            try:
                async with client.lock(
                    self.name, self.ttl_seconds, wait_seconds=2.0, owner=owner
                ) as lock:
                    holder = self.holders.setdefault(lock.token, owner)
                    assert holder == owner, f"token {lock.token} was given to {holder} and {owner}"
                    for _ in range(5):
                        word = b"%d.%s;" % (lock.token, secrets.token_hex(4).encode())
                        await client.append(self.key, word, fence=lock.fence)
                        self.written.append(word)
            except LeaseLostError:
                self.lost += 1
            except ClientError:
                await pause(stopping, 0.05)

    async def check(self, client: Client) -> str:
        item = await client.get(self.key)
        words = [] if item is None else [word + b";" for word in item.value.split(b";")[:-1]]
        tokens = [int(word.split(b".")[0]) for word in words]
        assert tokens == sorted(tokens), f"written under a token that was over: {tokens}"
        assert len(set(words)) == len(words), "a word was appended twice"
        missing = set(self.written) - set(words)
        assert not missing, f"acknowledged words are lost: {missing}"
        return f"{len(words)} words under {len(set(tokens))} holds, {self.lost} holds lost"


@dataclass
class Leasing:
    """Keys of leases that nobody keeps alive: there for the whole ttl, gone some time after it."""

    prefix: bytes = b"leased/"
    clients: int = 2
    ttl_seconds: float = 3.0
    ended: int = 0

    async def run(self, client: Client, stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._lease(client, stopping, number))

    async def _lease(self, client: Client, stopping: asyncio.Event, number: int) -> None:
        count = 0
        while not stopping.is_set():
            count += 1
            key = self.prefix + b"%d/%d" % (number, count)
            # Before it is asked for: it cannot have been granted earlier.
            granted_at = monotonic()
            try:
                lease = await client.grant_lease(self.ttl_seconds)
                await client.put(key, b"here", lease=lease.id)
            except ClientError:
                continue  # it may have ended before the put arrived
            while not stopping.is_set():
                try:
                    item = await client.get(key)
                except ClientError:
                    continue
                lived_seconds = monotonic() - granted_at
                if item is None:
                    assert lived_seconds >= self.ttl_seconds, (
                        f"{key!r} ended {lived_seconds:.2f} s after its lease was asked for"
                    )
                    self.ended += 1
                    break
                await pause(stopping, 0.1)

    async def check(self, client: Client) -> str:
        deadline = monotonic() + 10 * self.ttl_seconds
        while left := [item.key async for item in client.range(prefix=self.prefix)]:
            assert monotonic() < deadline, f"keys outlive their leases: {left}"
            await asyncio.sleep(0.1)
        return f"{self.ended} leases ended"


@dataclass
class Watching:
    """Followers of every key: each is told the history, in its order, each change once."""

    urls: Sequence[str]
    watchers: int = 3
    end: bytes = b"~end"
    seen: list[list[Event]] = field(default_factory=list)
    _begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, client: Client, stopping: asyncio.Event) -> None:
        self.seen = [[] for _ in range(self.watchers)]
        barrier = asyncio.Barrier(self.watchers + 1)
        async with asyncio.TaskGroup() as group:
            for number, seen in enumerate(self.seen):
                group.create_task(self._follow(number, seen, barrier))
            await barrier.wait()
            self._begun.set()
            await stopping.wait()

    async def begun(self) -> None:
        """Wait until all watches are granted."""
        await self._begun.wait()

    async def _follow(self, number: int, seen: list[Event], barrier: asyncio.Barrier) -> None:
        # Each begins at another node.
        urls = [*self.urls[number:], *self.urls[:number]]
        async with Client(urls) as client, client.watch(prefix=b"") as watch:
            await barrier.wait()
            async for event in watch:
                seen.append(event)
                if event.key == self.end:
                    return

    async def check(self, client: Client, writes: Sequence[Operation]) -> str:
        """As of a `Session`; ``writes`` were all made between `begun` and the last key."""
        history: list[Event] = []
        async with client.watch(prefix=b"", from_revision=0) as past:
            async for event in past:
                history.append(event)
                if event.key == self.end:
                    break
        revisions = [event.revision for event in history]
        assert revisions == sorted(revisions), "the history is not in order"
        first = min(seen[0].revision for seen in self.seen)
        told = [event for event in history if event.revision >= first]
        for number, seen in enumerate(self.seen):
            assert seen == told, (
                f"watcher {number} was told {len(seen)} changes, the history has {len(told)}"
            )
        matched = check_told(told, writes)
        return (
            f"{len(told)} changes told to each of {self.watchers} watchers, "
            f"{matched} of them acknowledged to others"
        )


def check_told(told: Sequence[Event], history: Sequence[Operation]) -> int:
    """Compare the events of a watch with what those who wrote meanwhile were answered.

    A watch that is compared with watches alone may leave out what all of them leave out. Here each
    acknowledged write of ``history`` must be there, once and with its value, and nothing of a
    write that was said not to have been made. Returns how many were acknowledged and found.
    """
    times: Counter[tuple[bytes, int | None]] = Counter(
        (event.key, event.revision) for event in told
    )
    doubled = [change for change, count in times.items() if count > 1]
    assert not doubled, f"told twice: {doubled[:10]}"
    writes = [write for write in history if write.is_effective_write]
    expected = {(write.key.encode(), write.revision): write for write in writes}
    assert len(expected) == len(writes), "two writes were answered the same revision"
    missing = [describe(write) for change, write in expected.items() if not times[change]]
    assert not missing, f"{len(missing)} acknowledged writes were not told:\n" + "\n".join(
        missing[:10]
    )
    values: dict[bytes, bytes] = {}
    for event in told:
        write = expected.get((event.key, event.revision))
        value = None if event.item is None else event.item.value
        assert (value is None) is (event.kind == "delete"), f"a {event.kind} with {value!r}"
        if write is not None:
            due = _value_after(write, values.get(event.key, b""))
            assert value == due, f"told {value!r}, not {due!r}, of {describe(write)}"
        values[event.key] = value or b""
    rest = [event for event in told if (event.key, event.revision) not in expected]
    _check_unacknowledged(rest, history)
    return len(expected)


def _value_after(write: Operation, before: bytes) -> bytes | None:
    """What a key holds behind ``write``; None: it is gone."""
    if write.kind is Kind.DELETE:
        return None
    argument = write.argument.encode("latin-1")
    return before + argument if write.kind is Kind.APPEND else argument


def _check_unacknowledged(told: Sequence[Event], history: Sequence[Operation]) -> None:
    """Each of these is of a write whose end its client does not know, and of one only."""
    keys = {operation.key.encode() for operation in history}
    unknown = [each for each in history if each.certainty is Certainty.UNKNOWN]
    left = Counter(
        (each.key.encode(), b"" if each.kind is Kind.DELETE else each.argument.encode("latin-1"))
        for each in unknown
        if each.kind is not Kind.GET
    )
    for event in told:
        if event.key not in keys:
            continue
        # Every argument is another word that ends with a semicolon; an append adds it at the end.
        word = b"" if event.item is None else event.item.value.split(b";")[-2] + b";"
        left[event.key, word] -= 1
        assert left[event.key, word] >= 0, (
            f"told of a {event.kind} {word!r} of {event.key!r} at {event.revision}, which was "
            "not made by any answer"
        )
