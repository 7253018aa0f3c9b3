"""Who may do what: roles on prefixes of keys, and what a request touches. Pure.

A token has grants (`raftkv.server.tokens` knows which); a request touches keys, ranges, leases or
the cluster. Every handler says what its request touches, before anything else happens:

    authorise(request, ReadKey(key))

and calls it with *everything*: each comparison and operation of a transaction, the key whose
previous value is returned, the lease that a key is attached to. A long answer (a watch, a stream)
calls it again from time to time: the token is looked up anew, and may have been revoked.

A refusal never names a key: who may not read a key may not learn that it exists.

Source: reference/faults.md, section 5 (AuthZ) and section 6, rows 22 to 24.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

from raftkv.kv.ranges import end_of_prefix
from raftkv.server.http.problems import FORBIDDEN, Refused
from raftkv.server.http.requests import Headers
from raftkv.server.http.targets import KEY_BYTES_MAX

CHALLENGE: Final = (("WWW-Authenticate", "Bearer"),)


class Role(IntEnum):
    """What a grant allows; each role includes those before it."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Grant:
    """``role`` over all keys that begin with ``prefix``; an administrator's prefix is empty."""

    role: Role
    prefix: bytes = b""


class ReadKey(NamedTuple):
    """Look at a key: its value, its revisions, or whether it exists."""

    key: bytes


class ReadRange(NamedTuple):
    """Look at the keys from ``start`` to before ``end`` (None: to the last key)."""

    start: bytes
    end: bytes | None


class WriteKey(NamedTuple):
    """Change a key. Answering with its previous item is reading it, and stated beside."""

    key: bytes


class WriteRange(NamedTuple):
    """Remove the keys from ``start`` to before ``end`` (None: to the last key)."""

    start: bytes
    end: bytes | None


class CreateLease(NamedTuple):
    """Make a lease, which has no keys yet: any prefix will do."""


class ReadLease(NamedTuple):
    """Look at a lease that has ``keys`` attached."""

    keys: tuple[bytes, ...]


class WriteLease(NamedTuple):
    """Keep a lease alive, revoke it, or attach a key to it, which has ``keys`` attached."""

    keys: tuple[bytes, ...]


class AnyRole(NamedTuple):
    """What every valid token may: the node's and the cluster's status, and metrics."""


class Admin(NamedTuple):
    """Change or copy the cluster as a whole."""


Access = (
    ReadKey
    | ReadRange
    | WriteKey
    | WriteRange
    | CreateLease
    | ReadLease
    | WriteLease
    | AnyRole
    | Admin
)


class Identity(Protocol):
    """Who sent a request."""

    def grants(self) -> Sequence[Grant]:
        """What its token allows *now*. Raises Refused (401) when it was revoked."""
        ...


#: From a request's headers to who sent it. Raises Refused (401).
Authenticate = Callable[[Headers], Identity]


class Asked(Protocol):
    """A request, as far as it matters here."""

    identity: Identity | None
    is_authorised: bool


def authorise(request: Asked, *accesses: Access) -> None:
    """Refuse with 403 unless the request's token allows all of ``accesses``.

    Without a token file (``request.identity`` is None) everything is allowed.
    """
    identity = request.identity
    if identity is None:
        return
    grants = identity.grants()
    if not all(allows(grants, access) for access in accesses):
        raise Refused(FORBIDDEN, "the token does not allow this")
    request.is_authorised = True


def allows(grants: Sequence[Grant], access: Access) -> bool:
    """Whether ``access`` is within the grants of one token.

    A range must lie within one grant; the keys of a lease each within any.
    """
    match access:
        case ReadKey():
            return _covers_key(grants, Role.READ, access.key)
        case WriteKey():
            return _covers_key(grants, Role.WRITE, access.key)
        case ReadRange():
            return _covers_range(grants, Role.READ, access.start, access.end)
        case WriteRange():
            return _covers_range(grants, Role.WRITE, access.start, access.end)
        case ReadLease():
            return _covers_keys(grants, Role.READ, access.keys)
        case WriteLease():
            return _covers_keys(grants, Role.WRITE, access.keys)
        case CreateLease():
            return _has(grants, Role.WRITE)
        case AnyRole():
            return _has(grants, Role.READ)
        case Admin():
            return _has(grants, Role.ADMIN)


def cursor_within(grants: Sequence[Grant], last: bytes) -> bytes | None:
    """Where a list of names goes on behind ``last``; None: nothing may be read from there on.

    A name that may not be read does not become a cursor, which the client could decode: the place
    before the next prefix of the grants serves as well, since nothing between may be read.
    """
    if allows(grants, ReadKey(last)):
        return last
    beyond = min((grant.prefix for grant in grants if grant.prefix > last), default=None)
    return None if beyond is None else _before(beyond)


def _before(key: bytes) -> bytes:
    """The last name before ``key``, which is not empty."""
    *front, byte = key
    if byte == 0:
        return bytes(front)
    return bytes((*front, byte - 1)) + b"\xff" * (KEY_BYTES_MAX - len(key))


def _has(grants: Iterable[Grant], role: Role) -> bool:
    return any(grant.role >= role for grant in grants)


def _covers_key(grants: Iterable[Grant], role: Role, key: bytes) -> bool:
    return any(grant.role >= role and key.startswith(grant.prefix) for grant in grants)


def _covers_keys(grants: Sequence[Grant], role: Role, keys: Iterable[bytes]) -> bool:
    return _has(grants, role) and all(_covers_key(grants, role, key) for key in keys)


def _covers_range(grants: Iterable[Grant], role: Role, start: bytes, end: bytes | None) -> bool:
    return any(grant.role >= role and _contains(grant.prefix, start, end) for grant in grants)


def _contains(prefix: bytes, start: bytes, end: bytes | None) -> bool:
    """Whether all of [start, end) begins with ``prefix``, also where the range is empty."""
    if not start.startswith(prefix):
        return False
    last = end_of_prefix(prefix)
    return last is None or (end is not None and end <= last)
