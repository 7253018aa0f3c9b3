"""Calls about the node and its cluster: `/v1/status`, `/v1/cluster`."""

import time
from collections.abc import Callable
from functools import partial

from raftkv.node.messages import Failure
from raftkv.raft.confchange import ConfigChange
from raftkv.server.http import membership
from raftkv.server.http.authorisation import AnyRole, authorise
from raftkv.server.http.bodies import JSON_BODY_BYTES_MAX
from raftkv.server.http.calls.console import shared_with_members
from raftkv.server.http.conditions import etag
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.guards import refuse_guards
from raftkv.server.http.render import Response, cluster_body, status_body
from raftkv.server.http.routes import Match
from raftkv.server.http.targets import parse_query
from raftkv.server.http.texts import hex_id
from raftkv.server.http.writing import parse_write_query


async def status(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET /v1/status`."""
    authorise(request, AnyRole())
    parse_query(query, ())
    status = at.driver.status()
    uptime_seconds = time.monotonic() - at.started_at
    settings = at.settings
    body = status_body(status, uptime_seconds, (*settings.warnings, *settings.more_warnings()))
    body["insecure_listeners"] = settings.insecure_listeners
    response = at.renderer.json(body, status.revision)
    response.headers.update(shared_with_members(at, request))
    return response


async def cluster(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET /v1/cluster`."""
    authorise(request, AnyRole())
    parse_query(query, ())
    at.driver.look()
    found = at.driver.cluster()
    response = at.renderer.json(cluster_body(found), at.revision)
    # What If-Match of a membership change takes; 0: there is no configuration yet.
    response.headers["ETag"] = etag(found.config_index)
    response.headers.update(shared_with_members(at, request))
    return response


async def bootstrap(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`POST /v1/cluster/bootstrap`; the same call again answers 200 with ``repeated``."""
    refuse_guards(request.headers)
    asked = membership.parse_bootstrap(query, await request.read_body(JSON_BODY_BYTES_MAX))
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


async def add_member(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`POST /v1/cluster/members`."""
    return await _change(at, request, query, membership.parse_add)


async def promote_member(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`POST /v1/cluster/members/{id}/promote`."""
    change = membership.parse_promote(match.key_text)
    return await _change(at, request, query, change)


async def replace_member(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`POST /v1/cluster/members/{id}/replace`."""
    membership.member_id(match.key_text)
    parse = partial(membership.parse_replace, match.key_text)
    return await _change(at, request, query, parse)


async def remove_member(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`DELETE /v1/cluster/members/{id}`."""
    return await _change(at, request, query, membership.parse_remove(match.key_text))


async def _change(
    at: Endpoint,
    request: Request,
    query: str,
    wanted: ConfigChange | Callable[[bytes], ConfigChange],
) -> Response:
    """One change of the membership, which may have to be read from the body."""
    how, _ = parse_write_query(query)
    refuse_guards(request.headers)
    config_index = membership.parse_config_index(request.headers)
    if how.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    if callable(wanted):
        change = wanted(await request.read_body(JSON_BODY_BYTES_MAX))
    else:
        await request.refuse_body()
        change = wanted
    answer = await at.driver.change_config(change, config_index, how.timeout_seconds)
    if isinstance(answer, Failure):
        return at.failed(answer)
    response = at.renderer.json({"config_index": answer.config_index}, at.revision)
    response.headers["ETag"] = etag(answer.config_index)
    return response


async def transfer_leader(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`POST /v1/cluster/leader`: answered when the new leader has committed."""
    how, _ = parse_write_query(query)
    refuse_guards(request.headers)
    if how.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    target = membership.parse_transfer(await request.read_body(JSON_BODY_BYTES_MAX))
    answer = await at.driver.transfer(target, how.timeout_seconds)
    if isinstance(answer, Failure):
        return at.failed(answer)
    names = {member.id: member.name for member in at.driver.cluster().members}
    body = {
        "leader": hex_id(answer.leader),
        "leader_name": names.get(answer.leader),
        "term": answer.term,
    }
    return at.renderer.json(body, at.revision)
