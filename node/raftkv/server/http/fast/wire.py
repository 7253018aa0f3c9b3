"""From an answer to its bytes: the same status, headers and body that aiohttp sends for it.

What most requests are answered with has a template; it is made of an answer that the `Renderer`
gave, so that both say the same.
"""

import time
from collections.abc import Collection
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import msgspec

from raftkv.kv.outcomes import Item, Written
from raftkv.node.events import Consistency, ReadResult
from raftkv.server.http.reading import LINEARIZABLE, Reading
from raftkv.server.http.render import Renderer, Response, WrittenBody
from raftkv.server.http.requests import ReadKey
from raftkv.server.http.texts import NO_LEASE, hex_id, text_of

_encode_json: Final = msgspec.json.Encoder().encode
_CLOSE: Final = b"Connection: close\r\n"
_NO_BODY: Final = frozenset({204, 304})  # and no Content-Length


class Wire:
    """The answers of one node, as bytes."""

    def __init__(self, renderer: Renderer) -> None:
        self._date_second = 0
        self._date = b""
        asked = ReadKey(b"k", 0, LINEARIZABLE, False, None, None)
        item = Item(b"k", b"", 1, 1, 1)
        reading = Reading(ReadResult(item, 1), Consistency.LINEARIZABLE)
        found = renderer.read(asked, reading)
        self._found = _template(
            found,
            {
                "X-RaftKV-Revision": b"%d",
                "ETag": b'"%d"',
                "X-RaftKV-Create-Revision": b"%d",
                "X-RaftKV-Mod-Revision": b"%d",
                "X-RaftKV-Version": b"%d",
                "X-RaftKV-Lease": b"%b",
            },
        )
        variable = {"ETag": b'"%d"', "X-RaftKV-Revision": b"%d"}
        self._created = _template(renderer.write(b"k", Written(1, 1)), variable)
        self._replaced = _template(renderer.write(b"k", Written(1, 2)), variable)

    def found(self, result: ReadResult, item: Item, *, closes: bool) -> bytes:
        """200 with the raw value of ``item``, found by a linearizable read."""
        value = item.value
        return self._found % (
            result.revision,
            item.mod_revision,
            item.create_revision,
            item.mod_revision,
            item.version,
            hex_id(item.lease).encode() if item.lease else _NO_LEASE,
            len(value),
            self._date_line(),
            _CLOSE if closes else b"",
            value,
        )

    def written(self, key: bytes, outcome: Written, *, closes: bool) -> bytes:
        """200 or 201: ``key`` was stored."""
        revision = outcome.revision
        body = _encode_json(WrittenBody(*text_of(key), revision, outcome.version))
        template = self._created if outcome.version == 1 else self._replaced
        return template % (
            revision,
            revision,
            len(body),
            self._date_line(),
            _CLOSE if closes else b"",
            body,
        )

    def response(self, response: Response, *, closes: bool) -> bytes:
        """Any answer that is neither a stream nor live."""
        status = response.status
        lines = [_status_line(status)]
        lines += [f"{name}: {value}\r\n" for name, value in response.headers.items()]
        if status not in _NO_BODY:
            lines.append(f"Content-Length: {len(response.body)}\r\n")
        head = "".join(lines).encode("utf-8")
        close = _CLOSE if closes else b""
        return b"%bDate: %b\r\n%b\r\n%b" % (head, self._date_line(), close, response.body)

    def _date_line(self) -> bytes:
        now = int(time.time())
        if now != self._date_second:
            self._date_second = now
            self._date = formatdate(now, usegmt=True).encode("ascii")
        return self._date


_NO_LEASE: Final = NO_LEASE.encode("ascii")


def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"


def _template(sample: Response, variable: dict[str, bytes]) -> bytes:
    """A format of the ``variable`` headers in their order, length, date, close and body."""
    fixed = _without(sample.headers, variable)
    head = _status_line(sample.status) + "".join(f"{name}: {fixed[name]}\r\n" for name in fixed)
    varied = b"".join(b"%b: %b\r\n" % (name.encode(), form) for name, form in variable.items())
    fixed_head = head.encode("utf-8").replace(b"%", b"%%")
    return fixed_head + varied + b"Content-Length: %d\r\nDate: %b\r\n%b\r\n%b"


def _without(headers: dict[str, str], names: Collection[str]) -> dict[str, str]:
    assert set(names) <= set(headers), "the renderer names these headers otherwise"
    return {name: value for name, value in headers.items() if name not in names}
