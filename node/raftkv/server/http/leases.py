"""Leases over HTTP: what is asked, and the bodies of the answers. Pure."""

from typing import Final

import msgspec

from raftkv.kv.commands import GrantLease
from raftkv.kv.outcomes import LeaseGranted, LeaseRevoked
from raftkv.node.events import LeaseInfo, LeasesFound, ListLeases
from raftkv.server.http import parameters as take
from raftkv.server.http.bodies import Duration, decode_body
from raftkv.server.http.problems import BAD_BODY, BAD_ID
from raftkv.server.http.reading import HowToRead, parse_read_query
from raftkv.server.http.texts import duration_text, hex_id, text_of

#: So that the end of a lease is one bounded command (node design, rule 24).
KEYS_MAX: Final = 10_000
PAGE_MAX: Final = 1000
#: Query parameters of a list, beside those of every read.
LIST_PARAMETERS: Final = ("cursor", "limit")


class GrantBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of `POST /v1/leases`."""

    ttl: Duration


class KeyName(msgspec.Struct):
    """A key that is attached to a lease."""

    key: str
    key_encoding: str


class GrantedLease(msgspec.Struct):
    """The lease was made, or begins to live anew."""

    id: str
    ttl: str
    revision: int


class RevokedLease(msgspec.Struct):
    """The lease ended, and ``deleted`` keys with it."""

    id: str
    deleted: int
    revision: int


class LeaseBody(msgspec.Struct):
    """One lease; it lives for at least ``remaining``."""

    id: str
    ttl: str
    remaining: str
    keys: list[KeyName]
    revision: int


class ListedLease(msgspec.Struct):
    """One lease of a list."""

    id: str
    ttl: str
    remaining: str


class LeasesBody(msgspec.Struct):
    """A page of leases, in the order in which they were granted."""

    revision: int
    leases: list[ListedLease]
    next_cursor: str | None


def lease_id(text: str) -> int:
    """The lease that a path names."""
    return take.hex_id("a lease's id", text, BAD_ID)


def parse_grant(body: bytes) -> GrantLease:
    """POST /v1/leases."""
    ttl_ms = take.duration_ms("ttl", decode_body(body, GrantBody).ttl, kind=BAD_BODY)
    return GrantLease(ttl_ms, KEYS_MAX)


def parse_list(query: str) -> tuple[HowToRead, ListLeases]:
    """GET /v1/leases."""
    how, given = parse_read_query(query, LIST_PARAMETERS)
    after = take.hex_id("cursor", given["cursor"]) if "cursor" in given else 0
    return how, ListLeases(after, page_limit(given.get("limit")))


def page_limit(text: str | None) -> int:
    """How much one page of a list holds."""
    return PAGE_MAX if text is None else take.number("limit", text, 1, PAGE_MAX, str(PAGE_MAX))


def granted_body(granted: LeaseGranted) -> GrantedLease:
    """What became of a grant or a keepalive."""
    return GrantedLease(hex_id(granted.lease), duration_text(granted.ttl_ms), granted.revision)


def revoked_body(lease: int, revoked: LeaseRevoked) -> RevokedLease:
    """What became of a revocation."""
    return RevokedLease(hex_id(lease), revoked.count, revoked.revision)


def lease_body(lease: LeaseInfo, revision: int) -> LeaseBody:
    """One lease with its keys."""
    listed = _listed(lease)
    keys = [KeyName(*text_of(key)) for key in lease.keys]
    return LeaseBody(listed.id, listed.ttl, listed.remaining, keys, revision)


def leases_body(found: LeasesFound) -> LeasesBody:
    """A page."""
    cursor = None if found.next_after is None else hex_id(found.next_after)
    return LeasesBody(found.revision, [_listed(each) for each in found.leases], cursor)


def _listed(lease: LeaseInfo) -> ListedLease:
    remaining = duration_text(lease.remaining_ms)
    return ListedLease(hex_id(lease.lease), duration_text(lease.ttl_ms), remaining)
