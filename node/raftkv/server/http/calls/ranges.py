"""Calls of many keys: `/v1/kv`."""

import time
from collections.abc import AsyncIterator, Callable
from functools import partial

from raftkv.kv.ranges import Page
from raftkv.node.events import Consistency
from raftkv.node.messages import Failure, FailureCode
from raftkv.server.http import ranges
from raftkv.server.http.authorisation import ReadRange, WriteRange, authorise
from raftkv.server.http.calls.access import authorise_fence, still_allowed
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.guards import guarded, parse_guards
from raftkv.server.http.reading import HowToRead
from raftkv.server.http.render import Response, StreamBroken
from raftkv.server.http.routes import Match


async def read_range(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET` and `HEAD` of a range."""
    asked = ranges.parse_range(query, request.headers.getall("Accept", []))
    check = partial(authorise, request, ReadRange(asked.first.start, asked.first.end))
    check()
    deadline = time.monotonic() + asked.how.timeout_seconds
    reading = await at.read(asked.first, asked.how, Page)
    if isinstance(reading, Failure):
        return at.failed(reading)
    page = reading.found
    if asked.as_lines:
        is_head = request.method == "HEAD"
        lines = None if is_head else _lines(at, asked, page, check)
        return at.renderer.read_lines(reading, lines)
    pages, count, size = [page], page.count, ranges.page_bytes(page)
    while page.resume is not None and (
        asked.first.count_only or (count < asked.first.limit and size < ranges.PAGE_BYTES_MAX)
    ):
        following = await _next_piece(at, asked, page, count, deadline - time.monotonic())
        if isinstance(following, Failure):
            return at.failed(following)
        page = following
        pages.append(page)
        count += page.count
        size += ranges.page_bytes(page)
    return at.renderer.found(reading, ranges.page_body(asked, pages))


async def _lines(
    at: Endpoint, asked: ranges.ReadRange, page: Page, check: Callable[[], None]
) -> AsyncIterator[bytes]:
    """All of a range from ``page`` on; each piece has the whole timeout for itself.

    ``check`` raises Refused once the client may not see it any more.
    """
    count = page.count
    yield ranges.page_lines(asked, page)
    while page.resume is not None and count < asked.first.limit:
        following = await _next_piece(at, asked, page, count, asked.how.timeout_seconds)
        if isinstance(following, Failure):
            raise StreamBroken(following.detail)
        still_allowed(check)
        page = following
        count += page.count
        yield ranges.page_lines(asked, page)


async def _next_piece(
    at: Endpoint, asked: ranges.ReadRange, page: Page, count: int, seconds: float
) -> Page | Failure:
    """What follows ``page``, from this node's store: the revision is chosen already."""
    if seconds <= 0:
        return Failure(FailureCode.DEADLINE, "the deadline passed while reading the range")
    piece = asked.next_piece(page, 0 if asked.first.count_only else count)
    here = HowToRead(Consistency.LOCAL, page.revision, seconds)
    reading = await at.read(piece, here, Page)
    return reading if isinstance(reading, Failure) else reading.found


async def delete_range(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`DELETE` of a range."""
    guards = parse_guards(request.headers)
    asked = ranges.parse_delete(query, request.headers)
    authorise(request, WriteRange(asked.command.start, asked.command.end))
    authorise_fence(request, guards)
    if asked.how.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    answer = await at.write(guarded(asked.command, guards, request, b""), asked.how.timeout_seconds)
    return at.answered(answer, partial(at.renderer.write, b""))
