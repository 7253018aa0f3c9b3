"""Ranges of keys over HTTP: what a request asks, its cursor, and the answer's body. Pure.

Called by `raftkv.server.http.calls`. A range is read in pieces, each short; a page of JSON is
made of as many as its limits allow, a stream of lines of all. A cursor holds the pinned revision,
the place and a checksum of the range it belongs to; the client repeats the other parameters.
"""

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from raftkv.kv.commands import DeleteRange
from raftkv.kv.ranges import Page, Range, end_of_prefix
from raftkv.node.events import Consistency
from raftkv.server.http import parameters as take
from raftkv.server.http.problems import BAD_HEADER, BAD_PARAMETER, Kind, Refused, quoted
from raftkv.server.http.reading import READ_PARAMETERS, HowToRead, take_how_to_read
from raftkv.server.http.render import item_body
from raftkv.server.http.requests import Headers
from raftkv.server.http.targets import KEY_BYTES_MAX, parse_query_bytes, query_text
from raftkv.server.http.texts import text_of
from raftkv.server.http.writing import WRITE_PARAMETERS, HowToWrite, take_how_to_write

LIMIT_DEFAULT: Final = 1000
KEYS_REMOVED_MAX: Final = 10_000  # by one command (node design, rule 24)
LIMIT_MAX: Final = 10_000
PAGE_BYTES_MAX: Final = 4 << 20  # of keys, values and prefixes; the last piece may go beyond

# What one piece may hold and look at, so that it takes about 2 ms (node design, rule 26).
_PIECE_BYTES_MAX: Final = 256 << 10
_PIECE_SCAN_MAX: Final = 500

#: Query parameters of a read and of a removal, the latter beside those of every write.
RANGE_PARAMETERS: Final = (
    "prefix", "start", "end", "limit", "cursor", "keys_only", "count_only", "delimiter", "order",
    "revision", *READ_PARAMETERS,
)  # fmt: skip
REMOVE_PARAMETERS: Final = ("prefix", "start", "end", "all")
_BYTES: Final = frozenset({"prefix", "start", "end", "delimiter"})  # of any value
_UNLIMITED: Final = 2**63 - 1
_ENCODER: Final = msgspec.json.Encoder()


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    revision: int
    checksum: int  # of the range it belongs to
    place: bytes


_CURSOR_DECODER: Final = msgspec.msgpack.Decoder(_Cursor)


@dataclass(frozen=True, slots=True)
class ReadRange:
    """Answer the items of a range."""

    first: Range  # the first piece
    how: HowToRead
    as_lines: bool  # every item is a line of its own, without end
    checksum: int

    def next_piece(self, page: Page, count: int) -> Range:
        """The piece after ``page``, when ``count`` items and prefixes were given so far."""
        assert page.resume is not None, "the range is complete"
        return _resumed(self.first, page.revision, page.resume, self.first.limit - count)

    def cursor(self, page: Page) -> str | None:
        """How the client asks for what follows ``page``; None at the end of the range."""
        if page.resume is None:
            return None
        cursor = _Cursor(page.revision, self.checksum, page.resume)
        data = msgspec.msgpack.encode(cursor)
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


@dataclass(frozen=True, slots=True)
class RemoveRange:
    """Remove all keys of a range."""

    command: DeleteRange
    how: HowToWrite


def parse_range(query: str, accept: list[str]) -> ReadRange:
    """GET /v1/kv. The detail of a refusal names the parameter."""
    given = parse_query_bytes(query, RANGE_PARAMETERS)
    start, end = parse_bounds(given)
    prefix, delimiter = given.get("prefix", b""), given.get("delimiter", b"")
    text = {name: query_text(name, value) for name, value in given.items() if name not in _BYTES}
    as_lines = wants_lines(accept)
    is_descending = _order(text.get("order")) == "desc"
    with_values = not take.flag("keys_only", text.get("keys_only"))
    first = Range(
        start=start,
        end=end,
        revision=take.revision(text.get("revision")),
        is_descending=is_descending,
        limit=_limit(text.get("limit"), _UNLIMITED if as_lines else LIMIT_DEFAULT),
        bytes_max=_PIECE_BYTES_MAX,
        scan_max=_PIECE_SCAN_MAX,
        with_values=with_values,
        count_only=take.flag("count_only", text.get("count_only")),
        delimiter=delimiter,
        prefix_bytes=len(prefix),
    )
    checksum = zlib.crc32(repr((prefix, start, end, delimiter, is_descending)).encode())
    how = take_how_to_read(text)
    if "cursor" in text:
        first = _at_cursor(first, _cursor(text["cursor"]), checksum)
        # The revision is chosen already: any node that has reached it gives the same page.
        how = how._replace(
            consistency=Consistency.LOCAL, min_revision=max(how.min_revision, first.revision)
        )
    if as_lines and first.count_only:
        raise Refused(BAD_PARAMETER, "count_only has no lines: ask for application/json")
    return ReadRange(first, how, as_lines, checksum)


