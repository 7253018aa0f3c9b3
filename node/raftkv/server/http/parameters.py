"""The values that query parameters take, checked. Pure; called by the parsers of requests."""

import re
from typing import Final

from raftkv.node.events import Consistency
from raftkv.server.http.problems import BAD_PARAMETER, NOT_IMPLEMENTED, Refused

TIMEOUT_SECONDS_DEFAULT: Final = 5.0
TIMEOUT_SECONDS_MAX: Final = 60.0

_REVISION_MAX: Final = 2**63 - 1
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_DURATION_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def consistency(text: str | None) -> Consistency:
    """What a read promises."""
    match text:
        case None | "linearizable":
            return Consistency.LINEARIZABLE
        case "local":
            return Consistency.LOCAL
        case "bounded":
            raise Refused(NOT_IMPLEMENTED, "this version does not implement consistency=bounded")
        case _:
            raise Refused(BAD_PARAMETER, "consistency is linearizable or local")


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
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _DURATION_SECONDS[match[2]] if match else 0.0
    if not 0.0 < seconds <= TIMEOUT_SECONDS_MAX:
        raise Refused(BAD_PARAMETER, "timeout is a duration above 0 and up to 60s, as in 500ms")
    return seconds


def flag(name: str, text: str | None) -> bool:
    """True or false; false by default."""
    match text:
        case None | "false":
            return False
        case "true":
            return True
        case _:
            raise Refused(BAD_PARAMETER, f"{name} is true or false")
