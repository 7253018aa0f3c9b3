"""Calls about the node and its cluster: `/v1/status`, `/v1/cluster`."""

import time

from raftkv.node.events import Failure
from raftkv.server.http import requests
from raftkv.server.http.authorisation import AnyRole, authorise
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.render import Response, cluster_body, hex_id, status_body
from raftkv.server.http.routes import Match
from raftkv.server.http.targets import parse_query


async def status(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET /v1/status`."""
    authorise(request, AnyRole())
    parse_query(query, ())
    status = at.driver.status()
    uptime_seconds = time.monotonic() - at.started_at
    settings = at.settings
    body = status_body(status, uptime_seconds, (*settings.warnings, *settings.more_warnings()))
    body["insecure_listeners"] = settings.insecure_listeners
    return at.renderer.json(body, status.revision)


async def cluster(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET /v1/cluster`."""
    authorise(request, AnyRole())
    parse_query(query, ())
    return at.renderer.json(cluster_body(at.driver.cluster()), at.revision)


async def bootstrap(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`POST /v1/cluster/bootstrap`; the same call again answers 200 with ``repeated``."""
    body = await request.read_body(requests.JSON_BODY_BYTES_MAX)
    asked = requests.parse_bootstrap(query, body)
    answer = await at.driver.bootstrap(asked.cluster_id, asked.members)
    if isinstance(answer, Failure):
        return at.failed(answer)
    status = at.driver.status()
    return at.renderer.json(
        {
            "cluster_id": answer.cluster_id,
            "repeated": answer.repeated,
            "state": status.state,
            "members": [{"id": hex_id(member.id), "name": member.name} for member in asked.members],
        },
        status.revision,
    )