def parse_delete(query: str, headers: Headers) -> RemoveRange:
    """DELETE /v1/kv. A range that is open at an end needs ``all=true``."""
    if headers.get("If-Match") is not None or headers.get("If-None-Match") is not None:
        raise Refused(BAD_HEADER, "a condition is about one key: a range takes none")
    given = parse_query_bytes(query, (*REMOVE_PARAMETERS, *WRITE_PARAMETERS))
    start, end = parse_bounds(given)
    text = {name: query_text(name, value) for name, value in given.items() if name not in _BYTES}
    check_open(given, is_all=take.flag("all", text.get("all")))
    return RemoveRange(DeleteRange(start, end, KEYS_REMOVED_MAX), take_how_to_write(text))


def check_open(given: Mapping[str, bytes], kind: Kind = BAD_PARAMETER, *, is_all: bool) -> None:
    """Refuse to remove a range that is open at an end, unless that was said on purpose."""
    is_open = not given.get("prefix") and not (given.get("start") and given.get("end"))
    if is_open and not is_all:
        name = "all=true" if kind is BAD_PARAMETER else '"all": true'
        detail = f"a range without a prefix, or open at an end, is removed only with {name}"
        raise Refused(kind, detail)


def parse_bounds(
    given: Mapping[str, bytes], kind: Kind = BAD_PARAMETER
) -> tuple[bytes, bytes | None]:
    """The first key of a range and the first beyond it, from prefix, start and end."""
    for name in sorted(_BYTES & given.keys()):
        if len(given[name]) > KEY_BYTES_MAX:
            raise Refused(kind, f"{name} is longer than a key can be, 511 bytes")
    start, end = given.get("start", b""), given.get("end") or None
    if end is not None and start > end:
        raise Refused(kind, "start is beyond end")
    prefix = given.get("prefix", b"")
    beyond = end_of_prefix(prefix)
    ends = [each for each in (end, beyond) if each is not None]
    return max(start, prefix), min(ends, default=None)


def wants_lines(accept: list[str]) -> bool:
    """Whether Accept names application/x-ndjson."""
    ranges = ",".join(accept).lower().split(",")
    return any(each.partition(";")[0].strip() == "application/x-ndjson" for each in ranges)


def _order(text: str | None) -> str:
    if text not in (None, "asc", "desc"):
        raise Refused(BAD_PARAMETER, "order is asc or desc")
    return text or "asc"


def _limit(text: str | None, default: int) -> int:
    return default if text is None else take.number("limit", text, 1, LIMIT_MAX, str(LIMIT_MAX))


def _cursor(text: str) -> _Cursor:
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return _CURSOR_DECODER.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except ValueError:  # of ASCII, of Base64, of MessagePack and of UTF-8
        raise Refused(BAD_PARAMETER, f"cursor {quoted(text)} is none of this server") from None


def _at_cursor(first: Range, cursor: _Cursor, checksum: int) -> Range:
    is_inside = first.start <= cursor.place and (first.end is None or cursor.place <= first.end)
    is_same = cursor.checksum == checksum and first.revision in (0, cursor.revision)
    if not (is_inside and is_same and 1 <= cursor.revision < 2**63 and len(cursor.place) <= 511):
        detail = "cursor belongs to another range: repeat the parameters of the first page"
        raise Refused(BAD_PARAMETER, detail)
    return _resumed(first, cursor.revision, cursor.place, first.limit)


def _resumed(first: Range, revision: int, place: bytes, limit: int) -> Range:
    if first.is_descending:
        return msgspec.structs.replace(first, end=place, revision=revision, limit=limit)
    return msgspec.structs.replace(first, start=place, revision=revision, limit=limit)


# ---- bodies ---------------------------------------------------------------------------------


def page_body(asked: ReadRange, pages: list[Page]) -> dict[str, object]:
    """A page of JSON, from its pieces."""
    revision = pages[0].revision
    if asked.first.count_only:
        return {"revision": revision, "count": sum(page.count for page in pages)}
    found = [each for page in pages for each in _bodies(asked, page)]
    return {
        "revision": revision,
        "items": [each for each in found if "key" in each],
        "prefixes": [each for each in found if "key" not in each],
        "next_cursor": asked.cursor(pages[-1]),
    }


def page_lines(asked: ReadRange, page: Page) -> bytes:
    """A piece as lines of JSON."""
    return b"".join(_ENCODER.encode(each) + b"\n" for each in _bodies(asked, page))


def page_bytes(page: Page) -> int:
    """What counts towards `PAGE_BYTES_MAX`."""
    return sum(len(item.key) + len(item.value) for item in page.items) + sum(
        len(prefix) for prefix in page.prefixes
    )


def _bodies(asked: ReadRange, page: Page) -> list[dict[str, object]]:
    bodies: list[dict[str, object]] = []
    for item in page.items:
        body = msgspec.structs.asdict(item_body(item))
        if not asked.first.with_values:
            del body["value"], body["value_encoding"]
        bodies.append(body)
    for prefix in page.prefixes:
        text, encoding = text_of(prefix)
        bodies.append({"prefix": text, "prefix_encoding": encoding})
    return bodies
