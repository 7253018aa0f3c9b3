"""The strict recogniser of request heads. Pure.

Accepts a subset of what any HTTP/1.1 parser accepts, and only where all of them agree: CRLF alone
ends lines, names are letters, digits and hyphens, values visible ASCII with single-line spaces
within, no name stands twice, and whatever changes the framing or the connection beyond one plain
Content-Length is not recognised. Not recognised means: somebody else's, never: wrong.

Most clients send the same header lines with every request, so the verdict on a block of lines is
remembered, unless it holds what belongs to one request or one user.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from multidict import CIMultiDict

from raftkv.server.http.problems import Refused
from raftkv.server.http.requests import Headers, check_head

#: Longer heads are aiohttp's, whose limit to a single line is about this.
HEAD_BYTES_MAX: Final = 8000
_HEADERS_MAX: Final = 100  # aiohttp: 128
_BLOCKS_MAX: Final = 1024
_BLOCK_BYTES_MAX: Final = 1024

END: Final = b"\r\n\r\n"

#: Method and target. RFC 3986 `pchar`, slashes, and a query with question marks.
match_line: Final[Callable[[bytes, int], re.Match[bytes] | None]] = re.compile(
    rb"(GET|PUT|DELETE|POST) "
    rb"(/v1/kv?/[A-Za-z0-9\-._~!$&'()*+,;=:@/%]+(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@/%?]*)?)"
    rb" HTTP/1\.1\r\n"
).match
_HEADER: Final = re.compile(rb"([A-Za-z][A-Za-z0-9\-]*): ?([!-~](?:[ !-~]*[!-~])?)\r\n")
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,9}")
_METHODS: Final = (b"GET /v1/k", b"PUT /v1/k", b"DELETE /v1/k", b"POST /v1/k")
# Whole lines, or the beginning of one: nothing that no head may hold.
_LINES: Final = re.compile(rb"[ -~]*(?:\r\n[ -~]+)*(?:\r|\r\n\r?)?")

# What has to do with framing, the connection or the body's form.
_NOT_OURS: Final = frozenset(
    {
        "content-encoding",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "sec-websocket-key1",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What changes the meaning of a request. Everything else is ignored, here as there.
_MEANT: Final = frozenset(
    {
        "authorization",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "origin",
        "x-raftkv-cluster",
        "x-raftkv-fence",
    }
)
# What a client sends with every request alike, and is no secret.
_REMEMBERED: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "host",
        "pragma",
        "user-agent",
        "x-raftkv-cluster",
    }
)


class Block(NamedTuple):
    """The verdict on the header lines of a request."""

    headers: Headers
    body_bytes: int
    #: Nothing in it changes what a read, or a write, means.
    is_plain_read: bool
    is_plain_write: bool


class Recogniser:
    """Judges blocks of header lines for one listener."""

    def __init__(self, *, must_be_local: bool) -> None:
        """``must_be_local``: see `raftkv.server.http.requests.check_head`."""
        self._must_be_local = must_be_local
        #: Verdicts by the bytes of the block; to be asked before `judge`.
        self.known: Final[dict[bytes, Block]] = {}

    def judge(self, block: bytes) -> Block | None:
        """The verdict on whole lines, each with its CRLF; None: not recognised."""
        headers: CIMultiDict[str] = CIMultiDict()
        names: set[str] = set()
        position = 0
        while position < len(block):
            line = _HEADER.match(block, position)
            if line is None:
                return None
            raw_name, raw_value = line.groups()
            name = raw_name.decode("ascii")
            folded = name.lower()
            if folded in names or folded in _NOT_OURS:
                return None
            names.add(folded)
            headers.add(name, raw_value.decode("ascii"))
            position = line.end()
        verdict = self._verdict(headers, names)
        if verdict is not None and len(block) <= _BLOCK_BYTES_MAX and names <= _REMEMBERED:
            if len(self.known) >= _BLOCKS_MAX:
                self.known.clear()
            self.known[block] = verdict
        return verdict

    def _verdict(self, headers: CIMultiDict[str], names: set[str]) -> Block | None:
        if "host" not in names or len(names) > _HEADERS_MAX:
            return None
        if headers.get("Connection", "keep-alive").lower() != "keep-alive":
            return None
        length = headers.get("Content-Length", "0")
        if _LENGTH.fullmatch(length.encode("ascii")) is None:
            return None
        is_plain = not names & _MEANT
        try:
            check_head(headers, is_write=is_plain, must_be_local=self._must_be_local)
        except Refused:
            return None
        return Block(
            headers, int(length), is_plain and headers.get("Accept", "*/*") == "*/*", is_plain
        )


def may_become_head(start: bytes) -> bool:
    """Whether the head that begins so may still be recognised, once it is whole."""
    if len(start) > HEAD_BYTES_MAX or _LINES.fullmatch(start) is None:
        return False
    return any(start.startswith(method) or method.startswith(start) for method in _METHODS)
