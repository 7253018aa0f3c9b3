"""Clients that write and read on all nodes of a cluster while it is hurt, and record everything.

Each client is one task that makes one request at a time, on a node it picks anew for each. Most
requests meet on a few contested keys; some write a key of their own, once, so that the loss of
any acknowledged write shows at the end (the contested ones are overwritten).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Self

import aiohttp

from tests.linearizability.history import Certainty, Kind, Operation
from tests.linearizability.recorder import attempt, recording_session

_WEIGHTS = {Kind.PUT: 20, Kind.GET: 40, Kind.DELETE: 6, Kind.APPEND: 16, Kind.CAS: 18}
_LEDGER_SHARE = 0.05
_REQUEST_SECONDS_MAX = 4.0


@dataclass
class Load:
    """``clients`` on ``keys`` contested keys; runs while the context is entered."""

    urls: Sequence[str]
    clients: int = 8
    keys: int = 5
    pause_seconds: float = 0.008  # between two requests of one client
    seed: int = 0
    consistency: str | None = None  # of the reads made while it runs; None: linearizable
    history: list[Operation] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client(n)) for n in range(self.clients)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=kind is not None)

    def acknowledged_writes(self) -> list[Operation]:
        """Writes with a positive answer, in the order of their answers."""
        return [operation for operation in self.history if operation.is_effective_write]

    def first_write_called_after(self, time_ns: int) -> Operation | None:
        """The earliest answered of the acknowledged writes called after ``time_ns``."""
        for place in range(len(self.history) - 1, -1, -1):
            answered_ns = self.history[place].return_ns
            if answered_ns is not None and answered_ns < time_ns:
                break
        else:
            place = 0
        return next(
            (
                operation
                for operation in self.history[place:]
                if operation.is_effective_write and operation.call_ns > time_ns
            ),
            None,
        )

    async def read_back(self) -> None:
        """Read every key ever written, spread over the nodes; recorded like all else."""
        keys = sorted({operation.key for operation in self.history})
        shares = [keys[number :: self.clients] for number in range(self.clients)]
        async with recording_session(_REQUEST_SECONDS_MAX) as session:
            await asyncio.gather(
                *(self._read_share(session, n, share) for n, share in enumerate(shares))
            )

    async def _read_share(
        self, session: aiohttp.ClientSession, client: int, keys: Sequence[str]
    ) -> None:
        for place, key in enumerate(keys):
            url = self.urls[(client + place) % len(self.urls)]
            read = await attempt(session, url, Operation(client, key, Kind.GET, 0))
            assert read.certainty is Certainty.KNOWN, f"{url} did not answer for {key}"
            self.history.append(read)

    async def _client(self, client: int) -> None:
        random = Random(self.seed * 1000 + client)
        seen: dict[str, int] = {}  # the mod revisions this client knows, for preconditions
        async with recording_session(_REQUEST_SECONDS_MAX) as session:
            count = 0
            while not self._stopping.is_set():
                count += 1
                asked = self._next(random, client, count, seen)
                done = await attempt(
                    session, random.choice(self.urls), asked, consistency=self.consistency
                )
                self.history.append(done)
                shown = done.revision if done.is_effective_write else done.mod_revision
                if shown is not None:
                    seen[done.key] = 0 if done.kind is Kind.DELETE else shown
                await asyncio.sleep(self.pause_seconds)

    def _next(self, random: Random, client: int, count: int, seen: dict[str, int]) -> Operation:
        if random.random() < _LEDGER_SHARE:
            key = f"ledger/{client}/{count}"
            return Operation(client, key, Kind.PUT, 0, argument=f"{client}.{count};")
        key = f"contested/{random.randrange(self.keys)}"
        kind = random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        argument = "" if kind in (Kind.GET, Kind.DELETE) else f"{client}.{count};"
        expected = seen.get(key, 0) if kind is Kind.CAS else 0
        return Operation(client, key, kind, 0, argument=argument, expected_revision=expected)
