"""The shapes of requests and answers of the HTTP API, and how they become values.

The one place that knows how the API spells things (docs/http-api.md).
"""

import base64
import re
from collections.abc import Mapping
from typing import Final, Literal, TypeVar
from urllib.parse import quote, quote_from_bytes

import msgspec
from yarl import URL

from raftkv.client.errors import (
    AccessError,
    ClientError,
    CompactedError,
    ConditionFailedError,
    EpochChangedError,
    LockHeldError,
    NotFoundError,
    OutcomeUnknownError,
    RequestFailedError,
)
from raftkv.client.model import NO_LEASE, Fence, Item

Shape = TypeVar("Shape")

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h)")


# ---- names and times ------------------------------------------------------------------------


def parse_endpoint(text: str) -> URL:
    """A node's base URL from "http://host:port" or "host:port"; ValueError if it is neither."""
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.path not in ("", "/"):
        raise ValueError(f"{text!r} is not an endpoint such as http://127.0.0.1:7400")
    return url


def key_path(key: bytes) -> str:
    """The path of a key: readable where it survives URL libraries and proxies, else base64url."""
    segments = key.split(b"/")
    if b"" in segments or b"." in segments or b".." in segments:
        return "/v1/k/" + base64.urlsafe_b64encode(key).rstrip(b"=").decode("ascii")
    return "/v1/kv/" + quote_from_bytes(key, safe="/")


def segment(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="", errors="surrogateescape")


def query_bytes(data: bytes) -> str:
    """``data`` as the value of a query parameter."""
    return quote_from_bytes(data, safe="")


def duration(seconds: float) -> str:
    """As the API takes it: whole milliseconds, at least one."""
    return f"{max(1, round(seconds * 1000))}ms"


def parse_duration(text: str) -> float:
    """Seconds of "1500ms", "30s" or "1m30s"; ValueError otherwise."""
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a time such as 500ms, 30s or 1m30s")
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def fence_header(fence: Fence) -> str:
    """The value of X-RaftKV-Fence."""
    return f"{segment(fence.name)}:{fence.token}"


def to_text(data: bytes) -> tuple[str, Literal["utf-8", "base64"]]:
    """``data`` as JSON carries it, and its encoding."""
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii"), "base64"


def to_bytes(text: str, encoding: str) -> bytes:
    """The bytes that JSON carried."""
    return base64.b64decode(text) if encoding == "base64" else text.encode()


def to_name(text: str, encoding: str) -> str:
    """The name that JSON carried; bytes that are not UTF-8 as surrogates, as `segment` takes it."""
    return to_bytes(text, encoding).decode(errors="surrogateescape")


def bytes_fields(name: str, data: bytes) -> dict[str, str]:
    """The two fields that carry bytes in JSON; the encoding is left out when it is the default."""
    text, encoding = to_text(data)
    return {name: text} if encoding == "utf-8" else {name: text, f"{name}_encoding": encoding}


# ---- answers --------------------------------------------------------------------------------


class Problem(msgspec.Struct, frozen=True):
    """What a failing node says."""

    detail: str
    code: str
    retryable: bool
    outcome: Literal["not_committed", "committed", "unknown"]
    oldest_revision: int = 0  # of 410


