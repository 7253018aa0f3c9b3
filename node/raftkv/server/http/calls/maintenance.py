"""Calls that maintain one node: `/v1/maintenance/...`."""

import msgspec

from raftkv.kv.outcomes import Compacted, PlainOutcome
from raftkv.node.messages import Failure
from raftkv.server.http import membership
from raftkv.server.http.bodies import JSON_BODY_BYTES_MAX
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.guards import refuse_guards
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Match
from raftkv.server.http.targets import parse_query
from raftkv.server.http.writing import parse_write_query


async def drain(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`POST` and `DELETE /v1/maintenance/drain`."""
    refuse_guards(request.headers)
    body = b""
    if request.method == "POST":
        body = await request.read_body(JSON_BODY_BYTES_MAX)
    asked = membership.parse_drain(request.method, query, body)
    answer = await at.driver.drain(draining=asked.draining, avoid=asked.avoid)
    if isinstance(answer, Failure):
        return at.failed(answer)
    return at.renderer.json({"draining": answer.draining}, at.revision)


async def take_snapshot(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`POST /v1/maintenance/snapshot`: of this node, answered when it is durable."""
    parse_query(query, ())
    refuse_guards(request.headers)
    await request.refuse_body()
    answer = await at.driver.snapshot()
    if isinstance(answer, Failure):
        return at.failed(answer)
    return at.renderer.json(msgspec.structs.asdict(answer), at.revision)


async def compact(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`POST /v1/maintenance/compact`: of the whole cluster."""
    how, _ = parse_write_query(query)
    refuse_guards(request.headers)
    if how.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    command = membership.parse_compact(await request.read_body(JSON_BODY_BYTES_MAX))
    answer = await at.write(command, how.timeout_seconds)

    def render(outcome: PlainOutcome) -> Response:
        if not isinstance(outcome, Compacted):
            return at.renderer.refusal(outcome)
        return at.renderer.done(outcome.revision, msgspec.structs.asdict(outcome))

    return at.answered(answer, render)
