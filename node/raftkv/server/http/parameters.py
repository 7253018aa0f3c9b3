"""The values that query parameters take, checked. Pure; called by the parsers of requests."""

import re
from typing import Final

from raftkv.node.events import Consistency
from raftkv.server.http.problems import BAD_PARAMETER, LEASE_NOT_FOUND, Kind, Refused, quoted

TIMEOUT_SECONDS_DEFAULT: Final = 5.0
TIMEOUT_SECONDS_MAX: Final = 60.0

_REVISION_MAX: Final = 2**63 - 1
_NUMBER: Final = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
#: One to four parts, each unit once and the largest first: 1m30s, 500ms.
DURATION: Final = rf"(?=[0-9])(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?"
_DURATION: Final = re.compile(DURATION)
_DURATION_SECONDS: Final = (3600.0, 60.0, 1.0, 0.001)
_TEN_YEARS_SECONDS: Final = 10 * 366 * 24 * 3600.0
#: As JSON and queries spell the id of a member or a lease.
HEX_ID: Final = r"[0-9a-f]{16}"
_HEX_ID: Final = re.compile(HEX_ID)


def consistency(text: str | None) -> Consistency:
    """What a read promises."""
    match text:
        case None | "linearizable":
            return Consistency.LINEARIZABLE
        case "local":
            return Consistency.LOCAL
        case "bounded":
            return Consistency.BOUNDED
        case _:
            raise Refused(BAD_PARAMETER, "consistency is linearizable, bounded or local")


def max_stale(text: str | None, promised: Consistency) -> float:
    """How old in seconds a bounded read may be; 0 for the others, which take no such limit."""
    if promised is not Consistency.BOUNDED:
        if text is not None:
            raise Refused(BAD_PARAMETER, "max_stale belongs to consistency=bounded")
        return 0.0
    if text is None:
        raise Refused(BAD_PARAMETER, "consistency=bounded needs max_stale, as in max_stale=5s")
    return duration_ms("max_stale", text) / 1000


def min_revision(text: str | None) -> int:
    """The revision to wait for; 0: none."""
    return 0 if text is None else number("min_revision", text, 0, _REVISION_MAX, "2^63 - 1")


def revision(text: str | None) -> int:
    """The revision to read; 0: now."""
    return 0 if text is None else number("revision", text, 1, _REVISION_MAX, "2^63 - 1")


def number(name: str, text: str, least: int, most: int, most_text: str) -> int:
    """A decimal number from ``least`` to ``most``, which a problem spells ``most_text``."""
    is_number = text.isascii() and text.isdigit() and len(text) <= 19
    if not (is_number and least <= int(text) <= most):
        raise Refused(BAD_PARAMETER, f"{name} is a number from {least} to {most_text}")
    return int(text)


def timeout(text: str | None) -> float:
    """A duration in seconds."""
    if text is None:
        return TIMEOUT_SECONDS_DEFAULT
    seconds = _seconds(text)
    if not 0.0 < seconds <= TIMEOUT_SECONDS_MAX:
        raise Refused(BAD_PARAMETER, "timeout is a duration above 0 and up to 60s, as in 500ms")
    return seconds


def duration_ms(
    name: str,
    text: str,
    *,
    most_seconds: float = _TEN_YEARS_SECONDS,
    most_text: str = "10 years",
    kind: Kind = BAD_PARAMETER,
) -> int:
    """A duration in whole milliseconds, at least 1."""
    milliseconds = round(_seconds(text) * 1000)
    if not 1 <= milliseconds <= most_seconds * 1000:
        detail = f"{name} is a duration of at least 1ms and up to {most_text}, as in 30s or 1m30s"
        raise Refused(kind, detail)
    return milliseconds


def _seconds(text: str) -> float:
    """What ``text`` says, or 0 if it is no duration."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return 0.0
    parts = zip(match.groups(), _DURATION_SECONDS, strict=True)
    return sum(float(part) * unit for part, unit in parts if part is not None)


def hex_id(name: str, text: str, kind: Kind = BAD_PARAMETER) -> int:
    """The id of a member or a lease."""
    if _HEX_ID.fullmatch(text) is None:
        raise Refused(kind, f"{name} is 16 hex digits in lower case, not {quoted(text)}")
    return int(text, 16)


def lease(name: str, text: str, kind: Kind = BAD_PARAMETER) -> int:
    """The id of a lease to attach a key to: never 0, which would mean none."""
    number = hex_id(name, text, kind)
    if not number:
        raise Refused(LEASE_NOT_FOUND, f"{name}: there is no such lease")
    return number


def flag(name: str, text: str | None) -> bool:
    """True or false; false by default."""
    match text:
        case None | "false":
            return False
        case "true":
            return True
        case _:
            raise Refused(BAD_PARAMETER, f"{name} is true or false")
