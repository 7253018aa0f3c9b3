"""What a request for a watch asks: what is watched, and from where on. Pure.

Called by `raftkv.server.http.calls.watch`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from multidict import istr

from raftkv.server.http import parameters as take
from raftkv.server.http.authorisation import ReadKey, ReadRange
from raftkv.server.http.problems import BAD_HEADER, BAD_KEY, BAD_PARAMETER, Refused
from raftkv.server.http.requests import Headers
from raftkv.server.http.targets import KEY_BYTES_MAX, parse_query_bytes, query_text
from raftkv.server.watches import Wanted

_LAST_EVENT_ID: Final = istr("Last-Event-ID")
#: Query parameters of a watch.
WATCH_PARAMETERS: Final = ("prefix", "key", "from", "prev", "timeout")
_BYTES: Final = frozenset({"prefix", "key"})  # of any value
_EVENT_ID: Final = re.compile(r"([0-9a-f]{16}):([0-9]{1,19})")
_REVISION_MAX: Final = 2**63 - 1


class Place(NamedTuple):
    """Where a watch begins: after this revision."""

    revision: int
    epoch: str | None  # of the cluster that the revision belongs to; None: not said


@dataclass(frozen=True, slots=True)
class Watch:
    """Tell what changes."""

    wanted: Wanted
    after: Place | None  # None: begin now
    timeout_seconds: float  # for finding out what now is

    @property
    def access(self) -> ReadKey | ReadRange:
        """What the client must be allowed to see."""
        return ReadRange(*self.wanted.bounds) if self.wanted.is_prefix else ReadKey(self.wanted.key)


def parse_watch(query: str, headers: Headers) -> Watch:
    """GET /v1/watch. What Last-Event-ID says is newer than what ``from`` said once."""
    given = parse_query_bytes(query, WATCH_PARAMETERS)
    text = {name: query_text(name, value) for name, value in given.items() if name not in _BYTES}
    with_previous = take.flag("prev", text.get("prev"))
    wanted = Wanted(*_keys(given), with_previous)
    after = None
    if (last := headers.get(_LAST_EVENT_ID)) is not None and last:
        after = _place(last)
        if after is None or after.epoch is None:
            raise Refused(BAD_HEADER, "Last-Event-ID is the id of an event: EPOCH:REVISION")
    elif (begin := text.get("from")) is not None:
        after = _place(begin)
        if after is None:
            raise Refused(BAD_PARAMETER, "from is a revision, or the id of an event")
    return Watch(wanted, after, take.timeout(text.get("timeout")))


def _keys(given: Mapping[str, bytes]) -> tuple[bytes, bool]:
    """The key or prefix, and whether it is a prefix."""
    if ("key" in given) == ("prefix" in given):
        raise Refused(BAD_PARAMETER, "a watch has a key or a prefix; an empty prefix means all")
    if "prefix" in given:
        return given["prefix"], True
    key = given["key"]
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise Refused(BAD_KEY, f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
    return key, False


def _place(text: str) -> Place | None:
    if (match := _EVENT_ID.fullmatch(text)) is not None:
        epoch, number = match[1], match[2]
    elif text.isascii() and text.isdigit() and len(text) <= 19:
        epoch, number = None, text
    else:
        return None
    revision = int(number)
    return Place(revision, epoch) if revision <= _REVISION_MAX else None
