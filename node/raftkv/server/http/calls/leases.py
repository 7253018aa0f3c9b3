"""Calls of leases: `/v1/leases`."""

from collections.abc import Callable

import msgspec

from raftkv.kv.commands import KeepLeaseAlive, RevokeLease
from raftkv.kv.outcomes import LeaseGranted, LeaseRevoked, PlainOutcome
from raftkv.node.events import Consistency, GetLease, LeaseFound, LeaseInfo, LeasesFound
from raftkv.node.messages import Failure
from raftkv.server.http import leases
from raftkv.server.http.authorisation import (
    AnyRole,
    CreateLease,
    ReadLease,
    WriteLease,
    allows,
    authorise,
)
from raftkv.server.http.bodies import JSON_BODY_BYTES_MAX
from raftkv.server.http.calls.access import (
    authorise_fence,
    authorise_lease,
    has_every_prefix,
    prefix_to_revoke,
)
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.guards import guarded, parse_guards
from raftkv.server.http.problems import LEASE_NOT_FOUND
from raftkv.server.http.reading import HowToRead, Reading, parse_read_query
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Match
from raftkv.server.http.writing import parse_write_query


async def grant_lease(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`POST /v1/leases`."""
    how, _ = parse_write_query(query)
    guards = parse_guards(request.headers)
    authorise(request, CreateLease())
    authorise_fence(request, guards)
    if how.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    body = await request.read_body(JSON_BODY_BYTES_MAX)
    command = leases.parse_grant(body)
    answer = await at.write(guarded(command, guards, request, body), how.timeout_seconds)
    return at.answered(answer, _granted(at, status=201))


async def keep_lease_alive(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`POST /v1/leases/{id}/keepalive`."""
    return await _change(at, request, match, query)


async def revoke_lease(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`DELETE /v1/leases/{id}`."""
    return await _change(at, request, match, query)


async def _change(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    lease = leases.lease_id(match.key_text)
    how, _ = parse_write_query(query)
    guards = parse_guards(request.headers)
    keys = await authorise_lease(at, request, lease, WriteLease)
    authorise_fence(request, guards)
    if how.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    command: KeepLeaseAlive | RevokeLease
    if request.method == "DELETE":
        command = RevokeLease(lease, prefix_to_revoke(request, keys))
        render = _revoked(at, lease)
    else:
        await request.refuse_body()
        command = KeepLeaseAlive(lease)
        render = _granted(at, status=200)
    answer = await at.write(guarded(command, guards, request, b""), how.timeout_seconds)
    return at.answered(answer, render)


async def read_lease(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`GET /v1/leases/{id}`."""
    lease = leases.lease_id(match.key_text)
    how, _ = parse_read_query(query)
    authorise(request, ReadLease(()))
    reading = await at.read(GetLease(lease), how, LeaseFound)
    if isinstance(reading, Failure):
        return at.failed(reading)
    found = reading.found.lease
    if found is None:
        return at.renderer.not_found(reading, LEASE_NOT_FOUND, "there is no such lease")
    authorise(request, ReadLease(found.keys))
    return at.renderer.found(reading, leases.lease_body(found, reading.found.revision))


async def list_leases(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET /v1/leases`; a page may be shorter for a token that is limited to prefixes."""
    how, wanted = leases.parse_list(query)
    authorise(request, AnyRole())
    reading = await at.read(wanted, how, LeasesFound)
    if isinstance(reading, Failure):
        return at.failed(reading)
    shown = await _shown(at, request, how, reading)
    if isinstance(shown, Failure):
        return at.failed(shown)
    page = msgspec.structs.replace(reading.found, leases=shown)
    return at.renderer.found(reading, leases.leases_body(page))


async def _shown(
    at: Endpoint, request: Request, how: HowToRead, reading: Reading[LeasesFound]
) -> tuple[LeaseInfo, ...] | Failure:
    """The leases of the page all of whose keys the token may read."""
    page, identity = reading.found, request.identity
    if identity is None or has_every_prefix(identity.grants(), ReadLease):
        return page.leases
    shown: list[LeaseInfo] = []
    here = HowToRead(Consistency.LOCAL, page.revision, how.timeout_seconds)
    for listed in page.leases:
        lease = await at.read(GetLease(listed.lease), here, LeaseFound)
        if isinstance(lease, Failure):
            return lease
        found = lease.found.lease
        if found is not None and allows(identity.grants(), ReadLease(found.keys)):
            shown.append(listed)
    return tuple(shown)


def _granted(at: Endpoint, status: int) -> Callable[[PlainOutcome], Response]:
    def render(outcome: PlainOutcome) -> Response:
        if not isinstance(outcome, LeaseGranted):
            return at.renderer.refusal(outcome)
        return at.renderer.done(outcome.revision, leases.granted_body(outcome), status)

    return render


def _revoked(at: Endpoint, lease: int) -> Callable[[PlainOutcome], Response]:
    def render(outcome: PlainOutcome) -> Response:
        if not isinstance(outcome, LeaseRevoked):
            return at.renderer.refusal(outcome)
        return at.renderer.done(outcome.revision, leases.revoked_body(lease, outcome))

    return render
