"""`GET /v1/backup`: the whole store at one revision, as a file that verifies itself."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from raftkv.node.events import BackupOpened, Consistency, Get
from raftkv.node.messages import Failure
from raftkv.server.http.authorisation import Admin, authorise
from raftkv.server.http.calls.access import still_allowed
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.render import Response, StreamBroken
from raftkv.server.http.routes import Match
from raftkv.server.http.targets import parse_query

PIECE_BYTES: Final = 256 << 10
_BARRIER_SECONDS: Final = 5.0


async def backup(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET` and `HEAD /v1/backup`.

    Everything is in it that was acknowledged before the request came. The answer has a length,
    so that a client knows a file that is cut short; its last bytes are a checksum of the rest.
    """
    check = partial(authorise, request, Admin())
    check()
    parse_query(query, ())
    barrier = await at.driver.read(Get(b"\0"), Consistency.LINEARIZABLE, 0, _BARRIER_SECONDS)
    if isinstance(barrier, Failure):
        return at.failed(barrier)
    if request.method == "HEAD":
        return at.renderer.backup(at.revision, None, None)  # no reason to make one
    opened = await at.driver.backup()
    if isinstance(opened, Failure):
        return at.failed(opened)
    snapshot = opened.snapshot
    return at.renderer.backup(snapshot.revision, snapshot.size_bytes, _pieces(at, opened, check))


async def _pieces(
    at: Endpoint, opened: BackupOpened, check: Callable[[], None]
) -> AsyncIterator[bytes]:
    """All bytes of the file; it is closed afterwards, also if the client goes away."""
    offset = 0
    try:
        while offset < opened.snapshot.size_bytes:
            piece = await at.driver.backup_piece(opened.handle, offset, PIECE_BYTES)
            if isinstance(piece, Failure):
                raise StreamBroken(piece.detail)
            if not piece.data:
                raise StreamBroken("the file ends before it should")
            still_allowed(check)
            offset += len(piece.data)
            yield piece.data
    finally:
        at.driver.backup_end(opened.handle)
