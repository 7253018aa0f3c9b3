"""How a read is asked for, and what it may say of itself: parameters of every read. Pure.

What was found without asking anybody (`Stale`) states its age; a bounded read that had to ask
is as good as a linearizable one, and says so.
"""

from collections.abc import Collection, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from raftkv.node.events import Consistency, Found, Stale
from raftkv.server.http import parameters as take
from raftkv.server.http.targets import parse_query

#: Query parameters of every read.
READ_PARAMETERS: Final = ("consistency", "max_stale", "min_revision", "timeout")


class HowToRead(NamedTuple):
    """What is asked of a read, whatever it reads: `DriverApi.read` takes it in this order."""

    consistency: Consistency = Consistency.LINEARIZABLE
    min_revision: int = 0
    timeout_seconds: float = take.TIMEOUT_SECONDS_DEFAULT
    max_stale_seconds: float = 0.0  # for Consistency.BOUNDED


LINEARIZABLE: Final = HowToRead()


def take_how_to_read(given: Mapping[str, str]) -> HowToRead:
    """From the parameters that are named in `READ_PARAMETERS`."""
    promised = take.consistency(given.get("consistency"))
    return HowToRead(
        promised,
        take.min_revision(given.get("min_revision")),
        take.timeout(given.get("timeout")),
        take.max_stale(given.get("max_stale"), promised),
    )


def parse_read_query(query: str, more: Collection[str] = ()) -> tuple[HowToRead, dict[str, str]]:
    """How to read, and all parameters; those in ``more`` are the caller's to look at."""
    if not query:
        return LINEARIZABLE, {}
    given = parse_query(query, (*more, *READ_PARAMETERS))
    return take_how_to_read(given), given


Kind = TypeVar("Kind", bound=Found)


class Reading(msgspec.Struct, Generic[Kind], frozen=True):
    """What a read found, and what it promises."""

    found: Kind
    consistency: Consistency
    is_stale: bool = False
    age_seconds: float | None = None  # of a stale one; None: nobody knows


def reading_of(answer: Found | Stale, asked: Consistency, kind: type[Kind]) -> Reading[Kind]:
    """The answer to a read that was asked for at the consistency ``asked``."""
    if isinstance(answer, Stale):
        assert isinstance(answer.found, kind)
        return Reading(answer.found, asked, is_stale=True, age_seconds=answer.age_seconds)
    assert isinstance(answer, kind)
    return Reading(answer, Consistency.LINEARIZABLE if asked is Consistency.BOUNDED else asked)
