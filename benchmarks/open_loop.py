"""An open-loop load generator: every request is due at its time, whatever became of the others.

A latency counts from when its request was due, not from when it could be sent: a server that stalls
is charged for all that had to wait meanwhile (no coordinated omission, as in wrk2). Every operation
is kept, so percentiles are exact and the history can be judged.

`run` performs a plan in a process of its own, so that the harness does not disturb it: this module
reads the plan as one line of JSON from its input and writes a `Result` as MessagePack.
"""

import asyncio
import gc
import select
import selectors
import sys
from bisect import bisect
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final, cast

import msgspec
from typing_extensions import override

from benchmarks.dialects import DIALECTS, answer_bytes, value_of
from benchmarks.judge import Operation

_ROOT: Final = Path(__file__).parent.parent
_SWEEP_SECONDS: Final = 0.05
_LEAD_SECONDS: Final = 0.2  # until the first request: connections are made meanwhile
_CLOSING_SECONDS: Final = 5.0


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be asked, how often, and of whom."""

    system: str  # a key of `DIALECTS`
    addresses: tuple[tuple[str, int], ...]
    rate: float  # requests a second
    seconds: float
    prefix: str  # of all keys
    keys: int
    key_digits: int = 10
    value_bytes: int = 256
    read_share: float = 0.0
    zipf: float = 0.0  # the exponent; 0: all keys alike
    #: Each write has a key of its own, ``prefix`` and its number: for finding lost ones.
    has_unique_keys: bool = False
    first_number: int = 0
    connections: int = 64  # made before the first request
    connections_max: int = 64  # made when none is free
    timeout_seconds: float = 10.0
    give_up_seconds: float = 60.0  # a request that waited so long for a connection is not sent
    seed: int = 1


class Result(msgspec.Struct, frozen=True):
    """Everything that was asked, and what came of it, in the order in which it ended."""

    history: list[Operation]
    due: list[float]  # the time at which each was to be sent, in the order of ``history``
    unsent: int  # given up before they could be sent
    late_seconds: float  # the most that the generator itself was behind its schedule

    def latencies(self, kind: str) -> list[float]:
        """Seconds from due to done of what was done, ascending."""
        return sorted(
            each.end - due
            for each, due in zip(self.history, self.due, strict=True)
            if each.kind == kind and each.outcome == "done"
        )

    def count(self, outcome: str) -> int:
        """Of operations with this outcome."""
        return sum(each.outcome == outcome for each in self.history)


class Wanted(msgspec.Struct, gc=False):
    """A request of the schedule."""

    due: float
    is_read: bool
    key: int
    number: int
    start: float = 0.0


def schedule(plan: LoadPlan) -> list[Wanted]:
    """All requests of a plan, evenly spaced, due from 0 on."""
    randomness = Random(plan.seed)
    count = max(1, round(plan.rate * plan.seconds))
    kinds = [randomness.random() < plan.read_share for _ in range(count)]
    if plan.zipf:
        keys = zipf_keys(plan.keys, plan.zipf, count, randomness)
    elif plan.read_share:
        keys = [randomness.randrange(plan.keys) for _ in range(count)]
    else:
        keys = [number % plan.keys for number in range(count)]
    return [
        Wanted(
            number / plan.rate,
            is_read,
            plan.first_number + number if plan.has_unique_keys else key,
            plan.first_number + number,
        )
        for number, (is_read, key) in enumerate(zip(kinds, keys, strict=True))
    ]


def zipf_keys(keys: int, exponent: float, count: int, randomness: Random) -> list[int]:
    """Ranks drawn with a probability of 1 / rank**exponent, scattered over the keys."""
    sums = list(accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    ranks = (bisect(sums, randomness.random() * sums[-1]) for _ in range(count))
    # A multiplier without a common factor keeps ranks apart, and hot keys from being neighbours.
    return [min(rank, keys - 1) * 7_919 % keys for rank in ranks]


class MicrosecondSelector(selectors.EpollSelector):
    """Waits as long as it is told: epoll itself counts whole milliseconds."""

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way at most."""

    def __init__(self, generator: "Generator") -> None:
        self._generator = generator
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self.wanted: Wanted | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._generator.connected(self)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        length = answer_bytes(self._received)
        if length is not None and len(self._received) >= length:
            answer = bytes(self._received[:length])
            del self._received[:length]
            self._generator.answered(self, answer)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.lost(self)

    def send(self, wanted: Wanted, request: bytes) -> None:
        assert self._transport is not None
        self.wanted = wanted
        wanted.start = monotonic()
        self._transport.write(request)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Generator:
    """Performs one plan in the running loop."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._dialect = DIALECTS[plan.system]
        self._waiting: deque[Wanted] = deque()  # due, and without a connection
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._open = 0  # connections, those under way included
        self._connects: set[asyncio.Task[None]] = set()
        self._next_address = 0
        self._history: list[Operation] = []
        self._due: list[float] = []
        self._unsent = 0
        self._late_seconds = 0.0
        self._wanted = schedule(plan)
        self._place = 0
        self._over = asyncio.Event()

    async def run(self) -> Result:
        """All of it. Returns when everything was answered, timed out or given up."""
        loop = asyncio.get_running_loop()
        for _ in range(min(self._plan.connections, len(self._wanted))):
            self._connect()
        began = monotonic() + _LEAD_SECONDS
        for wanted in self._wanted:
            wanted.due += began
        loop.call_at(began, self._fire)
        self._sweep()
        plan = self._plan
        longest = _LEAD_SECONDS + plan.seconds + plan.timeout_seconds + plan.give_up_seconds
        async with asyncio.timeout(longest + _CLOSING_SECONDS):
            await self._over.wait()
        for connection in [*self._idle, *self._busy]:
            connection.abort()
        for task in self._connects:
            task.cancel()
        await asyncio.gather(*self._connects, return_exceptions=True)
        return Result(self._history, self._due, self._unsent, self._late_seconds)

    # ---- what connections tell --------------------------------------------------------------

    def connected(self, connection: _Connection) -> None:
        self._idle.append(connection)
        self._serve_waiting()

    def answered(self, connection: _Connection, answer: bytes) -> None:
        now = monotonic()
        wanted = connection.wanted
        assert wanted is not None, "an answer that nobody asked for"
        connection.wanted = None
        self._busy.discard(connection)
        self._idle.append(connection)
        read = self._dialect.read if wanted.is_read else self._dialect.written
        said = read(answer)
        number = said.number if wanted.is_read else wanted.number
        self._record(wanted, now, said.outcome, number, said.revision)
        self._serve_waiting()

    def lost(self, connection: _Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        self._busy.discard(connection)
        self._open -= 1
        wanted, connection.wanted = connection.wanted, None
        if wanted is not None:
            self._record(wanted, monotonic(), "unknown", wanted.number, 0)
        self._serve_waiting()

    # ---- inside -----------------------------------------------------------------------------

    def _fire(self) -> None:
        """Send what is due, and come back when the next one is."""
        now = monotonic()
        wanted = self._wanted
        while self._place < len(wanted) and wanted[self._place].due <= now:
            self._late_seconds = max(self._late_seconds, now - wanted[self._place].due)
            self._waiting.append(wanted[self._place])
            self._place += 1
        self._serve_waiting()
        if self._place < len(wanted):
            asyncio.get_running_loop().call_at(wanted[self._place].due, self._fire)

    def _serve_waiting(self) -> None:
        while self._waiting and self._idle:
            connection, wanted = self._idle.pop(), self._waiting.popleft()
            self._busy.add(connection)
            connection.send(wanted, self._request(wanted))
        for _ in range(len(self._waiting) - len(self._connects)):
            if self._open >= self._plan.connections_max:
                break
            self._connect()
        if not self._waiting and not self._busy and self._place == len(self._wanted):
            self._over.set()

    def _request(self, wanted: Wanted) -> bytes:
        plan = self._plan
        key = f"{plan.prefix}{wanted.key:0{plan.key_digits}d}".encode()
        if wanted.is_read:
            return self._dialect.get(key)
        return self._dialect.put(key, value_of(wanted.number, plan.value_bytes))

    def _connect(self) -> None:
        self._open += 1
        addresses = self._plan.addresses
        host, port = addresses[self._next_address % len(addresses)]
        self._next_address += 1
        task = asyncio.create_task(self._connect_to(host, port))
        self._connects.add(task)
        task.add_done_callback(self._connects.discard)

    async def _connect_to(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Connection(self), host, port)
        except OSError:
            self._open -= 1

    def _sweep(self) -> None:
        """Give up what has waited for too long."""
        now = monotonic()
        while self._waiting and now - self._waiting[0].due > self._plan.give_up_seconds:
            self._waiting.popleft()
            self._unsent += 1
        for connection in list(self._busy):
            wanted = connection.wanted
            if wanted is not None and now - wanted.start > self._plan.timeout_seconds:
                connection.abort()
        self._serve_waiting()
        if not self._over.is_set():
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _record(self, wanted: Wanted, now: float, outcome: str, number: int, revision: int) -> None:
        kind = "get" if wanted.is_read else "put"
        self._history.append(
            Operation(kind, wanted.key, number, wanted.start, now, revision, outcome)  # type: ignore[arg-type]
        )
        self._due.append(wanted.due)


async def run(plan: LoadPlan) -> Result:
    """Perform ``plan`` in a process of its own. Raises RuntimeError when that fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.open_loop"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    try:
        said, complaints = await process.communicate(msgspec.json.encode(plan) + b"\n")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        tail = complaints.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"the load generator failed: {' '.join(tail)}")
    return msgspec.msgpack.decode(said, type=Result)


def addresses(urls: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Host and port of `http://HOST:PORT` each."""
    parts = (url.removeprefix("http://").rsplit(":", 1) for url in urls)
    return tuple((host, int(port)) for host, port in parts)


def main() -> None:
    """Read a plan, perform it, write what came of it."""
    plan = msgspec.json.decode(sys.stdin.readline(), type=LoadPlan)
    # Nothing here makes cycles in the hot path, and a collection would be charged to the server.
    gc.disable()
    loop = asyncio.SelectorEventLoop(MicrosecondSelector())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(_perform(plan))
    sys.stdout.buffer.write(msgspec.msgpack.encode(result))


async def _perform(plan: LoadPlan) -> Result:
    return await Generator(plan).run()


if __name__ == "__main__":
    main()
