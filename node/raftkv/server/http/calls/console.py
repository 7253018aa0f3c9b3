"""The web console, `/` and `/console/{file}`, and what lets it outlive the node that served it."""

import hashlib

from raftkv.server.console import PAGE, File, origin_of_member, page_files, page_policy
from raftkv.server.http.conditions import parse_tags
from raftkv.server.http.endpoint import Endpoint, Request
from raftkv.server.http.problems import FOREIGN_ORIGIN, UNKNOWN_PATH, Refused
from raftkv.server.http.render import Response
from raftkv.server.http.routes import Match
from raftkv.server.http.targets import parse_query


async def page(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`GET /`."""
    parse_query(query, ())
    policy = page_policy(at.driver.cluster())
    return _file(at, request, page_files()[PAGE], policy)


async def page_file(at: Endpoint, request: Request, match: Match, query: str) -> Response:
    """`GET /console/{file}`."""
    parse_query(query, ())
    found = page_files().get(match.key_text)
    if found is None or match.key_text == PAGE:
        raise Refused(UNKNOWN_PATH, "the console has no such file")
    return _file(at, request, found, "default-src 'none'; frame-ancestors 'none'")


async def preflight(at: Endpoint, request: Request, _match: Match, query: str) -> Response:
    """`OPTIONS`: a browser asks whether a page of another origin may read here, with a token."""
    parse_query(query, ())
    headers = shared_with_members(at, request)
    if "Access-Control-Allow-Origin" not in headers:
        raise Refused(FOREIGN_ORIGIN, "only pages of members may read here")
    headers["Access-Control-Allow-Methods"] = "GET"
    headers["Access-Control-Allow-Headers"] = "Authorization"
    headers["Access-Control-Max-Age"] = "600"
    return at.renderer.preflight(headers)


def shared_with_members(at: Endpoint, request: Request) -> dict[str, str]:
    """Headers that let the console of another member read the answer."""
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    known = origin_of_member(origin, at.driver.cluster())
    return {"Vary": "Origin"} | ({} if known is None else {"Access-Control-Allow-Origin": known})


def _file(at: Endpoint, request: Request, file: File, policy: str) -> Response:
    is_packed = "gzip" in ",".join(request.headers.getall("Accept-Encoding", []))
    body = file.packed if is_packed else file.body
    # The policy depends on the members: a page with an old one is another page.
    tag = f'"{hashlib.sha256(policy.encode() + body).hexdigest()[:32]}"'
    wanted = parse_tags("If-None-Match", request.headers.getall("If-None-Match", []))
    if wanted is not None and wanted.matches(tag):
        return at.renderer.page(304, None, b"", tag, policy)
    response = at.renderer.page(200, file.content_type, body, tag, policy)
    if is_packed:
        response.headers["Content-Encoding"] = "gzip"
    return response
