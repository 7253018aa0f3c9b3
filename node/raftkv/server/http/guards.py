"""What the headers of a write wrap around its command: Idempotency-Key and X-RaftKV-Fence. Pure.

    guards = parse_guards(request.headers)
    ... once the body is there:
    command = guarded(command, guards, request, body)

Whether a fence still holds, and whether a key was used before, is decided when the command is
applied (node design, rule 22).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from multidict import istr

from raftkv.kv.commands import Fenceable, Fenced, LockCommand, Once
from raftkv.server.http.problems import BAD_HEADER, Refused
from raftkv.server.http.requests import Headers
from raftkv.server.http.targets import KEY_BYTES_MAX

# An outcome can be replayed for at least so long: log time never runs ahead of real time.
# Ten minutes are promised, and log time may lag by a tick when a record is made.
IDEMPOTENCY_KEEP_MS: Final = 10 * 60 * 1000 + 1000

_FENCE: Final = istr("X-RaftKV-Fence")
_IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
_IF_MATCH: Final = istr("If-Match")
_IF_NONE_MATCH: Final = istr("If-None-Match")

_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,128}")
_NAME: Final = re.compile(r"(?:[\x21-\x24\x26-\x7e]|%[0-9A-Fa-f]{2}){1,1533}")
_TOKEN: Final = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)

Write = TypeVar("Write", bound=Fenceable | LockCommand)


class Asked(Protocol):
    """A request, as far as it matters here."""

    method: str
    target: str
    headers: Headers


@dataclass(frozen=True, slots=True)
class Guards:
    """What was asked besides the write itself."""

    idempotency_key: bytes | None
    fence: tuple[bytes, int] | None  # name and fencing token of a lock


def parse_guards(headers: Headers) -> Guards | None:
    """What guards a write; None, as for most: nothing."""
    key, fence = headers.get(_IDEMPOTENCY_KEY), headers.get(_FENCE)
    if key is None and fence is None:
        return None
    return Guards(
        None if key is None else _idempotency_key(headers.getall(_IDEMPOTENCY_KEY, [])),
        None if fence is None else _fence(headers.getall(_FENCE, [])),
    )


def refuse_guards(headers: Headers) -> None:
    """Refuse the headers on a call that is no command: heeding them would be a broken promise."""
    for name in (_IDEMPOTENCY_KEY, _FENCE):
        if headers.get(name) is not None:
            raise Refused(BAD_HEADER, f"this call takes no {name}")


def refuse_fence(guards: Guards | None) -> None:
    """Refuse X-RaftKV-Fence on a call that is about a lock itself."""
    if guards is not None and guards.fence is not None:
        raise Refused(BAD_HEADER, f"a call about a lock takes no {_FENCE}")


def guarded(
    command: Write, guards: Guards | None, request: Asked, body: bytes
) -> Write | Fenced | Once:
    """``command`` inside what ``guards`` ask for."""
    if guards is None:
        return command
    inner: Write | Fenced = command
    if guards.fence is not None:
        assert isinstance(command, Fenceable), "refused by refuse_fence"
        inner = Fenced(*guards.fence, command)
    if guards.idempotency_key is None:
        return inner
    return Once(guards.idempotency_key, fingerprint(request, body), IDEMPOTENCY_KEEP_MS, inner)


def fingerprint(request: Asked, body: bytes) -> bytes:
    """16 bytes that tell one request from another (node design, rule 22)."""
    digest = blake2b(digest_size=16)
    headers = request.headers
    for name in (_IF_MATCH, _IF_NONE_MATCH, _FENCE):
        lines = ",".join(headers.getall(name, []))
        _add(digest.update, lines.encode("utf-8", "surrogateescape"))
    for part in (request.method.encode(), request.target.encode(), body):
        _add(digest.update, part)
    return digest.digest()


def _add(update: "_Update", part: bytes) -> None:
    """Each part behind its length, or two requests could be one row of bytes."""
    update(len(part).to_bytes(8, "big"))
    update(part)


class _Update(Protocol):
    def __call__(self, data: bytes, /) -> None: ...


def _idempotency_key(lines: Sequence[str]) -> bytes:
    if len(lines) != 1 or _VISIBLE.fullmatch(lines[0]) is None:
        detail = f"{_IDEMPOTENCY_KEY} is given once and has 1 to 128 visible ASCII characters"
        raise Refused(BAD_HEADER, detail)
    return lines[0].encode("ascii")


def _fence(lines: Sequence[str]) -> tuple[bytes, int]:
    name, _, token = lines[0].rpartition(":")
    is_good = len(lines) == 1 and _NAME.fullmatch(name) and _TOKEN.fullmatch(token)
    key = unquote_to_bytes(name) if is_good else b""
    if not (1 <= len(key) <= KEY_BYTES_MAX and int(token) < 2**63):
        detail = (
            f"{_FENCE} is given once, as <name>:<token>: the name of a lock, percent-encoded, "
            "and its fencing token"
        )
        raise Refused(BAD_HEADER, detail)
    return key, int(token)
