"""Makes histories of a store that is linearizable by construction, for testing the checkers.

A simulated client calls, its operation takes effect at one instant on an atomic store, and it
returns. Some answers are lost: then the effect happens late, or never, while the client goes on.
"""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count
from random import Random

import msgspec

from tests.linearizability.history import Certainty, Kind, Operation


@dataclass(frozen=True)
class Shape:
    """How much to make, and how rough the times are."""

    clients: int
    keys: int
    operations: int
    unknown_share: float = 0.1
    refused_share: float = 0.0
    reset_share: float = 0.3  # of the writes that are puts: they keep appended values short


def make_history(random: Random, shape: Shape) -> list[Operation]:
    """A linearizable history; revisions included, in order of the calls."""
    return _Simulation(random, shape).run()


class _Simulation:
    def __init__(self, random: Random, shape: Shape) -> None:
        self._random = random
        self._shape = shape
        self._store: dict[str, tuple[str, int]] = {}
        self._revision = 0
        self._numbers = count(1)
        self._history: list[Operation] = []
        self._last_seen: dict[tuple[int, str], int] = {}  # revisions clients compare with

    def run(self) -> list[Operation]:
        ready = [(self._random.randrange(1000), client) for client in range(self._shape.clients)]
        heapify(ready)
        effects: list[tuple[int, int, Operation, bool]] = []
        for _ in range(self._shape.operations):
            now, client = heappop(ready)
            asked = self._ask(client, now)
            effect_ns = now + self._random.randrange(1, 1000)
            return_ns = effect_ns + self._random.randrange(1, 1000)
            heappush(ready, (return_ns + self._random.randrange(1, 1000), client))
            self._take_effect(effects, now)
            fate = self._random.random()
            if fate < self._shape.refused_share:
                refused = msgspec.structs.replace(asked, certainty=Certainty.NOT_COMMITTED)
                self._history.append(refused)
            elif fate < self._shape.refused_share + self._shape.unknown_share:
                lost = msgspec.structs.replace(asked, certainty=Certainty.UNKNOWN)
                self._history.append(lost)
                if self._random.random() < 0.5:
                    late_ns = now + self._random.randrange(1, 20_000)
                    heappush(effects, (late_ns, next(self._numbers), lost, False))
            else:
                known = msgspec.structs.replace(asked, return_ns=return_ns)
                heappush(effects, (effect_ns, next(self._numbers), known, True))
        self._take_effect(effects, None)
        return sorted(self._history, key=lambda operation: operation.call_ns)

    def _ask(self, client: int, now: int) -> Operation:
        key = f"k{self._random.randrange(self._shape.keys)}"
        kind = self._random.choice(list(Kind))
        if kind is Kind.APPEND and self._random.random() < self._shape.reset_share:
            kind = Kind.PUT
        argument = "" if kind in (Kind.GET, Kind.DELETE) else f"{client}.{next(self._numbers)};"
        expected = self._last_seen.get((client, key), 0) if kind is Kind.CAS else 0
        return Operation(client, key, kind, now, argument=argument, expected_revision=expected)

    def _take_effect(
        self, effects: list[tuple[int, int, Operation, bool]], until_ns: int | None
    ) -> None:
        while effects and (until_ns is None or effects[0][0] <= until_ns):
            _, _, operation, is_answered = heappop(effects)
            answered = self._apply(operation)
            if is_answered:
                self._history.append(answered)

    def _apply(self, operation: Operation) -> Operation:
        """Change the store; the operation with its answer filled in."""
        key = operation.key
        value, mod_revision = self._store.get(key, (None, 0))
        existed = value is not None
        answer: dict[str, object] = {"existed": existed}
        match operation.kind:
            case Kind.GET:
                answer |= {"value": value, "mod_revision": mod_revision}
            case Kind.DELETE:
                if existed:
                    self._revision += 1
                    del self._store[key]
            case Kind.CAS if mod_revision != operation.expected_revision:
                answer |= {"succeeded": False, "mod_revision": mod_revision, "existed": None}
            case _:
                prefix = (value or "") if operation.kind is Kind.APPEND else ""
                self._revision += 1
                self._store[key] = (prefix + operation.argument, self._revision)
        self._last_seen[operation.client, key] = self._store.get(key, (None, 0))[1]
        return msgspec.structs.replace(operation, revision=self._revision, **answer)
