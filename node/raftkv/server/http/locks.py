"""Locks over HTTP: what is asked, and the bodies of the answers. Pure."""

import base64
from dataclasses import dataclass
from typing import Final

import msgspec

from raftkv.kv.commands import AcquireLock, KeepLockAlive, ReleaseLock
from raftkv.kv.outcomes import LockHeld, LockReleased
from raftkv.node.events import ListLocks, LockInfo, LocksFound
from raftkv.server.http import parameters as take
from raftkv.server.http.bodies import Duration, bytes_field, decode_body
from raftkv.server.http.leases import LIST_PARAMETERS, page_limit
from raftkv.server.http.problems import BAD_BODY, BAD_PARAMETER, Refused, quoted
from raftkv.server.http.reading import HowToRead, parse_read_query
from raftkv.server.http.targets import key_of_base64url
from raftkv.server.http.texts import Encoding, duration_text, hex_id, text_of

OWNER_BYTES_MAX: Final = 255
WAITERS_MAX: Final = 1000  # of one lock
WAIT_SECONDS_MAX: Final = 600.0
# The node leaves the queue when the wait is over. The place lives on, as log time may be some ticks
# behind when it is taken: it would end too early, and the lock pass by who still waits.
_PLACE_LIVES_ON_MS: Final = 1000


class AcquireBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of `POST /v1/locks/{name}`."""

    ttl: Duration
    wait: Duration | None = None
    owner: str | None = None  # default: a random one
    owner_encoding: Encoding = "utf-8"


class HeldLock(msgspec.Struct):
    """The lock is held under the fencing token ``token``, the id of ``lease`` as a number."""

    name: str
    name_encoding: str
    token: int
    lease: str
    ttl: str
    revision: int
    owner: str | msgspec.UnsetType = msgspec.UNSET
    owner_encoding: str | msgspec.UnsetType = msgspec.UNSET


class ReleasedLock(msgspec.Struct):
    """The lock went to the next waiter, or nobody."""

    name: str
    name_encoding: str
    released: bool
    revision: int


class Waiter(msgspec.Struct):
    """Who waits for a lock."""

    owner: str
    owner_encoding: str


class ListedLock(msgspec.Struct):
    """A lock that is held, for at least ``remaining``; the next waiter first."""

    name: str
    name_encoding: str
    owner: str
    owner_encoding: str
    token: int
    lease: str
    ttl: str
    remaining: str
    waiters: list[Waiter]


class LockBody(ListedLock):
    """One lock."""

    revision: int


class LocksBody(msgspec.Struct):
    """A page of the locks that are held, by name."""

    revision: int
    locks: list[ListedLock]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class TakeLock:
    """What `POST /v1/locks/{name}` asks."""

    command: AcquireLock
    wait_seconds: float


def parse_acquire(name: bytes, body: bytes, random_owner: bytes) -> TakeLock:
    """POST /v1/locks/{name}; ``random_owner`` stands for an owner that is not named."""
    asked = decode_body(body, AcquireBody)
    ttl_ms = take.duration_ms("ttl", asked.ttl, kind=BAD_BODY)
    wait_ms = 0
    if asked.wait is not None and asked.wait not in ("0s", "0ms"):
        wait_ms = take.duration_ms(
            "wait", asked.wait, most_seconds=WAIT_SECONDS_MAX, most_text="10m", kind=BAD_BODY
        )
    owner = random_owner
    if asked.owner is not None:
        owner = bytes_field("owner", asked.owner, asked.owner_encoding)
    if not 1 <= len(owner) <= OWNER_BYTES_MAX:
        raise Refused(BAD_BODY, f"owner has 1 to {OWNER_BYTES_MAX} bytes")
    place_ms = wait_ms + _PLACE_LIVES_ON_MS if wait_ms else 0
    return TakeLock(AcquireLock(name, owner, ttl_ms, place_ms, WAITERS_MAX), wait_ms / 1000)


def keep_alive(name: bytes, token: str | None) -> KeepLockAlive:
    """POST /v1/locks/{name}/keepalive."""
    return KeepLockAlive(name, _token(token))


def release(name: bytes, token: str | None) -> ReleaseLock:
    """DELETE /v1/locks/{name}."""
    return ReleaseLock(name, _token(token))


def parse_list(query: str) -> tuple[HowToRead, ListLocks]:
    """GET /v1/locks."""
    how, given = parse_read_query(query, LIST_PARAMETERS)
    after = _name_at(given["cursor"]) if "cursor" in given else b""
    return how, ListLocks(after, page_limit(given.get("limit")))


def held_body(name: bytes, held: LockHeld, owner: bytes | None = None) -> HeldLock:
    """The lock was taken or kept."""
    ttl = duration_text(held.ttl_ms)
    body = HeldLock(*text_of(name), held.token, hex_id(held.token), ttl, held.revision)
    if owner is not None:
        body.owner, body.owner_encoding = text_of(owner)
    return body


def released_body(name: bytes, released: LockReleased) -> ReleasedLock:
    """The lock was given back."""
    return ReleasedLock(*text_of(name), released=True, revision=released.revision)


def lock_body(lock: LockInfo, revision: int) -> LockBody:
    """One lock."""
    return LockBody(**msgspec.structs.asdict(_listed(lock)), revision=revision)


def locks_body(found: LocksFound) -> LocksBody:
    """A page."""
    cursor = None
    if found.next_after is not None:
        cursor = base64.urlsafe_b64encode(found.next_after).rstrip(b"=").decode("ascii")
    return LocksBody(found.revision, [_listed(each) for each in found.locks], cursor)


def _listed(lock: LockInfo) -> ListedLock:
    return ListedLock(
        *text_of(lock.name),
        *text_of(lock.owner),
        lock.token,
        hex_id(lock.token),
        duration_text(lock.ttl_ms),
        duration_text(lock.remaining_ms),
        [Waiter(*text_of(owner)) for owner in lock.waiters],
    )


def _token(text: str | None) -> int:
    if text is None:
        raise Refused(BAD_PARAMETER, "token is needed: the fencing token that the lock came with")
    return take.number("token", text, 1, 2**63 - 1, "2^63 - 1")


def _name_at(cursor: str) -> bytes:
    try:
        if cursor.isascii() and "%" not in cursor:
            return key_of_base64url(cursor)
    except Refused:
        pass
    raise Refused(BAD_PARAMETER, f"cursor {quoted(cursor)} is none of this server")