class Answer(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def problem(self) -> Problem | None:
        """What a failing node said; None when it was not a node that answered."""
        try:
            return msgspec.json.decode(self.body, type=Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def revision(self) -> int:
        """Of the store, 0 if the answer does not say."""
        text = self.headers.get("X-RaftKV-Revision", "")
        return int(text) if text.isascii() and text.isdigit() else 0

    def retry_after_seconds(self) -> float:
        """What Retry-After says, 0 if it says nothing in seconds."""
        text = self.headers.get("Retry-After", "")
        return float(text) if text.isascii() and text.isdigit() else 0.0


class ItemBody(msgspec.Struct, frozen=True):
    """A JSON item."""

    key: str
    create_revision: int
    mod_revision: int
    version: int
    key_encoding: str = "utf-8"
    value: str = ""
    value_encoding: str = "utf-8"
    lease: str = NO_LEASE

    def item(self, revision: int) -> Item:
        """The value; ``revision`` is the store's."""
        return Item(
            to_bytes(self.key, self.key_encoding),
            to_bytes(self.value, self.value_encoding),
            self.create_revision,
            self.mod_revision,
            self.version,
            revision,
            self.lease,
        )


class WrittenBody(msgspec.Struct, frozen=True):
    """The answer to a PUT or an append."""

    revision: int
    version: int
    prev: ItemBody | None = None


class DeletedBody(msgspec.Struct, frozen=True):
    """The answer to a DELETE."""

    deleted: int
    revision: int
    prev: ItemBody | None = None


class CounterBody(msgspec.Struct, frozen=True):
    """The answer to an increment."""

    value: str


class PrefixBody(msgspec.Struct, frozen=True):
    """Keys that were folded at the delimiter."""

    prefix: str
    prefix_encoding: str = "utf-8"

    def data(self) -> bytes:
        """The prefix itself."""
        return to_bytes(self.prefix, self.prefix_encoding)


class PageBody(msgspec.Struct, frozen=True):
    """A page of a range."""

    revision: int
    items: tuple[ItemBody, ...]
    prefixes: tuple[PrefixBody, ...]
    next_cursor: str | None


class CountBody(msgspec.Struct, frozen=True):
    """The answer to a range with count_only."""

    count: int
    revision: int


def decode(answer: Answer, shape: type[Shape], *, is_write: bool = False) -> Shape:
    """The body of a good answer; raises what `failure` makes of any other."""
    if answer.status in (200, 201, 202):
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # some other server's idea of success
    raise failure(answer, is_write=is_write)


def decode_line(line: bytes, shape: type[Shape]) -> Shape:
    """One line of a long answer; `RequestFailedError` if it is not of that shape."""
    try:
        return msgspec.json.decode(line, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        detail = f"a line of the answer is not what a RaftKV node sends: {error}"
        raise RequestFailedError(detail, status=200, code="foreign_answer") from None


def prev_item(body: ItemBody | None, revision: int) -> Item | None:
    """The item before a write, as the store had it one revision earlier."""
    return None if body is None else body.item(revision)


def item_of(key: bytes, answer: Answer) -> Item:
    """The item of a raw value and its headers; KeyError if a header is not there."""
    headers = answer.headers
    return Item(
        key,
        answer.body,
        int(headers["X-RaftKV-Create-Revision"]),
        int(headers["X-RaftKV-Mod-Revision"]),
        int(headers["X-RaftKV-Version"]),
        int(headers["X-RaftKV-Revision"]),
        headers.get("X-RaftKV-Lease", NO_LEASE),
        _age_seconds(headers),
    )


def _age_seconds(headers: Mapping[str, str]) -> float | None:
    text = headers.get("X-RaftKV-Age-Seconds", "")
    return float(text) if text.replace(".", "", 1).isdigit() else None


def failure(answer: Answer, *, is_write: bool) -> ClientError:
    """The error that an answer stands for."""
    problem = answer.problem()
    if problem is None:
        detail = f"an answer with status {answer.status} came from no RaftKV node"
        if is_write:
            return OutcomeUnknownError(detail, status=answer.status, code="foreign_answer")
        return RequestFailedError(detail, status=answer.status, code="foreign_answer")
    if problem.outcome == "unknown" and is_write:
        return OutcomeUnknownError(problem.detail, status=answer.status, code=problem.code)
    return _refusal(answer, problem)


def _refusal(answer: Answer, problem: Problem) -> RequestFailedError:
    match answer.status:
        case 410 if problem.code == "epoch_changed":
            return EpochChangedError(problem.detail)
        case 410:
            oldest = problem.oldest_revision
            return CompactedError(problem.detail, oldest_revision=oldest, code=problem.code)
        case 412:
            tag = answer.headers.get("ETag")
            mod_revision = None if tag is None else int(tag.strip('"').removesuffix("-j"))
            return ConditionFailedError(
                problem.detail, mod_revision=mod_revision, code=problem.code
            )
        case _:
            pass
    kinds: dict[int, type[RequestFailedError]] = {
        401: AccessError,
        403: AccessError,
        404: NotFoundError,
    }
    kind = kinds.get(answer.status, RequestFailedError)
    if answer.status == 409 and problem.code in ("lock_held", "held"):
        kind = LockHeldError
    return kind(problem.detail, status=answer.status, code=problem.code, outcome=problem.outcome)
