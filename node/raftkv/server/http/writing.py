"""How a write is asked for, whatever it writes: parameters of every write. Pure."""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from raftkv.server.http import parameters as take
from raftkv.server.http.targets import parse_query

#: Query parameters of every write.
WRITE_PARAMETERS: Final = ("redirect", "timeout")


class HowToWrite(NamedTuple):
    """What is asked of a write besides its meaning."""

    timeout_seconds: float = take.TIMEOUT_SECONDS_DEFAULT
    may_redirect: bool = False  # answer with the leader's address rather than forward


_AS_USUAL: Final = HowToWrite()


def take_how_to_write(given: Mapping[str, str]) -> HowToWrite:
    """From the parameters that are named in `WRITE_PARAMETERS`."""
    return HowToWrite(
        take.timeout(given.get("timeout")), take.flag("redirect", given.get("redirect"))
    )


def parse_write_query(query: str, more: Collection[str] = ()) -> tuple[HowToWrite, dict[str, str]]:
    """How to write, and all parameters; those in ``more`` are the caller's to look at."""
    if not query:
        return _AS_USUAL, {}
    given = parse_query(query, (*more, *WRITE_PARAMETERS))
    return take_how_to_write(given), given
