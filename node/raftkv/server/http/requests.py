"""From the head and body of a request to its meaning: values that name what is asked.

Called by `raftkv.server.http.calls`; knows nothing of aiohttp, sockets or the node, so that
another server can use it unchanged. Everything not understood is refused by name (`Refused`),
never ignored: unknown and repeated query parameters and unknown JSON fields with 400.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Final, Protocol

from multidict import istr

from raftkv.kv.commands import (
    Append,
    Condition,
    Delete,
    Increment,
    KeyCommand,
    Put,
    ReturnPrevious,
)
from raftkv.server.http import parameters as take
from raftkv.server.http.conditions import EntityTags, parse_tags, write_condition
from raftkv.server.http.parameters import TIMEOUT_SECONDS_DEFAULT
from raftkv.server.http.problems import (
    BAD_PARAMETER,
    CONTENT_ENCODING,
    FOREIGN_HOST,
    FOREIGN_ORIGIN,
    Refused,
    quoted,
)
from raftkv.server.http.reading import LINEARIZABLE, HowToRead, parse_read_query
from raftkv.server.http.targets import parse_query

# How long a long poll waits.
WAIT_SECONDS_DEFAULT: Final = 30.0
WAIT_SECONDS_MAX: Final = 600.0

#: Query parameters of a read of a key, beside those of every read.
READ_KEY_PARAMETERS: Final = ("revision", "after", "wait")
#: Query parameters of a write to a key, by its method.
WRITE_KEY_PARAMETERS: Final = {
    "PUT": ("lease", "prev", "redirect", "timeout", "ttl"),
    "DELETE": ("prev", "redirect", "timeout"),
    "POST": ("by", "op", "prev", "redirect", "timeout"),
}

# istr: already case-folded, so that looking a header up costs no folding.
_ACCEPT: Final = istr("Accept")
_CLUSTER: Final = istr("X-RaftKV-Cluster")
_CONTENT_ENCODING: Final = istr("Content-Encoding")
_HOST: Final = istr("Host")
_IF_MATCH: Final = istr("If-Match")
_IF_NONE_MATCH: Final = istr("If-None-Match")
_ORIGIN: Final = istr("Origin")
_TRANSFER_ENCODING: Final = istr("Transfer-Encoding")

_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")


class Headers(Protocol):
    """A request's header lines; names compare without case (multidict's shape)."""

    def get(self, key: str, /) -> str | None:
        """The first line named ``key``, or None."""
        ...

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """All lines named ``key``, in order."""
        ...


class WriteOp(Enum):
    """What a write does with its key."""

    PUT = "put"
    APPEND = "append"
    DELETE = "delete"
    INCREMENT = "increment"


@dataclass(frozen=True, slots=True)
class ReadKey:
    """Answer the item under ``key``."""

    key: bytes
    revision: int  # as of which the key is read; 0: now
    how: HowToRead
    as_json: bool
    if_match: EntityTags | None  # None: the header is absent
    if_none_match: EntityTags | None
    # Answer once the key has changed, at the latest then; None: answer now.
    wait_seconds: float | None = None
    after: int | None = None  # has changed since this revision; None: has another tag


@dataclass(frozen=True, slots=True)
class WriteKey:
    """Change ``key``; the body, if the operation has one, is read only after this is known."""

    op: WriteOp
    key: bytes
    condition: Condition | None
    timeout_seconds: float = TIMEOUT_SECONDS_DEFAULT
    may_redirect: bool = False  # answer with the leader's address rather than forward
    returns_previous: bool = False  # answer with the item as it was before, too
    by: int = 1  # what an increment adds
    lease: int = 0  # that a put attaches the key to; 0: none
    ttl_ms: int = 0  # of a lease of its own; 0: none

    def command(self, body: bytes, value_bytes_max: int) -> KeyCommand | ReturnPrevious:
        """What goes through the log. ``body`` is empty for a delete and an increment."""
        command = self._key_command(body, value_bytes_max)
        return ReturnPrevious(command) if self.returns_previous else command

    def _key_command(self, body: bytes, value_bytes_max: int) -> KeyCommand:
        match self.op:
            case WriteOp.PUT:
                return Put(self.key, body, self.condition, self.lease, self.ttl_ms)
            case WriteOp.APPEND:
                return Append(self.key, body, value_bytes_max, self.condition)
            case WriteOp.DELETE:
                return Delete(self.key, self.condition)
            case WriteOp.INCREMENT:
                return Increment(self.key, self.by, self.condition)

    @property
    def has_body(self) -> bool:
        """Whether the operation takes a body."""
        return self.op in (WriteOp.PUT, WriteOp.APPEND)


# ---- the request's head: rules of every request ---------------------------------------------


def check_head(headers: Headers, *, is_write: bool, must_be_local: bool) -> None:
    """Refuse what no route accepts.

    ``must_be_local`` is set on a listener that is bound to loopback: there only a local name may
    stand in Host, because a web page can make a browser resolve a name of its own to 127.0.0.1.
    """
    host = headers.get(_HOST)
    # Only HTTP/1.0 may leave Host out, and no browser speaks it.
    if must_be_local and host is not None and not is_local_host(host):
        detail = f"this listener is on loopback, and {quoted(host)} is not a local name"
        raise Refused(FOREIGN_HOST, detail)
    if not is_write:
        return
    origin = headers.get(_ORIGIN)
    if origin is not None and not is_own_origin(origin, host):
        raise Refused(FOREIGN_ORIGIN, f"pages of {quoted(origin)} may not write here")
    framing = headers.get(_TRANSFER_ENCODING)
    if headers.get(_CONTENT_ENCODING) is not None or (framing and framing.lower() != "chunked"):
        raise Refused(CONTENT_ENCODING, "bodies are stored as they are sent, never decoded")


def cluster_meant(headers: Headers) -> tuple[str, ...]:
    """The cluster ids that the request names in X-RaftKV-Cluster; empty: any will do."""
    return tuple(headers.getall(_CLUSTER, []))


@lru_cache(maxsize=256)
def is_local_host(host: str) -> bool:
    """Whether a Host header names this machine: localhost, or a loopback address."""
    name = host.lower()
    if name.startswith("["):
        name, _, _ = name[1:].partition("]")
    else:
        name, _, _ = name.partition(":")
    name = name.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_own_origin(origin: str, host: str | None) -> bool:
    """Whether a page of ``origin`` was served by the authority in the Host header."""
    scheme, _, authority = origin.lower().partition("://")
    default_port = {"http": ":80", "https": ":443"}.get(scheme)
    if default_port is None or host is None or not authority:
        return False
    return authority.removesuffix(default_port) == host.lower().removesuffix(default_port)


# ---- keys -----------------------------------------------------------------------------------


def parse_read(key: bytes, query: str, headers: Headers) -> ReadKey:
    """GET and HEAD of a key."""
    how = LINEARIZABLE
    given: dict[str, str] = {}
    if query:
        how, given = parse_read_query(query, READ_KEY_PARAMETERS)
    asked = ReadKey(
        key,
        take.revision(given.get("revision")) if given else 0,
        how,
        wants_json(headers.getall(_ACCEPT, [])),
        parse_tags("If-Match", headers.getall(_IF_MATCH, [])),
        parse_tags("If-None-Match", headers.getall(_IF_NONE_MATCH, [])),
    )
    return _long_poll(asked, given) if "after" in given or "wait" in given else asked


def _long_poll(asked: ReadKey, given: Mapping[str, str]) -> ReadKey:
    """``asked``, but to be answered when the key changes."""
    after = None
    if "after" in given:
        after = take.number("after", given["after"], 0, 2**63 - 1, "2^63 - 1")
    if (after is None) == (asked.if_none_match is None):
        detail = "waiting for a change takes after=REVISION or the header If-None-Match"
        raise Refused(BAD_PARAMETER, detail)
    if asked.revision:
        raise Refused(BAD_PARAMETER, "revision names the past, which does not change")
    wait_seconds = WAIT_SECONDS_DEFAULT
    if "wait" in given:
        most_seconds = WAIT_SECONDS_MAX
        wait_ms = take.duration_ms(
            "wait", given["wait"], most_seconds=most_seconds, most_text="10 minutes"
        )
        wait_seconds = wait_ms / 1000
    return replace(asked, wait_seconds=wait_seconds, after=after)


def parse_write(method: str, key: bytes, query: str, headers: Headers) -> WriteKey:
    """PUT, DELETE and POST of a key, without the body."""
    op = WriteOp.DELETE if method == "DELETE" else WriteOp.PUT
    condition = write_condition(headers.getall(_IF_MATCH, []), headers.getall(_IF_NONE_MATCH, []))
    if not query and method != "POST":
        return WriteKey(op, key, condition)
    given = parse_query(query, WRITE_KEY_PARAMETERS[method])
    by, lease, ttl_ms = 1, 0, 0
    if method == "POST":
        op = _post_op(given.get("op"))
        by = _by(op, given.get("by"))
    elif method == "PUT":
        lease, ttl_ms = _lease_of(given)
    return WriteKey(
        op,
        key,
        condition,
        take.timeout(given.get("timeout")),
        take.flag("redirect", given.get("redirect")),
        take.flag("prev", given.get("prev")),
        by,
        lease,
        ttl_ms,
    )


def _lease_of(given: Mapping[str, str]) -> tuple[int, int]:
    """The lease that is named, and the ttl of a lease of the key's own; 0 for what is not."""
    if "lease" in given and "ttl" in given:
        raise Refused(BAD_PARAMETER, "a key has one lease: give either lease or ttl")
    lease = take.lease("lease", given["lease"]) if "lease" in given else 0
    ttl_ms = take.duration_ms("ttl", given["ttl"]) if "ttl" in given else 0
    return lease, ttl_ms


