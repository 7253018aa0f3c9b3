"""Following changes: `/v1/watch`."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from raftkv.kv.changes import Changes, ChangesAfter
from raftkv.kv.ranges import Page, Range
from raftkv.node.events import Consistency, Stale
from raftkv.node.messages import Failure, FailureCode
from raftkv.server.http.authorisation import authorise
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.live import LiveConnection
from raftkv.server.http.problems import EPOCH_CHANGED, Refused
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Match
from raftkv.server.http.watching import Watch, parse_watch
from raftkv.server.watch_events import Encoder, encode_change, epoch_of
from raftkv.server.watches import Stream, Wanted, is_cut_off

# What a stream that is behind reads at once: about 2 ms with the encoding (node design, rule 26).
_PIECE_RECORDS_MAX: Final = 500
_PIECE_BYTES_MAX: Final = 256 << 10
_READ_SECONDS_MAX: Final = 5.0
_RETRY_SECONDS: Final = 0.05
# An empty range: all that is asked is how far the store is.
_NOTHING: Final = Range(b"", b"")


class _Begun(NamedTuple):
    """A watch that was granted."""

    wanted: Wanted
    check: Callable[[], None]  # raises Refused once the client may not see it any more
    encoder: Encoder
    start: int
    first: Changes  # after ``start``


async def watch(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET` and `HEAD` of a watch."""
    asked = parse_watch(query, request.headers)
    check = partial(authorise, request, asked.access)
    check()
    at.watches.check_room()
    cluster_id = at.driver.status().cluster_id
    if cluster_id is None:
        return at.failed(Failure(FailureCode.UNINITIALISED, "this node is in no cluster yet"))
    encoder = Encoder(epoch_of(cluster_id))
    if asked.after is not None and asked.after.epoch not in (None, encoder.epoch):
        detail = "the store was restored, or this is another cluster: read afresh, then watch"
        raise Refused(EPOCH_CHANGED, detail)
    first = await _begin(at, asked)
    if isinstance(first, Failure):
        return at.failed(first)
    start = first.revision if asked.after is None else asked.after.revision
    if request.method == "HEAD":
        return at.renderer.events(start, None)
    begun = _Begun(asked.wanted, check, encoder, start, first)
    return at.renderer.events(start, partial(_serve, at, begun))


async def _begin(at: Endpoint, asked: Watch) -> Changes | Failure:
    """The first changes to be told; none, at the present revision, for a watch from now on.

    "Now" is found out by a linearizable read: what was acknowledged before will not be told,
    and all that is acknowledged later will. A watch of the past needs no leader to begin, if this
    node has heard of one lately.
    """
    status = at.driver.status()
    if asked.after is None or asked.after.revision > status.revision or is_cut_off(status):
        page = await at.driver.read(_NOTHING, Consistency.LINEARIZABLE, 0, asked.timeout_seconds)
        if isinstance(page, Failure):
            return page
        assert isinstance(page, Page)
        if asked.after is None:
            return Changes((), page.revision, page.revision)
        if asked.after.revision > page.revision:
            detail = (
                f"revision {asked.after.revision} is in the future: the store is at {page.revision}"
            )
            return Failure(FailureCode.FUTURE_REVISION, detail)
    return await _read(at, asked.wanted, asked.after.revision)


async def _read(at: Endpoint, wanted: Wanted, after: int) -> Changes | Failure:
    """The next changes for one stream, from this node's store."""
    query = ChangesAfter(
        after, *wanted.bounds, _PIECE_RECORDS_MAX, _PIECE_BYTES_MAX, wanted.with_previous
    )
    async with at.watches.catching_up:
        answer = await at.driver.read(query, Consistency.LOCAL, 0, _READ_SECONDS_MAX)
    found = answer.found if isinstance(answer, Stale) else answer
    assert isinstance(found, Changes | Failure)
    return found


async def _serve(at: Endpoint, begun: _Begun, connection: LiveConnection) -> None:
    """Tell everything after the start, and then what happens, until the stream ends."""
    encoder, wanted = begun.encoder, begun.wanted
    stream = Stream(wanted, begun.start, connection, begun.check)
    answer: Changes | Failure = begun.first
    async with at.watches.stream(stream, encoder):
        await connection.write(encoder.progress(begun.start))
        told_at = time.monotonic()
        while True:
            if isinstance(answer, Failure):
                await _failed(stream, encoder, answer)
            else:
                stream.position = answer.revision
                told = [
                    encode_change(change, with_previous=wanted.with_previous)
                    for change in answer.changes
                ]
                is_silent = time.monotonic() - told_at >= at.watches.progress_seconds
                if told or is_silent:
                    raw = encoder.events(told) or encoder.progress(stream.position)
                    await connection.write(raw)
                    told_at = time.monotonic()
            if stream.ended.done() or at.watches.join(stream):
                break
            answer = await _read(at, wanted, stream.position)
        last_words = await stream.ended
        if last_words:
            await connection.write(last_words)


async def _failed(stream: Stream, encoder: Encoder, failure: Failure) -> None:
    """The stream could not read on: it ends, or tries again."""
    match failure.code:
        case FailureCode.COMPACTED:
            stream.end(encoder.compacted(failure.revision))
        case FailureCode.STOPPED:
            stream.end(encoder.bye(stream.position))
        case _:
            await asyncio.sleep(_RETRY_SECONDS)
