"""From the head and body of a request to its meaning: values that name what is asked.

Called by `raftkv.server.http.calls`; knows nothing of aiohttp, sockets or the node, so that
another server can use it unchanged. Everything not understood is refused by name (`Refused`),
never ignored: unknown and repeated query parameters and unknown JSON fields with 400. Parameters
and headers that the API contract names and this version does not serve are refused with 501
`not_implemented`, so that a client can tell a typing error from an older server; an
Idempotency-Key or a fence that went unheeded would be a broken promise.
"""

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Annotated, Final, Protocol, TypeVar

import msgspec
from multidict import istr

from raftkv.kv.commands import (
    Append,
    Command,
    Condition,
    Delete,
    DeleteRange,
    Increment,
    KeyCommand,
    Put,
    ReturnPrevious,
)
from raftkv.node.events import Consistency
from raftkv.raft.messages import Member, NodeId
from raftkv.server.http import parameters as take
from raftkv.server.http.conditions import EntityTags, parse_tags, write_condition
from raftkv.server.http.parameters import TIMEOUT_SECONDS_DEFAULT
from raftkv.server.http.problems import (
    BAD_BODY,
    BAD_PARAMETER,
    CONTENT_ENCODING,
    FOREIGN_HOST,
    FOREIGN_ORIGIN,
    NOT_IMPLEMENTED,
    Refused,
    quoted,
)
from raftkv.server.http.targets import parse_query

# Room for a list of some hundred members.
JSON_BODY_BYTES_MAX: Final = 64 << 10

# istr: already case-folded, so that looking a header up costs no folding.
_ACCEPT: Final = istr("Accept")
_CLUSTER: Final = istr("X-RaftKV-Cluster")
_CONTENT_ENCODING: Final = istr("Content-Encoding")
_FENCE: Final = istr("X-RaftKV-Fence")
_HOST: Final = istr("Host")
_IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
_IF_MATCH: Final = istr("If-Match")
_IF_NONE_MATCH: Final = istr("If-None-Match")
_ORIGIN: Final = istr("Origin")

_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_HOST_PORT: Final = r"([0-9A-Za-z._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}\Z"


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
    consistency: Consistency
    min_revision: int
    timeout_seconds: float
    as_json: bool
    if_match: EntityTags | None  # None: the header is absent
    if_none_match: EntityTags | None


@dataclass(frozen=True, slots=True)
class WriteKey:
    """Change ``key``; the body, if the operation has one, is read only after this is known."""

    op: WriteOp
    key: bytes
    condition: Condition | None
    timeout_seconds: float
    may_redirect: bool  # answer with the leader's address rather than forward
    returns_previous: bool = False  # answer with the item as it was before, too
    by: int = 1  # what an increment adds

    def command(self, body: bytes, value_bytes_max: int) -> Command:
        """What goes through the log. ``body`` is empty for a delete and an increment."""
        command = self._key_command(body, value_bytes_max)
        return ReturnPrevious(command) if self.returns_previous else command

    def _key_command(self, body: bytes, value_bytes_max: int) -> KeyCommand:
        match self.op:
            case WriteOp.PUT:
                return Put(self.key, body, self.condition)
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


@dataclass(frozen=True, slots=True)
class RemoveRange:
    """Remove all keys of a range."""

    command: DeleteRange
    timeout_seconds: float
    may_redirect: bool


@dataclass(frozen=True, slots=True)
class FoundCluster:
    """Bootstrap: found ``cluster_id`` with these voters."""

    cluster_id: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class SetDrain:
    """Start or undo the drain; ``avoid`` names members that should not become leader."""

    draining: bool
    avoid: tuple[NodeId, ...] = ()


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
    if headers.get(_CONTENT_ENCODING) is not None:
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
    consistency, min_revision, timeout = Consistency.LINEARIZABLE, 0, TIMEOUT_SECONDS_DEFAULT
    revision = 0
    if query:
        parameters = parse_query(query, ("consistency", "min_revision", "revision", "timeout"))
        revision = take.revision(parameters.get("revision"))
        consistency = take.consistency(parameters.get("consistency"))
        min_revision = take.min_revision(parameters.get("min_revision"))
        timeout = take.timeout(parameters.get("timeout"))
    return ReadKey(
        key,
        revision,
        consistency,
        min_revision,
        timeout,
        wants_json(headers.getall(_ACCEPT, [])),
        parse_tags("If-Match", headers.getall(_IF_MATCH, [])),
        parse_tags("If-None-Match", headers.getall(_IF_NONE_MATCH, [])),
    )


