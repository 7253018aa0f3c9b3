"""Calls of one key: `/v1/kv/{key}` and `/v1/k/{base64url}`."""

from raftkv.node.events import Failure, Get, ReadResult, Stale
from raftkv.server.http import requests
from raftkv.server.http.authorisation import ReadKey, WriteKey, authorise
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Match
from raftkv.server.http.targets import key_of_base64url, key_of_path


async def read_key(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`GET` and `HEAD` of a key."""
    asked = requests.parse_read(key_of(match), query, request.headers)
    authorise(request, ReadKey(asked.key))
    answer = await at.driver.read(
        Get(asked.key, asked.revision),
        asked.consistency,
        asked.min_revision,
        asked.timeout_seconds,
    )
    if isinstance(answer, Failure):
        return at.failed(answer)
    if isinstance(answer, Stale):
        answer = answer.found
    assert isinstance(answer, ReadResult)
    return at.renderer.read(asked, answer)


async def write_key(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`PUT`, `DELETE` and `POST` of a key."""
    asked = requests.parse_write(request.method, key_of(match), query, request.headers)
    authorise(request, WriteKey(asked.key), *[ReadKey(asked.key)] * asked.returns_previous)
    if asked.may_redirect and (elsewhere := at.redirected(request)):
        return elsewhere
    limit = at.settings.value_bytes_max
    body = await request.read_body(limit) if asked.has_body else b""
    answer = await at.write(asked.command(body, limit), asked.timeout_seconds)
    if isinstance(answer, Failure):
        return at.failed(answer)
    return at.renderer.write(asked.key, answer)


def key_of(match: Match) -> bytes:
    """The key that the path names."""
    if match.route.path.startswith("/v1/kv/"):
        return key_of_path(match.key_text)
    return key_of_base64url(match.key_text)
