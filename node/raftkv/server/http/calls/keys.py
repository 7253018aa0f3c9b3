"""Calls of one key: `/v1/kv/{key}` and `/v1/k/{base64url}`.

Nearly all requests come here, so what most of them do not need is asked about first.
"""

from functools import partial
from typing import NamedTuple

from raftkv.kv.commands import Command
from raftkv.kv.outcomes import Outcome, Written
from raftkv.node.events import Found, Get, ReadResult, Stale
from raftkv.node.messages import Failure
from raftkv.server.http import requests
from raftkv.server.http.authorisation import ReadKey, WriteKey, WriteLease, authorise
from raftkv.server.http.calls.access import authorise_fence, authorise_lease
from raftkv.server.http.calls.polling import wait_for_change
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.guards import Guards, guarded, parse_guards
from raftkv.server.http.reading import reading_of
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Match
from raftkv.server.http.targets import key_of_base64url, key_of_path


class Write(NamedTuple):
    """A write that may go ahead, once its body is there."""

    request: Request
    asked: requests.WriteKey
    guards: Guards | None

    def command(self, body: bytes, value_bytes_max: int) -> Command:
        """What goes through the log. ``body`` is empty where there is none."""
        command = self.asked.command(body, value_bytes_max)
        if self.guards is None:
            return command
        return guarded(command, self.guards, self.request, body)


async def read_key(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`GET` and `HEAD` of a key."""
    asked = begin_read(request, match, query)
    if asked.wait_seconds is not None:
        return await wait_for_change(at, request, asked, asked.wait_seconds)
    answer = await at.driver.read(Get(asked.key, asked.revision), *asked.how)
    return end_read(at, asked, answer)


async def write_key(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`PUT`, `DELETE` and `POST` of a key."""
    write = begin_write(request, match, query)
    asked = write.asked
    if asked.lease:
        await authorise_lease(at, request, asked.lease, WriteLease)
    if asked.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    limit = at.settings.value_bytes_max
    body = b""
    if asked.has_body:
        body = await request.read_body(limit)
    elif request.method == "POST":
        await request.refuse_body()
    answer = await at.write(write.command(body, limit), asked.timeout_seconds)
    return end_write(at, asked.key, answer)


def begin_read(request: Request, match: Match, query: str) -> requests.ReadKey:
    """What is asked, and allowed. Raises Refused."""
    asked = requests.parse_read(key_of(match), query, request.headers)
    if request.identity is not None:
        authorise(request, ReadKey(asked.key))
    return asked


def begin_write(request: Request, match: Match, query: str) -> Write:
    """What is asked, and allowed but for a lease that it names. Raises Refused."""
    key = key_of(match)
    asked = requests.parse_write(request.method, key, query, request.headers)
    guards = parse_guards(request.headers)
    if request.identity is not None:
        authorise(request, WriteKey(key), *[ReadKey(key)] * asked.returns_previous)
    if guards is not None:
        authorise_fence(request, guards)
    return Write(request, asked, guards)


def end_read(at: Endpoint, asked: requests.ReadKey, answer: Found | Stale | Failure) -> Response:
    """The response to the node's answer."""
    if isinstance(answer, Failure):
        return at.failed(answer)
    return at.renderer.read(asked, reading_of(answer, asked.how.consistency, ReadResult))


def end_write(at: Endpoint, key: bytes, answer: Outcome | Failure) -> Response:
    """The response to the node's answer."""
    if isinstance(answer, Written):  # as most are: the way there is short
        return at.renderer.write(key, answer)
    return at.answered(answer, partial(at.renderer.write, key))


def key_of(match: Match) -> bytes:
    """The key that the path names."""
    if match.route.path.startswith("/v1/kv/"):
        return key_of_path(match.key_text)
    return key_of_base64url(match.key_text)