def check_promises(headers: Headers) -> None:
    """Refuse a write that asks for more than this version can promise."""
    for name in (_IDEMPOTENCY_KEY, _FENCE):
        if headers.get(name) is not None:
            raise Refused(NOT_IMPLEMENTED, f"this version does not implement {name}")


def parse_write(method: str, key: bytes, query: str, headers: Headers) -> WriteKey:
    """PUT, DELETE and POST of a key, without the body."""
    check_promises(headers)
    op = WriteOp.DELETE if method == "DELETE" else WriteOp.PUT
    timeout, may_redirect, returns_previous = TIMEOUT_SECONDS_DEFAULT, False, False
    by = 1
    if query or method == "POST":
        known = ("prev", "redirect", "timeout")
        parameters = parse_query(query, ("op", "by", *known) if method == "POST" else known)
        if method == "POST":
            op = _post_op(parameters.get("op"))
            by = _by(op, parameters.get("by"))
        timeout = take.timeout(parameters.get("timeout"))
        may_redirect = take.flag("redirect", parameters.get("redirect"))
        returns_previous = take.flag("prev", parameters.get("prev"))
    condition = write_condition(headers.getall(_IF_MATCH, []), headers.getall(_IF_NONE_MATCH, []))
    return WriteKey(op, key, condition, timeout, may_redirect, returns_previous, by)


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


# ---- cluster and operations -----------------------------------------------------------------


class _MemberBody(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    name: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z._-]{1,253}\Z")]
    peer_url: Annotated[str, msgspec.Meta(pattern="^" + _HOST_PORT)]
    client_url: Annotated[str, msgspec.Meta(pattern="^https?://" + _HOST_PORT)]


class _BootstrapBody(msgspec.Struct, forbid_unknown_fields=True):
    cluster_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z._-]{1,64}\Z")]
    members: Annotated[list[_MemberBody], msgspec.Meta(min_length=1)]


class _DrainBody(msgspec.Struct, forbid_unknown_fields=True):
    avoid: list[Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]] = []


Body = TypeVar("Body", bound=msgspec.Struct)


def parse_bootstrap(query: str, body: bytes) -> FoundCluster:
    """POST /v1/cluster/bootstrap. Whether the list makes sense is the node's to say."""
    parse_query(query, ())
    asked = _json_body(body, _BootstrapBody)
    members = tuple(
        Member(int(member.id, 16), member.name, member.peer_url, member.client_url)
        for member in asked.members
    )
    return FoundCluster(asked.cluster_id, members)


def parse_drain(method: str, query: str, body: bytes) -> SetDrain:
    """POST and DELETE of the drain; POST may name members to avoid in its body."""
    parse_query(query, ())
    if method == "DELETE" or not body:
        return SetDrain(draining=method != "DELETE")
    avoid = _json_body(body, _DrainBody).avoid
    return SetDrain(draining=True, avoid=tuple(int(member, 16) for member in avoid))


def parse_verbose(query: str) -> bool:
    """GET /readyz: whether every check is to be listed."""
    verbose = parse_query(query, ("verbose",)).get("verbose")
    return verbose == "" or take.flag("verbose", verbose)


def _json_body(body: bytes, shape: type[Body]) -> Body:
    try:
        value = msgspec.json.decode(body, type=shape)
        # The shape holds, so nesting is bounded; msgspec would take the last of two equal names.
        json.loads(body, object_pairs_hook=_unique_fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(BAD_BODY, f"the body is not the JSON that is expected: {error}") from None
    return value


def _unique_fields(pairs: list[tuple[str, object]]) -> None:
    names = [name for name, _ in pairs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise Refused(BAD_BODY, f"the field {quoted(repeated)} is given more than once")
