"""Calls of locks: `/v1/locks`. A lock's name is a key to tokens: who may write it may take it."""

import secrets
from collections.abc import Callable

import msgspec

from raftkv.kv.commands import KeepLockAlive, ReleaseLock, encode_command
from raftkv.kv.outcomes import LockHeld, LockQueued, LockReleased, PlainOutcome
from raftkv.node.events import GetLock, LockFound, LocksFound
from raftkv.node.messages import Failure, FailureCode
from raftkv.node.status import State
from raftkv.server.http import locks
from raftkv.server.http.authorisation import (
    AnyRole,
    ReadKey,
    WriteKey,
    allows,
    authorise,
    cursor_within,
)
from raftkv.server.http.bodies import JSON_BODY_BYTES_MAX
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.guards import Guards, fingerprint, guarded, parse_guards, refuse_fence
from raftkv.server.http.problems import LOCK_NOT_FOUND
from raftkv.server.http.reading import parse_read_query
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Match
from raftkv.server.http.targets import key_of_path
from raftkv.server.http.writing import parse_write_query


async def acquire_lock(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`POST /v1/locks/{name}`: at once, or when those before are done."""
    name = key_of_path(match.key_text)
    how, _ = parse_write_query(query)
    guards = parse_guards(request.headers)
    refuse_fence(guards)
    authorise(request, WriteKey(name))
    if how.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    body = await request.read_body(JSON_BODY_BYTES_MAX)
    asked = locks.parse_acquire(name, body, _random_owner(request, guards, body))
    command = encode_command(guarded(asked.command, guards, request, body))
    answer = await at.driver.lock(command, name, asked.wait_seconds, how.timeout_seconds)
    at.count_proposal(answer)
    if isinstance(answer, LockQueued) and at.driver.status().state is State.DRAINING:
        answer = Failure(FailureCode.STOPPED, "this node is leaving: wait at another one")
    return at.answered(answer, _held(at, name, asked.command.owner))


def _random_owner(request: Request, guards: Guards | None, body: bytes) -> bytes:
    """An owner for who names none; a retry under an Idempotency-Key is the same one again."""
    if guards is not None and guards.idempotency_key is not None:
        return fingerprint(request, guards.idempotency_key + b"\0" + body).hex().encode("ascii")
    return secrets.token_hex(16).encode("ascii")


async def keep_lock_alive(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`POST /v1/locks/{name}/keepalive`."""
    return await _change(at, request, match, query)


async def release_lock(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`DELETE /v1/locks/{name}`."""
    return await _change(at, request, match, query)


async def _change(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    name = key_of_path(match.key_text)
    how, given = parse_write_query(query, ("token",))
    guards = parse_guards(request.headers)
    refuse_fence(guards)
    command: KeepLockAlive | ReleaseLock
    if request.method == "DELETE":
        command = locks.release(name, given.get("token"))
        render = _released(at, name)
    else:
        command = locks.keep_alive(name, given.get("token"))
        render = _held(at, name)
    authorise(request, WriteKey(name))
    if how.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    if request.method != "DELETE":
        await request.refuse_body()
    answer = await at.write(guarded(command, guards, request, b""), how.timeout_seconds)
    return at.answered(answer, render)


async def read_lock(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`GET /v1/locks/{name}`."""
    name = key_of_path(match.key_text)
    how, _ = parse_read_query(query)
    authorise(request, ReadKey(name))
    reading = await at.read(GetLock(name), how, LockFound)
    if isinstance(reading, Failure):
        return at.failed(reading)
    lock = reading.found.lock
    if lock is None:
        return at.renderer.not_found(reading, LOCK_NOT_FOUND, "nobody holds this lock")
    return at.renderer.found(reading, locks.lock_body(lock, reading.found.revision))


async def list_locks(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET /v1/locks`; a page may be shorter for a token that is limited to prefixes."""
    how, wanted = locks.parse_list(query)
    authorise(request, AnyRole())
    reading = await at.read(wanted, how, LocksFound)
    if isinstance(reading, Failure):
        return at.failed(reading)
    page = reading.found
    if request.identity is not None:
        grants = request.identity.grants()
        shown = tuple(each for each in page.locks if allows(grants, ReadKey(each.name)))
        after = page.next_after
        after = None if after is None else cursor_within(grants, after)
        page = msgspec.structs.replace(page, locks=shown, next_after=after)
    return at.renderer.found(reading, locks.locks_body(page))


def _held(
    at: Endpoint, name: bytes, owner: bytes | None = None
) -> Callable[[PlainOutcome], Response]:
    def render(outcome: PlainOutcome) -> Response:
        if not isinstance(outcome, LockHeld):
            return at.renderer.refusal(outcome)
        return at.renderer.done(outcome.revision, locks.held_body(name, outcome, owner))

    return render


def _released(at: Endpoint, name: bytes) -> Callable[[PlainOutcome], Response]:
    def render(outcome: PlainOutcome) -> Response:
        if not isinstance(outcome, LockReleased):
            return at.renderer.refusal(outcome)
        return at.renderer.done(outcome.revision, locks.released_body(name, outcome))

    return render
