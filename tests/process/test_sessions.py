"""The judgement of watches is worth something: what a watch may not do, it refuses."""

import re
from collections.abc import Callable

import msgspec
import pytest

from raftkv.client import Event, Item
from tests.linearizability.history import Certainty, Kind, Operation
from tests.process.sessions import check_told


def put(key: bytes, revision: int, value: bytes) -> Event:
    return Event("put", key, Item(key, value, 1, revision, 1, revision), revision)


def written(kind: Kind, revision: int, argument: str = "", key: str = "a") -> Operation:
    return Operation(1, key, kind, 0, 1, argument=argument, existed=True, revision=revision)


def untold(kind: Kind, certainty: Certainty, argument: str = "") -> Operation:
    return Operation(2, "a", kind, 0, certainty=certainty, argument=argument)


TOLD = (
    put(b"counter", 1, b"1"),
    put(b"a", 2, b"1.1;"),
    put(b"a", 3, b"1.1;1.2;"),
    Event("delete", b"a", None, 4),
    put(b"a", 5, b"1.3;"),
    put(b"a", 6, b"1.3;2.1;"),
    Event("delete", b"a", None, 7),
    put(b"ledger", 8, b"1.4;"),
)
HISTORY = (
    written(Kind.PUT, 2, "1.1;"),
    written(Kind.APPEND, 3, "1.2;"),
    written(Kind.GET, 3),
    written(Kind.DELETE, 4),
    written(Kind.CAS, 5, "1.3;"),
    untold(Kind.APPEND, Certainty.UNKNOWN, "2.1;"),
    untold(Kind.DELETE, Certainty.UNKNOWN),
    untold(Kind.PUT, Certainty.UNKNOWN, "2.2;"),
    untold(Kind.PUT, Certainty.NOT_COMMITTED, "2.3;"),
    written(Kind.PUT, 8, "1.4;", "ledger"),
)


def without(place: int) -> tuple[Event, ...]:
    return TOLD[:place] + TOLD[place + 1 :]


def instead(place: int, event: Event) -> tuple[Event, ...]:
    return (*TOLD[:place], event, *TOLD[place + 1 :])


def test_what_was_answered_and_what_may_have_been_done_is_accepted() -> None:
    assert check_told(TOLD, HISTORY) == 5


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (without(1), "1 acknowledged writes were not told"),
        (without(3), "1 acknowledged writes were not told"),
        (without(7), "1 acknowledged writes were not told"),
        ((*TOLD, TOLD[2]), "told twice"),
        (instead(1, put(b"a", 2, b"1.2;")), "told b'1.2;', not b'1.1;'"),
        (instead(2, put(b"a", 3, b"1.2;")), "told b'1.2;', not b'1.1;1.2;'"),
        (instead(3, put(b"a", 4, b"1.2;")), "told b'1.2;', not None"),
        ((*TOLD, put(b"a", 9, b"2.3;")), "not made by any answer"),
        ((*TOLD, put(b"a", 9, b"1.1;")), "not made by any answer"),
        ((*TOLD, put(b"a", 9, b"2.1;")), "not made by any answer"),
        ((*TOLD, Event("delete", b"a", None, 9)), "not made by any answer"),
        ((*TOLD, Event("delete", b"ledger", None, 9)), "not made by any answer"),
    ],
)
def test_a_watch_that_does_not_fit_the_answers_is_refused(
    told: tuple[Event, ...], reason: str
) -> None:
    with pytest.raises(AssertionError, match=re.escape(reason)):
        check_told(told, HISTORY)


@pytest.mark.parametrize(
    "change",
    [
        lambda write: msgspec.structs.replace(write, certainty=Certainty.NOT_COMMITTED),
        lambda write: msgspec.structs.replace(write, succeeded=False),
    ],
)
def test_a_write_that_was_said_not_to_be_made_may_not_be_told(
    change: Callable[[Operation], Operation],
) -> None:
    history = [change(each) if each.kind is Kind.CAS else each for each in HISTORY]
    with pytest.raises(AssertionError, match=r"a put b'1\.3;' of b'a' at 5, which was not made"):
        check_told(TOLD, history)


def test_two_writes_with_one_revision_are_refused() -> None:
    with pytest.raises(AssertionError, match="the same revision"):
        check_told(TOLD, [*HISTORY, written(Kind.PUT, 2, "3.1;")])
