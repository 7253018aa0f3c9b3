"""Is this history linearizable? An own Wing-Gong-Linden search, key by key.

Linearizability is a local property (Herlihy and Wing, theorem 1), so each key is searched alone.
The search walks the calls and returns of a key in time order and keeps every *configuration* that
explains what was seen so far: which of the operations still open have already taken effect (a
bit set) and the state they left. Pairs already seen are not searched again (Wing and Gong; Lowe,
"Testing for linearizability", 2017). An operation takes effect only when its return, or that of
another, forces it; a configuration in which an operation cannot have taken effect before its
return is dropped. When none is left the history is not linearizable, and that operation, with
the states it could have met, is the counterexample.

The bit set covers open operations only, so every quiescent point is a cut by itself: the
configurations there are just states. What would grow is the number of writes of *unknown*
outcome, which stay open for ever. Three exact reductions keep it small:

- A configuration that used up more of them than another, for the same state, is dropped: an
  unused one may always stay unused.
- Unknown writes with the same effect are interchangeable, so the earliest unused one is taken;
  of two that leave the same state, the one that needs a precondition.
- A value that no read of the history shows, nor begins with, can only be overwritten. All such
  values are one (`_UNREAD`), so writes nobody read are interchangeable too.

Operations known not to have been committed are dropped, and so are reads without an answer.
Revisions are believed only where the contract makes them part of the answer: a read's mod
revision and a precondition, and that no two writes share one. `tests.linearizability.witness`
checks the rest.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.linearizability.history import Certainty, Kind, Operation, describe
from tests.linearizability.model import ABSENT, UNKNOWN_REVISION, State, apply

_WINDOW_MAX = 24  # operations shown around a counterexample
_UNREAD: Final = "\0unread"  # stands for every value that no read shows or begins with
_OVERWRITE: Final = ("overwrite", _UNREAD, 0)  # the effect of an unread put or append

# An explanation of a key's history so far: bits of the open operations with an answer that have
# taken effect, and the state. Its value in `_Frontier`: the minimal bit sets of unknown writes
# used up on the way.
_Configuration = tuple[int, State]
_Frontier = dict[_Configuration, list[int]]

_Effect = tuple[str, str, int]  # kind, argument, expected revision


@dataclass(frozen=True)
class Violation:
    """A history that no order of effects explains, or that contradicts its own revisions.

    ``culprits`` are the operations whose answers cannot be; ``window`` what happened on the key
    around them, in order of the calls.
    """

    rule: str
    key: str
    reason: str
    culprits: tuple[Operation, ...]
    window: tuple[Operation, ...]

    def explain(self) -> str:
        """The counterexample for a person, times in milliseconds from its first call."""
        origin_ns = min(operation.call_ns for operation in (*self.window, *self.culprits))
        lines = [f"{self.rule}, key {self.key!r}: {self.reason}", "  what cannot be:"]
        lines += [f"    {describe(operation, origin_ns)}" for operation in self.culprits]
        lines += ["  around it, by call; * what cannot be:"]
        for operation in self.window:
            mark = "*" if operation in self.culprits else " "
            lines.append(f"  {mark} {describe(operation, origin_ns)}")
        return "\n".join(lines)


def find_violation(history: Iterable[Operation]) -> Violation | None:
    """The first counterexample to linearizability, in the order of the keys; None: there is none.

    Every key is taken not to exist at the start.
    """
    for key, operations in sorted(group_by_key(history).items()):
        violation = _KeySearch(key, operations).run()
        if violation is not None:
            return violation
    return None


def group_by_key(history: Iterable[Operation]) -> Mapping[str, Sequence[Operation]]:
    """The operations that constrain the outcome, by key and in order of their calls."""
    by_key: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        is_silent_read = operation.kind is Kind.GET and operation.certainty is Certainty.UNKNOWN
        if operation.certainty is not Certainty.NOT_COMMITTED and not is_silent_read:
            by_key[operation.key].append(operation)
    for operations in by_key.values():
        operations.sort(key=lambda operation: operation.call_ns)
    return by_key


def window_around(operations: Sequence[Operation], centre: Operation) -> tuple[Operation, ...]:
    """Up to two dozen of the key's operations called before ``centre`` returned."""
    end_ns = centre.call_ns if centre.return_ns is None else centre.return_ns
    earlier = [operation for operation in operations if operation.call_ns <= end_ns]
    settled = [operation for operation in earlier if operation.return_ns is not None]
    unknown = [operation for operation in earlier if operation.return_ns is None]
    shown = settled[-_WINDOW_MAX * 2 // 3 :] + unknown[-_WINDOW_MAX // 3 :]
    return tuple(sorted(shown, key=lambda operation: operation.call_ns))


class _KeySearch:
    """The search over one key."""

    def __init__(self, key: str, operations: Sequence[Operation]) -> None:
        self._key = key
        self._operations = operations
        # Every value a read returned, sorted: what a live value must be a prefix of.
        self._read_values = sorted(
            {operation.value for operation in operations if operation.value is not None}
        )
        self._frontier: _Frontier = {(0, ABSENT): [0]}
        # Operations called and not yet returned, by their bit; freed bits are used again.
        self._open: dict[int, Operation] = {}
        # The revisions that acknowledged writes took: no unknown write has one of them.
        self._known_revisions = {
            operation.revision for operation in operations if operation.is_effective_write
        } - {None}
        # Unknown writes called so far by their effect, with bits of their own, earliest first.
        self._conditional: defaultdict[_Effect, list[tuple[int, Operation]]] = defaultdict(list)
        self._blind: defaultdict[_Effect, list[tuple[int, Operation]]] = defaultdict(list)
        self._unknown_count = 0

    def run(self) -> Violation | None:
        bit_of: dict[int, int] = {}
        for _, is_return, number in self._events():
            operation = self._operations[number]
            if not is_return:
                if operation.certainty is Certainty.UNKNOWN:
                    self._add_unknown(operation)
                else:
                    bit_of[number] = self._free_bit()
                    self._open[bit_of[number]] = operation
                continue
            bit = bit_of.pop(number)
            before = self._frontier
            self._frontier = self._force(bit)
            del self._open[bit]
            if not self._frontier:
                return self._violation(operation, before)
        return None

    def _events(self) -> list[tuple[int, bool, int]]:
        """Calls and returns in time order; at equal times calls first, which only weakens."""
        events = [(op.call_ns, False, number) for number, op in enumerate(self._operations)]
        events += [
            (op.return_ns, True, number)
            for number, op in enumerate(self._operations)
            if op.return_ns is not None
        ]
        return sorted(events)

    def _free_bit(self) -> int:
        bit = 1
        while bit in self._open:
            bit <<= 1
        return bit

    def _add_unknown(self, operation: Operation) -> None:
        effect = self._effect_of(operation)
        if operation.kind is Kind.CAS and operation.expected_revision in self._known_revisions:
            # The key has this revision once, so the operation cannot take effect a second time:
            # no bit is needed to remember that it did.
            bit = 0
        else:
            bit = 1 << self._unknown_count
            self._unknown_count += 1
        by_effect = self._conditional if operation.kind is Kind.CAS else self._blind
        by_effect[effect].append((bit, operation))

    def _effect_of(self, operation: Operation) -> _Effect:
        if operation.kind is Kind.APPEND:
            is_read = any(operation.argument in value for value in self._read_values)
        else:
            is_read = operation.kind is Kind.DELETE or self._is_readable(operation.argument)
        if not is_read and operation.kind is Kind.CAS:
            return (operation.kind, _UNREAD, operation.expected_revision)
        if not is_read:
            return _OVERWRITE
        return (operation.kind, operation.argument, operation.expected_revision)

    def _force(self, returning: int) -> _Frontier:
        """All configurations in which the returning operation has taken effect."""
        reached: _Frontier = {}
        seen: _Frontier = {}
        pending: list[tuple[int, State, int]] = []
        for (taken, state), used_sets in self._frontier.items():
            for used in used_sets:
                if taken & returning:
                    _add_minimal(reached, (taken ^ returning, state), used)
                elif _add_minimal(seen, (taken, state), used):
                    pending.append((taken, state, used))
        while pending:
            taken, state, used = pending.pop()
            if not _is_minimal(seen, (taken, state), used):
                continue
            for bit, next_state, next_used in self._steps(taken, state, used):
                if bit == returning:
                    _add_minimal(reached, (taken, next_state), next_used)
                elif _add_minimal(seen, (taken | bit, next_state), next_used):
                    pending.append((taken | bit, next_state, next_used))
        return reached

    def _steps(self, taken: int, state: State, used: int) -> Iterator[tuple[int, State, int]]:
        """What may take effect next: (bit, or 0 for an unknown write; state; used afterwards)."""
        for bit, operation in self._open.items():
            if not taken & bit:
                following = apply(state, operation)
                if following is not None:
                    yield bit, self._canonical(following), used
        for bit, following in self._unknown_steps(state, used):
            yield 0, following, used | bit

    def _unknown_steps(self, state: State, used: int) -> Iterator[tuple[int, State]]:
        """The writes of unknown outcome that change ``state``, one for each effect."""
        is_unread_reached = False
        for alternatives in self._conditional.values():
            step = self._first_unused(alternatives, used, state)
            if step is not None:
                is_unread_reached |= step[1].value == _UNREAD
                yield step
        for effect, alternatives in self._blind.items():
            if effect != _OVERWRITE or not is_unread_reached:
                step = self._first_unused(alternatives, used, state)
                if step is not None:
                    yield step

    def _first_unused(
        self, alternatives: Sequence[tuple[int, Operation]], used: int, state: State
    ) -> tuple[int, State] | None:
        for bit, operation in alternatives:
            if not used & bit:
                expected = operation.expected_revision
                if expected in self._known_revisions and expected != state.mod_revision:
                    return None
                following = apply(state, operation)
                if following is None or following == state:
                    return None
                return bit, self._canonical(following)
        return None

    def _canonical(self, state: State) -> State:
        if state.value is None or self._is_readable(state.value):
            return state
        return State(_UNREAD, state.mod_revision)

    def _is_readable(self, value: str) -> bool:
        place = bisect_left(self._read_values, value)
        return place < len(self._read_values) and self._read_values[place].startswith(value)

    def _violation(self, operation: Operation, before: _Frontier) -> Violation:
        states = sorted({_describe_state(state) for _, state in before})
        return Violation(
            rule="not linearizable",
            key=self._key,
            reason="no order of effects explains this answer; just before it returned the key "
            f"could only be, with the open operations still to come: {'; '.join(states[:6])}",
            culprits=(operation,),
            window=window_around(self._operations, operation),
        )


def _describe_state(state: State) -> str:
    if state.value is None:
        return "absent"
    value = "a value that no read shows" if state.value == _UNREAD else repr(state.value[-24:])
    known = state.mod_revision != UNKNOWN_REVISION
    return f"{value} @{state.mod_revision if known else '?'}"


def _is_minimal(frontier: _Frontier, configuration: _Configuration, used: int) -> bool:
    return used in frontier.get(configuration, ())


def _add_minimal(frontier: _Frontier, configuration: _Configuration, used: int) -> bool:
    """Add unless a configuration that used up no more is there; drop those that used more."""
    used_sets = frontier.get(configuration)
    if used_sets is None:
        frontier[configuration] = [used]
        return True
    if any(other & used == other for other in used_sets):
        return False
    used_sets[:] = [other for other in used_sets if used & other != used]
    used_sets.append(used)
    return True
