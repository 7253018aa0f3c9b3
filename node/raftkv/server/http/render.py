"""From a node's answer to status, headers and body. Pure; called by the handlers.

Header values are numbers, tags and constants: nothing a client sent is ever echoed in a header.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, Final, NamedTuple

import msgspec

from raftkv.kv.changes import LastChanged
from raftkv.kv.outcomes import Deleted, Incremented, Item, Outcome, Returned, Written
from raftkv.node.events import Consistency, ReadResult
from raftkv.node.status import ClusterStatus, MemberStatus, Status
from raftkv.raft.messages import NodeId
from raftkv.server.http.live import LiveConnection
from raftkv.server.http.problems import (
    CONDITION_FAILED,
    KEY_NOT_FOUND,
    Kind,
    Problem,
    problem_of_outcome,
)
from raftkv.server.http.reading import Reading
from raftkv.server.http.requests import ReadKey
from raftkv.server.http.texts import NO_LEASE, hex_id, text_of

AGE: Final = "X-RaftKV-Age-Seconds"
REPLAYED: Final = "Idempotency-Replayed"
REVISION: Final = "X-RaftKV-Revision"

#: Fields of `GET /v1/cluster` that list ids.
MEMBER_GROUPS: Final = ("voters", "learners", "voters_outgoing", "auto_promote", "removed")

_ENCODER: Final = msgspec.json.Encoder()


class StreamBroken(Exception):  # noqa: N818 the client is told by the broken connection
    """A streamed answer cannot be finished."""


class Response(NamedTuple):
    """An answer, before any HTTP library has seen it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None  # instead of a body; may end in `StreamBroken`
    # Instead of a body: is given the connection, and returns when the answer is over.
    live: Callable[[LiveConnection], Awaitable[None]] | None = None


class ItemBody(msgspec.Struct):
    """A JSON item, field by field."""

    key: str
    key_encoding: str
    value: str
    value_encoding: str
    create_revision: int
    mod_revision: int
    version: int
    lease: str


class WrittenBody(msgspec.Struct, omit_defaults=True):
    """A key was stored."""

    key: str
    key_encoding: str
    revision: int
    version: int
    prev: ItemBody | msgspec.UnsetType | None = msgspec.UNSET  # unset: not asked for
    value: str | msgspec.UnsetType = msgspec.UNSET  # of a counter
    value_encoding: str | msgspec.UnsetType = msgspec.UNSET


class DeletedBody(msgspec.Struct, omit_defaults=True):
    """So many keys were removed."""

    deleted: int
    revision: int
    prev: ItemBody | msgspec.UnsetType | None = msgspec.UNSET


