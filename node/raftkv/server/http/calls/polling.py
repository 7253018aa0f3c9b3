"""Long polls: `GET` of a key with ``after`` or ``wait``."""

import asyncio

from raftkv.kv.changes import LastChange, LastChanged
from raftkv.node.events import Consistency
from raftkv.node.messages import Failure
from raftkv.server.http import requests
from raftkv.server.http.authorisation import ReadKey, authorise
from raftkv.server.http.conditions import etag
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.problems import FUTURE_REVISION, Refused
from raftkv.server.http.reading import Reading
from raftkv.server.http.render import Response


async def wait_for_change(
    at: Endpoint, request: Request, asked: requests.ReadKey, wait_seconds: float
) -> Response:
    """The key, once it has changed; 204 or 304 when it has not in the time there is.

    The first read is as consistent as was asked for. If it finds nothing new, later ones ask this
    node's store alone: what that newly shows was committed since, so they promise as much.
    """
    at.watches.check_room()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    how = asked.how
    while True:
        # Changes are noticed from here on, so that none falls between looking and waiting.
        async with at.watches.poll(asked.key) as changed:
            reading = await at.read(LastChange(asked.key), how, LastChanged)
            if isinstance(reading, Failure):
                return at.failed(reading)
            if how is not asked.how and asked.how.consistency is Consistency.LINEARIZABLE:
                reading = Reading(reading.found, Consistency.LINEARIZABLE)
            if request.identity is not None:
                authorise(request, ReadKey(asked.key))  # it may have been revoked meanwhile
            if _is_news(asked, reading):
                return at.renderer.change(asked, reading)
            # 0 and None: the node leaves, or the time is over.
            if not await _within(changed, deadline - loop.time()):
                return at.renderer.unchanged(asked, reading)
        how = asked.how._replace(consistency=Consistency.LOCAL, min_revision=0)


def _is_news(asked: requests.ReadKey, reading: Reading[LastChanged]) -> bool:
    found = reading.found
    if asked.after is None:
        tags = asked.if_none_match
        assert tags is not None, "a long poll has a revision or a tag"
        item = found.item
        return item is None or not tags.matches(etag(item.mod_revision, as_json=asked.as_json))
    if asked.after > found.revision and reading.consistency is Consistency.LINEARIZABLE:
        detail = f"revision {asked.after} is in the future: the store is at {found.revision}"
        raise Refused(FUTURE_REVISION, detail)
    if found.changed_at > asked.after:
        return True
    # It may have been removed after that revision, and the trace of it too.
    return found.item is None and not found.changed_at and asked.after < found.compacted_revision


async def _within(changed: asyncio.Future[int], seconds: float) -> int | None:
    """What the future says, or None if it says nothing in time."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            return await changed
    except TimeoutError:
        return None
