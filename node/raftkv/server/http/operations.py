"""What each row of the route table takes and answers, as `/openapi.json` tells it. Data.

The names of parameters are those that the parsers accept, the shapes of bodies the Structs that
they decode, the problems rows of `raftkv.server.http.problems`: so the document cannot differ from
the code in these. A test compares the rest with the route table and docs/http-api.md.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from raftkv.server.http import problems as p
from raftkv.server.http.leases import (
    LIST_PARAMETERS,
    GrantBody,
    GrantedLease,
    LeaseBody,
    LeasesBody,
    RevokedLease,
)
from raftkv.server.http.locks import AcquireBody, HeldLock, LockBody, LocksBody, ReleasedLock
from raftkv.server.http.membership import (
    AddMemberBody,
    BootstrapBody,
    CompactBody,
    DrainBody,
    ReplaceBody,
    TransferBody,
)
from raftkv.server.http.problems import Kind
from raftkv.server.http.ranges import RANGE_PARAMETERS, REMOVE_PARAMETERS
from raftkv.server.http.reading import READ_PARAMETERS
from raftkv.server.http.render import DeletedBody, ItemBody, WrittenBody
from raftkv.server.http.requests import READ_KEY_PARAMETERS, WRITE_KEY_PARAMETERS
from raftkv.server.http.txns import TxnBody, TxnResult
from raftkv.server.http.watching import WATCH_PARAMETERS
from raftkv.server.http.writing import WRITE_PARAMETERS

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
LINES: Final = "application/x-ndjson"
EVENTS: Final = "text/event-stream"
TEXT: Final = "text/plain"


class Page(msgspec.Struct):
    """A page of a range; with ``count_only`` just the revision and the count."""

    revision: int
    items: list["ListedItem"] | msgspec.UnsetType = msgspec.UNSET
    prefixes: list["Prefix"] | msgspec.UnsetType = msgspec.UNSET
    next_cursor: str | msgspec.UnsetType | None = msgspec.UNSET
    count: int | msgspec.UnsetType = msgspec.UNSET


class ListedItem(msgspec.Struct):
    """An item of a page; with ``keys_only`` it has no value."""

    key: str
    key_encoding: str
    create_revision: int
    mod_revision: int
    version: int
    lease: str
    value: str | msgspec.UnsetType = msgspec.UNSET
    value_encoding: str | msgspec.UnsetType = msgspec.UNSET


class Prefix(msgspec.Struct):
    """What several keys have in common up to the delimiter."""

    prefix: str
    prefix_encoding: str


class ConfigIndex(msgspec.Struct):
    """The change is in force with the configuration at this index."""

    config_index: int


class NewLeader(msgspec.Struct):
    """Who leads, and has committed an entry of the term."""

    leader: str
    leader_name: str | None
    term: int


class Snapshot(msgspec.Struct):
    """A durable snapshot of this node."""

    name: str
    index: int
    revision: int
    size_bytes: int


class Compaction(msgspec.Struct):
    """No history from before ``compacted_revision`` is left to be read."""

    revision: int
    compacted_revision: int


class Founder(msgspec.Struct):
    """A member of a cluster that was founded."""

    id: str
    name: str


class Foundation(msgspec.Struct):
    """The cluster that this node founded; ``repeated``: before this call."""

    cluster_id: str
    repeated: bool
    state: str
    members: list[Founder]


class DrainState(msgspec.Struct):
    """Whether the node drains."""

    draining: bool


Content = Mapping[str, Any]  # media type -> Struct, "binary", "text", or a schema


class Operation(NamedTuple):
    """One call. Problems that every call may have are added where the document is made."""

    answers: Mapping[int, Content]
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    body: Any = None  # a Struct for JSON, "binary", or None
    is_body_needed: bool = True
    example: object = None  # of the body
    problems: tuple[Kind, ...] = ()
    is_read: bool = False  # of the store: with the problems and headers of a read
    is_write: bool = False  # through the log: with the problems and guards of a write
    answer_headers: tuple[str, ...] = ()


_CONDITIONS: Final = ("If-Match", "If-None-Match")
_GUARDS: Final = ("Idempotency-Key", "X-RaftKV-Fence")
_ONCE: Final = ("Idempotency-Key",)
_ITEM: Final = (
    "ETag", "X-RaftKV-Create-Revision", "X-RaftKV-Mod-Revision", "X-RaftKV-Version",
    "X-RaftKV-Lease",
)  # fmt: skip
_VALUE_OR_ITEM: Final = {BYTES: "binary", JSON: ItemBody}
_TOKEN: Final = ("token", *WRITE_PARAMETERS)
_UNAVAILABLE: Final = (p.NO_LEADER, p.UNINITIALISED, p.STOPPING)
_CHANGE: Final = (
    p.BAD_ID, p.CHANGE_REFUSED, p.CONFIG_CHANGED, p.UNKNOWN, p.DEADLINE, *_UNAVAILABLE,
)  # fmt: skip
_MEMBER: Final = {
    "id": "00000000000000ff",
    "name": "n4",
    "peer_url": "127.0.0.1:7431",
    "client_url": "http://127.0.0.1:7430",
}

_PAGE: Final = ("ETag", "Content-Security-Policy")
_PREFLIGHT: Final = Operation({200: {}}, answer_headers=("Access-Control-Allow-Origin",))

_READ_KEY: Final = Operation(
    {200: _VALUE_OR_ITEM, 204: {}, 304: {}},
    (*READ_KEY_PARAMETERS, *READ_PARAMETERS),
    _CONDITIONS,
    problems=(p.BAD_KEY, p.KEY_NOT_FOUND, p.CONDITION_FAILED, p.FUTURE_REVISION, p.COMPACTED),
    is_read=True,
    answer_headers=_ITEM,
)
_PUT: Final = Operation(
    {200: {JSON: WrittenBody}, 201: {JSON: WrittenBody}},
    WRITE_KEY_PARAMETERS["PUT"],
    (*_CONDITIONS, *_GUARDS),
    body="binary",
    is_body_needed=False,
    problems=(p.BAD_KEY, p.CONDITION_FAILED, p.LEASE_NOT_FOUND, p.LEASE_FULL, p.QUOTA),
    is_write=True,
    answer_headers=("ETag",),
)
_DELETE: Final = Operation(
    {200: {JSON: DeletedBody}},
    WRITE_KEY_PARAMETERS["DELETE"],
    (*_CONDITIONS, *_GUARDS),
    problems=(p.BAD_KEY, p.CONDITION_FAILED),
    is_write=True,
)
_POST: Final = Operation(
    {200: {JSON: WrittenBody}, 201: {JSON: WrittenBody}},
    WRITE_KEY_PARAMETERS["POST"],
    (*_CONDITIONS, *_GUARDS),
    body="binary",
    is_body_needed=False,
    problems=(
        p.BAD_KEY,
        p.CONDITION_FAILED,
        p.NOT_A_COUNTER,
        p.COUNTER_OVERFLOW,
        p.TOO_LARGE,
        p.QUOTA,
    ),
    is_write=True,
    answer_headers=("ETag",),
)

#: By method and path of the route table.
OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    **{
        (method, path): operation
        for path in ("/v1/kv/{key}", "/v1/k/{base64url}")
        for method, operation in (
            ("GET", _READ_KEY),
            ("PUT", _PUT),
            ("DELETE", _DELETE),
            ("POST", _POST),
        )
    },
    ("GET", "/v1/kv"): Operation(
        {200: {JSON: Page, LINES: "text"}},
        RANGE_PARAMETERS,
        problems=(p.FUTURE_REVISION, p.COMPACTED),
        is_read=True,
    ),
    ("DELETE", "/v1/kv"): Operation(
        {200: {JSON: DeletedBody}},
        (*REMOVE_PARAMETERS, *WRITE_PARAMETERS),
        _GUARDS,
        problems=(p.TOO_MANY_KEYS,),
        is_write=True,
    ),
    ("GET", "/v1/watch"): Operation(
        {200: {EVENTS: "text"}},
        WATCH_PARAMETERS,
        ("Last-Event-ID",),
        problems=(
            p.BAD_KEY,
            p.FUTURE_REVISION,
            p.COMPACTED,
            p.EPOCH_CHANGED,
            p.DEADLINE,
            *_UNAVAILABLE,
        ),
    ),
    ("POST", "/v1/txn"): Operation(
        {200: {JSON: TxnResult}},
        WRITE_PARAMETERS,
        _GUARDS,
        body=TxnBody,
        example={
            "compare": [{"key": "stock", "target": "value", "op": "=", "value": "1"}],
            "success": [{"op": "delete", "key": "stock"}],
            "failure": [{"op": "get", "key": "stock"}],
        },
        problems=(
            p.NOT_A_COUNTER,
            p.COUNTER_OVERFLOW,
            p.TOO_MANY_KEYS,
            p.TOO_LARGE,
            p.LEASE_NOT_FOUND,
            p.LEASE_FULL,
            p.QUOTA,
        ),
        is_write=True,
    ),
    ("POST", "/v1/leases"): Operation(
        {201: {JSON: GrantedLease}},
        WRITE_PARAMETERS,
        _GUARDS,
        body=GrantBody,
        example={"ttl": "30s"},
        problems=(p.QUOTA,),
        is_write=True,
    ),
    ("GET", "/v1/leases"): Operation(
        {200: {JSON: LeasesBody}}, (*LIST_PARAMETERS, *READ_PARAMETERS), is_read=True
    ),
    ("GET", "/v1/leases/{id}"): Operation(
        {200: {JSON: LeaseBody}},
        READ_PARAMETERS,
        problems=(p.BAD_ID, p.LEASE_NOT_FOUND),
        is_read=True,
    ),
    ("DELETE", "/v1/leases/{id}"): Operation(
        {200: {JSON: RevokedLease}},
        WRITE_PARAMETERS,
        _GUARDS,
        problems=(p.BAD_ID, p.LEASE_NOT_FOUND),
        is_write=True,
    ),
    ("POST", "/v1/leases/{id}/keepalive"): Operation(
        {200: {JSON: GrantedLease}},
        WRITE_PARAMETERS,
        _GUARDS,
        problems=(p.BAD_ID, p.LEASE_NOT_FOUND),
        is_write=True,
    ),
    ("GET", "/v1/locks"): Operation(
        {200: {JSON: LocksBody}}, (*LIST_PARAMETERS, *READ_PARAMETERS), is_read=True
    ),
    ("GET", "/v1/locks/{name}"): Operation(
        {200: {JSON: LockBody}},
        READ_PARAMETERS,
        problems=(p.BAD_KEY, p.LOCK_NOT_FOUND),
        is_read=True,
    ),
    ("POST", "/v1/locks/{name}"): Operation(
        {200: {JSON: HeldLock}},
        WRITE_PARAMETERS,
        _ONCE,
        body=AcquireBody,
        example={"ttl": "30s", "wait": "10s", "owner": "worker-7"},
        problems=(p.BAD_KEY, p.LOCK_HELD, p.QUOTA),
        is_write=True,
    ),
    ("DELETE", "/v1/locks/{name}"): Operation(
        {200: {JSON: ReleasedLock}},
        _TOKEN,
        _ONCE,
        problems=(p.BAD_KEY, p.LOCK_LOST),
        is_write=True,
    ),
    ("POST", "/v1/locks/{name}/keepalive"): Operation(
        {200: {JSON: HeldLock}},
        _TOKEN,
        _ONCE,
        problems=(p.BAD_KEY, p.LOCK_LOST),
        is_write=True,
    ),
    ("GET", "/v1/status"): Operation({200: {JSON: {"$ref": "#/components/schemas/Status"}}}),
    ("GET", "/v1/cluster"): Operation(
        {200: {JSON: {"$ref": "#/components/schemas/Cluster"}}}, answer_headers=("ETag",)
    ),
    ("POST", "/v1/cluster/bootstrap"): Operation(
        {200: {JSON: Foundation}},
        body=BootstrapBody,
        example={"cluster_id": "c1", "members": [_MEMBER]},
        problems=(p.INVALID, p.CONFLICT, p.STOPPING),
    ),
    ("POST", "/v1/cluster/members"): Operation(
        {200: {JSON: ConfigIndex}},
        WRITE_PARAMETERS,
        ("If-Match",),
        body=AddMemberBody,
        example={**_MEMBER, "promote": "auto"},
        problems=_CHANGE,
        answer_headers=("ETag",),
    ),
    ("DELETE", "/v1/cluster/members/{id}"): Operation(
        {200: {JSON: ConfigIndex}},
        WRITE_PARAMETERS,
        ("If-Match",),
        problems=_CHANGE,
        answer_headers=("ETag",),
    ),
    ("POST", "/v1/cluster/members/{id}/promote"): Operation(
        {200: {JSON: ConfigIndex}},
        WRITE_PARAMETERS,
        ("If-Match",),
        problems=_CHANGE,
        answer_headers=("ETag",),
    ),
    ("POST", "/v1/cluster/members/{id}/replace"): Operation(
        {200: {JSON: ConfigIndex}},
        WRITE_PARAMETERS,
        ("If-Match",),
        body=ReplaceBody,
        example={"by": "00000000000000ff"},
        problems=_CHANGE,
        answer_headers=("ETag",),
    ),
    ("POST", "/v1/cluster/leader"): Operation(
        {200: {JSON: NewLeader}},
        WRITE_PARAMETERS,
        body=TransferBody,
        is_body_needed=False,
        example={"target": "00000000000000ff"},
        problems=(p.CHANGE_REFUSED, p.UNKNOWN, p.DEADLINE, *_UNAVAILABLE),
    ),
    ("POST", "/v1/maintenance/snapshot"): Operation(
        {200: {JSON: Snapshot}}, problems=(p.QUOTA, p.CHANGE_REFUSED, p.CONFLICT, *_UNAVAILABLE)
    ),
    ("POST", "/v1/maintenance/compact"): Operation(
        {200: {JSON: Compaction}},
        WRITE_PARAMETERS,
        body=CompactBody,
        example={"revision": 1000},
        problems=(p.FUTURE_REVISION,),
        is_write=True,
    ),
    ("POST", "/v1/maintenance/drain"): Operation(
        {200: {JSON: DrainState}},
        body=DrainBody,
        is_body_needed=False,
        example={"avoid": ["00000000000000ff"]},
        problems=(p.STOPPING,),
    ),
    ("DELETE", "/v1/maintenance/drain"): Operation(
        {200: {JSON: DrainState}}, problems=(p.STOPPING,)
    ),
    ("GET", "/v1/backup"): Operation(
        {200: {BYTES: "binary"}},
        problems=(p.DEADLINE, *_UNAVAILABLE),
        answer_headers=("Content-Disposition",),
    ),
    ("GET", "/openapi.json"): Operation({200: {JSON: {"type": "object"}}}),
    ("OPTIONS", "/v1/status"): _PREFLIGHT,
    ("OPTIONS", "/v1/cluster"): _PREFLIGHT,
    ("GET", "/"): Operation(
        {200: {"text/html": "text"}, 304: {}}, headers=("If-None-Match",), answer_headers=_PAGE
    ),
    ("GET", "/console/{file}"): Operation(
        {200: dict.fromkeys(("text/css", "text/javascript", "image/svg+xml"), "text"), 304: {}},
        headers=("If-None-Match",),
        answer_headers=_PAGE,
    ),
    ("GET", "/livez"): Operation({200: {TEXT: "text"}, 503: {TEXT: "text"}}),
    ("GET", "/readyz"): Operation({200: {TEXT: "text"}, 503: {TEXT: "text"}}, ("verbose",)),
    ("GET", "/metrics"): Operation({200: {TEXT: "text"}}),
}