class ProblemBody(msgspec.Struct):
    """What every problem says; some say more (`Problem.fields`)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    outcome: str


def _lease(item: Item) -> str:
    return hex_id(item.lease) if item.lease else NO_LEASE


def item_body(item: Item) -> ItemBody:
    """The JSON item of ``item``."""
    return ItemBody(
        *text_of(item.key),
        *text_of(item.value),
        item.create_revision,
        item.mod_revision,
        item.version,
        _lease(item),
    )


class Renderer:
    """Renders the answers of one node, with the headers that never change prepared."""

    def __init__(self, node_name: str) -> None:
        common = {
            "Server": "raftkv",
            "X-RaftKV-Node": node_name,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        self._json = {**common, "Content-Type": "application/json"}
        self._text = {**common, "Content-Type": "text/plain; charset=utf-8"}
        self._problem = {**common, "Content-Type": "application/problem+json"}
        self._events = {
            **common,
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store, no-transform",
            "X-Accel-Buffering": "no",  # nginx would hold events back
        }
        self._reads = {
            (consistency, as_json): {
                **common,
                "Content-Type": "application/json" if as_json else "application/octet-stream",
                # A value that a browser is pointed at must not run as a page of this origin.
                "Content-Security-Policy": "sandbox",
                "Vary": "Accept",
                "X-RaftKV-Consistency": consistency.name.lower(),
            }
            for consistency in Consistency
            for as_json in (False, True)
        }

    def read(self, asked: ReadKey, reading: Reading[ReadResult]) -> Response:
        """The value or item, 304, 404 or 412."""
        result = reading.found
        headers = self._read_headers(reading, as_json=asked.as_json)
        item = result.item
        if item is None:
            if asked.if_match is not None:
                return self._failed_read(headers, CONDITION_FAILED, "the key does not exist")
            return self._failed_read(headers, KEY_NOT_FOUND, "the key does not exist")
        mod_revision = str(item.mod_revision)
        tag = f'"{mod_revision}-j"' if asked.as_json else f'"{mod_revision}"'
        headers["ETag"] = tag
        headers["X-RaftKV-Create-Revision"] = str(item.create_revision)
        headers["X-RaftKV-Mod-Revision"] = mod_revision
        headers["X-RaftKV-Version"] = str(item.version)
        headers["X-RaftKV-Lease"] = _lease(item)
        if asked.if_match is not None and not asked.if_match.matches(tag):
            detail = f"the key is at revision {mod_revision}"
            return self._failed_read(headers, CONDITION_FAILED, detail)
        if asked.if_none_match is not None and asked.if_none_match.matches(tag):
            del headers["Content-Type"]
            return Response(304, headers)
        if not asked.as_json:
            return Response(200, headers, item.value)
        return Response(200, headers, _ENCODER.encode(item_body(item)))

    def change(self, asked: ReadKey, reading: Reading[LastChanged]) -> Response:
        """As `read`; a 404 says in X-RaftKV-Mod-Revision when the key was removed."""
        found = reading.found
        result = ReadResult(found.item, found.revision)
        response = self.read(asked, _with_found(reading, result))
        if found.item is None and found.changed_at:
            response.headers["X-RaftKV-Mod-Revision"] = str(found.changed_at)
        return response

    def unchanged(self, asked: ReadKey, reading: Reading[LastChanged]) -> Response:
        """204, or 304 where a tag was given: nothing has happened in the time there was."""
        if asked.if_none_match is not None:
            return self.change(asked, reading)
        headers = self._read_headers(reading, as_json=asked.as_json)
        del headers["Content-Type"]
        return Response(204, headers)

    def write(self, key: bytes, outcome: Outcome) -> Response:
        """What became of a write to ``key``."""
        prev: ItemBody | msgspec.UnsetType | None = msgspec.UNSET
        if isinstance(outcome, Returned):
            prev = None if outcome.previous is None else item_body(outcome.previous)
            outcome = outcome.outcome
        match outcome:
            case Written():
                headers = self._json.copy()
                headers["ETag"] = f'"{outcome.revision}"'
                headers[REVISION] = str(outcome.revision)
                body = WrittenBody(*text_of(key), outcome.revision, outcome.version, prev)
                status = 201 if outcome.created else 200
                return Response(status, headers, _ENCODER.encode(body))
            case Incremented():
                headers = self._json.copy()
                headers["ETag"] = f'"{outcome.revision}"'
                headers[REVISION] = str(outcome.revision)
                value = str(outcome.value)
                body = WrittenBody(
                    *text_of(key), outcome.revision, outcome.version, prev, value, "utf-8"
                )
                status = 201 if outcome.version == 1 else 200
                return Response(status, headers, _ENCODER.encode(body))
            case Deleted():
                headers = self._json.copy()
                headers[REVISION] = str(outcome.revision)
                deleted = DeletedBody(outcome.count, outcome.revision, prev)
                return Response(200, headers, _ENCODER.encode(deleted))
            case _:
                return self.refusal(outcome)

    def done(self, revision: int, body: object, status: int = 200) -> Response:
        """A command was applied; ``body`` is a structure of plain values."""
        headers = self._json.copy()
        headers[REVISION] = str(revision)
        return Response(status, headers, _ENCODER.encode(body))

    def refusal(self, outcome: Outcome) -> Response:
        """A command was applied, and changed nothing."""
        problem = problem_of_outcome(outcome)
        return self.problem(problem, problem.revision)

    def found(self, reading: Reading[Any], body: object) -> Response:
        """200 with what a read found, as plain values."""
        headers = self._read_headers(reading, as_json=True)
        return Response(200, headers, _ENCODER.encode(body))

    def not_found(self, reading: Reading[Any], kind: Kind, detail: str) -> Response:
        """404 of a read."""
        return self._failed_read(self._read_headers(reading, as_json=True), kind, detail)

    def read_lines(self, reading: Reading[Any], stream: AsyncIterator[bytes] | None) -> Response:
        """200 with lines of JSON that are read while they are sent; None: the head alone."""
        headers = self._read_headers(reading, as_json=True)
        headers["Content-Type"] = "application/x-ndjson"
        return Response(200, headers, stream=stream)

    def backup(
        self, revision: int, size_bytes: int | None, stream: AsyncIterator[bytes] | None
    ) -> Response:
        """200 with a file that is read while it is sent."""
        headers = self._json.copy()
        headers["Content-Type"] = "application/octet-stream"
        headers["Content-Disposition"] = f'attachment; filename="raftkv-{revision}.backup"'
        headers[REVISION] = str(revision)
        if size_bytes is not None:
            headers["Content-Length"] = str(size_bytes)
        return Response(200, headers, stream=stream)

    def events(
        self, revision: int, live: Callable[[LiveConnection], Awaitable[None]] | None
    ) -> Response:
        """200 with a stream of events that begins after ``revision``; None: the head alone."""
        headers = self._events.copy()
        headers[REVISION] = str(revision)
        return Response(200, headers, live=live)

    def redirect(self, location: str, revision: int) -> Response:
        """Ask again at the leader, with the same method and body."""
        headers = self._json.copy()
        headers["Location"] = location
        headers[REVISION] = str(revision)
        return Response(307, headers)

    def problem(self, problem: Problem, revision: int | None = None) -> Response:
        """A failure, with the store's revision where it is known."""
        headers = self._problem.copy()
        headers.update(problem.headers)
        if revision is not None:
            headers[REVISION] = str(revision)
        kind = problem.kind
        if kind.retry_after_seconds is not None:
            headers["Retry-After"] = str(kind.retry_after_seconds)
        body = _problem_body(kind, problem.detail, problem.fields)
        return Response(kind.status, headers, body)

    def json(self, value: object, revision: int | None = None) -> Response:
        """200 with ``value``, a structure of plain values."""
        headers = self._json.copy()
        if revision is not None:
            headers[REVISION] = str(revision)
        return Response(200, headers, _ENCODER.encode(value))

    def document(self, body: bytes) -> Response:
        """200 with JSON that is encoded already."""
        return Response(200, self._json.copy(), body)

    def page(
        self, status: int, content_type: str | None, body: bytes, tag: str, policy: str
    ) -> Response:
        """200 with a file of the console, or 304 without (``content_type`` is None)."""
        headers = self._text.copy()
        del headers["Content-Type"]
        if content_type is not None:
            headers["Content-Type"] = content_type
        # Kept, but asked for each time: a node of another version has another page.
        headers["Cache-Control"] = "no-cache"
        headers["Vary"] = "Accept-Encoding"
        headers["ETag"] = tag
        headers["Content-Security-Policy"] = policy
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return Response(status, headers, body)

    def preflight(self, allowed: dict[str, str]) -> Response:
        """200 with what a browser may do for a page of another origin."""
        headers = self._text | allowed
        del headers["Content-Type"]
        return Response(200, headers)

    def text(self, status: int, body: str) -> Response:
        """Lines for a probe or a person."""
        return Response(status, self._text.copy(), body.encode())

    def metrics(self, content_type: str, body: bytes) -> Response:
        """A scrape's answer."""
        return Response(200, {**self._text, "Content-Type": content_type}, body)

    def _read_headers(self, reading: Reading[Any], *, as_json: bool) -> dict[str, str]:
        headers = self._reads[reading.consistency, as_json].copy()
        headers[REVISION] = str(reading.found.revision)
        if reading.is_stale:
            age = reading.age_seconds
            headers[AGE] = "unknown" if age is None else f"{age:.3f}"
        return headers

    def _failed_read(self, headers: dict[str, str], kind: Kind, detail: str) -> Response:
        headers["Content-Type"] = "application/problem+json"
        return Response(kind.status, headers, _problem_body(kind, detail))


