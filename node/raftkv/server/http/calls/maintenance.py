"""Calls that maintain one node: `/v1/maintenance/...`."""

from raftkv.node.events import Failure
from raftkv.server.http import requests
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Match


async def drain(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`POST` and `DELETE /v1/maintenance/drain`."""
    body = b""
    if request.method == "POST":
        body = await request.read_body(requests.JSON_BODY_BYTES_MAX)
    asked = requests.parse_drain(request.method, query, body)
    answer = await at.driver.drain(draining=asked.draining, avoid=asked.avoid)
    if isinstance(answer, Failure):
        return at.failed(answer)
    return at.renderer.json({"draining": answer.draining}, at.revision)
