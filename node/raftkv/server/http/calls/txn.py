"""`POST /v1/txn`."""

from raftkv.kv.outcomes import PlainOutcome, Replayed, TxnDone
from raftkv.server.http import txns
from raftkv.server.http.authorisation import AnyRole, WriteLease, authorise
from raftkv.server.http.calls.access import authorise_fence, authorise_lease
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.guards import guarded, parse_guards
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Match
from raftkv.server.http.writing import parse_write_query


async def txn(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """All of one list of operations, or nothing."""
    how, _ = parse_write_query(query)
    guards = parse_guards(request.headers)
    authorise(request, AnyRole())
    if how.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    limit = at.settings.value_bytes_max
    body = await request.read_body(txns.body_bytes_max(limit))
    command = txns.parse_txn(body, limit)
    authorise(request, *txns.accesses_of(command))
    authorise_fence(request, guards)
    for lease in txns.leases_of(command):
        await authorise_lease(at, request, lease, WriteLease)
    answer = await at.write(guarded(command, guards, request, body), how.timeout_seconds)
    is_replay = isinstance(answer, Replayed)

    def render(outcome: PlainOutcome) -> Response:
        if not isinstance(outcome, TxnDone):
            return at.renderer.refusal(outcome)
        result = txns.txn_result(command, outcome, is_replay=is_replay)
        return at.renderer.done(outcome.revision, result)

    return at.answered(answer, render)