def wants_json(accept: Sequence[str]) -> bool:
    """Whether the JSON item is asked for: named in Accept, and not less than the raw value."""
    if not accept or accept == ["*/*"]:
        return False
    quality = {"application/json": 0.0, "application/octet-stream": 0.0}
    for media_range in ",".join(accept).lower().split(","):
        name, *parameters = (part.strip() for part in media_range.split(";"))
        if name in quality:
            quality[name] = _quality(parameters)
    return 0.0 < quality["application/json"] >= quality["application/octet-stream"]


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _post_op(text: str | None) -> WriteOp:
    match text:
        case "append":
            return WriteOp.APPEND
        case "increment":
            return WriteOp.INCREMENT
        case _:
            raise Refused(BAD_PARAMETER, "POST to a key needs op=append or op=increment")


def _by(op: WriteOp, text: str | None) -> int:
    if text is None:
        return 1
    if op is not WriteOp.INCREMENT:
        raise Refused(BAD_PARAMETER, "by belongs to op=increment")
    number = int(text) if _INTEGER.fullmatch(text) else 2**63
    if not -(2**63) <= number < 2**63:
        raise Refused(BAD_PARAMETER, "by is a whole number of 64 bits, as in 5 or -1")
    return number


# ---- probes --------------------------------------------------------------------------------------


def parse_verbose(query: str) -> bool:
    """GET /readyz: whether every check is to be listed."""
    verbose = parse_query(query, ("verbose",)).get("verbose")
    return verbose == "" or take.flag("verbose", verbose)
