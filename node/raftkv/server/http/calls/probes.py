"""What is asked of any server: `/livez`, `/readyz`, `/metrics`, `/openapi.json`."""

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST

from raftkv.node.status import State, Status
from raftkv.server.http import requests
from raftkv.server.http.authorisation import AnyRole, authorise
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.openapi import document
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Match
from raftkv.server.http.targets import parse_query

# A node that has not heard of a leader for so long is not ready (API contract).
LEADER_SEEN_SECONDS_MAX: Final = 10.0


async def livez(at: Endpoint, _request: Request, _match: Match, query: str) -> Response:
    """`GET /livez`."""
    parse_query(query, ())
    stuck = at.driver.is_stuck()
    if stuck is not None:
        return at.renderer.text(503, stuck + "\n")
    return at.renderer.text(200, "ok\n")


async def readyz(at: Endpoint, _request: Request, _match: Match, query: str) -> Response:
    """`GET /readyz`: failed checks are listed, with ``?verbose`` all."""
    is_verbose = requests.parse_verbose(query)
    checks = readiness(at.driver.status())
    is_ready = all(is_good for _, is_good in checks)
    if is_ready and not is_verbose:
        return at.renderer.text(200, "ok\n")
    shown = [check for check in checks if is_verbose or not check[1]]
    lines = [f"[{'+' if is_good else '-'}] {name}\n" for name, is_good in shown]
    return at.renderer.text(200 if is_ready else 503, "".join(lines))


async def scrape(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET /metrics`."""
    authorise(request, AnyRole())
    parse_query(query, ())
    body = at.metrics.render(at.driver.status(), at.driver.cluster())
    return at.renderer.metrics(CONTENT_TYPE_LATEST, body)


async def describe(at: Endpoint, _request: Request, _match: Match, query: str) -> Response:
    """`GET /openapi.json`."""
    parse_query(query, ())
    return at.renderer.document(document())


def readiness(status: Status) -> tuple[tuple[str, bool], ...]:
    """The checks of `/readyz`, each with whether it holds (API contract)."""
    seen = status.seconds_since_leader
    is_initialised = status.cluster_id is not None and status.state is not State.FAILED
    return (
        ("initialised", is_initialised),
        ("a member", not status.removed),
        ("caught up", status.caught_up),
        ("knew a leader within 10 s", seen is not None and seen <= LEADER_SEEN_SECONDS_MAX),
        ("not draining", status.state is not State.DRAINING),
    )
