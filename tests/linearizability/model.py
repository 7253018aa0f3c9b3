"""The sequential specification: one key as an atomic register with revisions.

`apply` is the whole meaning of the API's writes and reads for one key. Both checkers use it, the
brute-force one of the tests too, so that what they can disagree about is the search alone.

The revision of a write whose answer was lost is not known. The state after it carries
`UNKNOWN_REVISION`, which the next answer that names the key's mod revision makes known.
"""

from typing import Final, NamedTuple

from tests.linearizability.history import Certainty, Kind, Operation

UNKNOWN_REVISION: Final = -1


class State(NamedTuple):
    """A key: its value, or None when it does not exist, and the revision that wrote it (0)."""

    value: str | None
    mod_revision: int


ABSENT: Final = State(None, 0)


def apply(state: State, operation: Operation) -> State | None:
    """The state after ``operation``, or None if its answer contradicts ``state``.

    An operation of unknown outcome has no answer to contradict: it leaves the state it would
    leave if it took effect here.
    """
    if operation.certainty is Certainty.KNOWN:
        known = _learn(state, operation)
        return None if known is None else _effect(known, operation)
    return _effect(state, operation)


def _learn(state: State, operation: Operation) -> State | None:
    """``state`` as the answer confirms it, with its revision filled in; None: contradicted."""
    exists = state.value is not None
    if operation.existed is not None and operation.existed != exists:
        return None
    if operation.kind is Kind.GET and operation.value != state.value:
        return None
    if operation.mod_revision not in (None, state.mod_revision):
        if state.mod_revision != UNKNOWN_REVISION or operation.mod_revision == 0:
            return None
        state = State(state.value, operation.mod_revision)
    if operation.kind is Kind.CAS:
        matches = may_match(state, operation.expected_revision)
        is_certain = state.mod_revision != UNKNOWN_REVISION or not matches
        if matches != operation.succeeded and is_certain:
            return None
    return state


def _effect(state: State, operation: Operation) -> State:
    revision = UNKNOWN_REVISION if operation.revision is None else operation.revision
    match operation.kind:
        case Kind.PUT:
            return State(operation.argument, revision)
        case Kind.APPEND:
            return State((state.value or "") + operation.argument, revision)
        case Kind.DELETE:
            return ABSENT
        case Kind.CAS:
            if not operation.succeeded or not may_match(state, operation.expected_revision):
                return state
            return State(operation.argument, revision)
        case Kind.GET:
            return state


def may_match(state: State, expected_revision: int) -> bool:
    """Whether a precondition on the mod revision can hold in ``state``."""
    if state.mod_revision == UNKNOWN_REVISION:
        return expected_revision != 0
    return state.mod_revision == expected_revision