def _with_found(reading: Reading[Any], found: ReadResult) -> Reading[ReadResult]:
    return Reading(found, reading.consistency, reading.is_stale, reading.age_seconds)


def _problem_body(kind: Kind, detail: str, fields: Collection[tuple[str, int | str]] = ()) -> bytes:
    body = ProblemBody(
        f"urn:raftkv:problem:{kind.code}",
        kind.title,
        kind.status,
        detail,
        kind.code,
        kind.retryable,
        kind.outcome,
    )
    return _ENCODER.encode(msgspec.structs.asdict(body) | dict(fields) if fields else body)


def status_body(
    status: Status, uptime_seconds: float, warnings: tuple[str, ...]
) -> dict[str, object]:
    """`GET /v1/status`."""
    body = msgspec.structs.asdict(status)
    body["member_id"] = hex_id(status.member_id)
    body["leader"] = _hex_or_none(status.leader)
    body["uptime_seconds"] = round(uptime_seconds, 3)
    body["warnings"] = warnings
    return body


def cluster_body(cluster: ClusterStatus) -> dict[str, object]:
    """`GET /v1/cluster`."""
    body = msgspec.structs.asdict(cluster)
    body["leader"] = _hex_or_none(cluster.leader)
    for group in MEMBER_GROUPS:
        body[group] = [hex_id(member) for member in body[group]]
    body["joint"] = bool(cluster.voters_outgoing)
    body["members"] = [_member_body(member) for member in cluster.members]
    return body


def _member_body(member: MemberStatus) -> dict[str, object]:
    return {**msgspec.structs.asdict(member), "id": hex_id(member.id)}


def _hex_or_none(member: NodeId | None) -> str | None:
    return None if member is None else hex_id(member)
