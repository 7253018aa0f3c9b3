"""The route table: what is served, where, and by which handler. Data, and one pure lookup.

Dispatch compares the raw path: nothing is decoded or normalised, so `/v1/kv/a//b` and
`/v1/kv/%2e%2e` reach their keys. A key route takes the rest of the path as the key.
"""

from enum import Flag
from typing import Final, NamedTuple

from raftkv.server.http.problems import METHOD_NOT_ALLOWED, NOT_IMPLEMENTED, UNKNOWN_PATH, Refused


class Listener(Flag):
    """Which of the node's listeners serve a route; one socket may be several of them."""

    CLIENT = 1  # --addr
    ADMIN = 2  # --admin-addr; the client listener when that is not set
    METRICS = 4  # --metrics-addr


class Route(NamedTuple):
    """One row of the table."""

    method: str  # GET serves HEAD too
    path: str  # exact, or ending in the name of the key in braces
    listener: Listener
    handler: str  # a name in `raftkv.server.http.handlers.CALLS`
    summary: str
    needs_token: bool = True  # when there is a token file; probes have none


_ANY: Final = Listener.CLIENT | Listener.ADMIN | Listener.METRICS
_CLIENT: Final = Listener.CLIENT
_ADMIN: Final = Listener.ADMIN
_KEY: Final = "/v1/kv/{key}"
_ENCODED_KEY: Final = "/v1/k/{base64url}"

ROUTES: Final = (
    Route("GET", "/v1/kv", _CLIENT, "read_range", "the items of a range, in pages or as lines"),
    Route("GET", _KEY, _CLIENT, "read_key", "the value of a key, or its JSON item"),
    Route("DELETE", "/v1/kv", _CLIENT, "delete_range", "remove the keys of a range, all or none"),
    Route("PUT", _KEY, _CLIENT, "write_key", "store the body as the value of a key"),
    Route("DELETE", _KEY, _CLIENT, "write_key", "remove a key"),
    Route("POST", _KEY, _CLIENT, "write_key", "op=append or op=increment"),
    Route("GET", _ENCODED_KEY, _CLIENT, "read_key", "as /v1/kv, for any key"),
    Route("PUT", _ENCODED_KEY, _CLIENT, "write_key", "as /v1/kv, for any key"),
    Route("DELETE", _ENCODED_KEY, _CLIENT, "write_key", "as /v1/kv, for any key"),
    Route("POST", _ENCODED_KEY, _CLIENT, "write_key", "as /v1/kv, for any key"),
    Route("GET", "/v1/watch", _CLIENT, "watch", "changes as they happen, as Server-Sent Events"),
    # The admin listener shows what its caller needs to know before it changes anything: a
    # network policy may keep the operator from the client port.
    Route("GET", "/v1/status", _CLIENT | _ADMIN, "status", "this node"),
    Route("GET", "/v1/cluster", _CLIENT | _ADMIN, "cluster", "the configuration and its members"),
    Route("POST", "/v1/cluster/bootstrap", _ADMIN, "bootstrap", "found a cluster on this node"),
    Route("POST", "/v1/maintenance/drain", _ADMIN, "drain", "start the drain of this node"),
    Route("DELETE", "/v1/maintenance/drain", _ADMIN, "drain", "undo the drain of this node"),
    Route("GET", "/v1/backup", _CLIENT | _ADMIN, "backup", "the whole store at one revision"),
    Route("GET", "/livez", _ANY, "livez", "fails when the process is stuck", needs_token=False),
    Route(
        "GET",
        "/readyz",
        _ANY,
        "readyz",
        "fails when requests should go elsewhere",
        needs_token=False,
    ),
    Route("GET", "/metrics", _ANY, "scrape", "Prometheus metrics"),
)

# First segments of the API contract that this version does not serve.
_UNSERVED: Final = (
    "/v1/txn", "/v1/leases", "/v1/locks",
    "/v1/cluster/members", "/v1/cluster/leader", "/v1/maintenance/snapshot",
    "/v1/maintenance/compact",
)  # fmt: skip

_Methods = dict[str, Route]


def _group(*, with_key: bool) -> dict[str, _Methods]:
    grouped: dict[str, _Methods] = {}
    for route in ROUTES:
        if route.path.endswith("}") is with_key:
            grouped.setdefault(route.path.partition("{")[0], {})[route.method] = route
    return grouped


_EXACT: Final = _group(with_key=False)
_KEY_PREFIXES: Final = tuple(_group(with_key=True).items())


class Match(NamedTuple):
    """The row that serves a request, and the key as the path spells it ("" without one)."""

    route: Route
    key_text: str


def match_route(method: str, path: str, listener: Listener) -> Match:
    """The row for ``method`` and the raw ``path``, refused with 404 or 405 when there is none."""
    key_text = ""
    methods = _EXACT.get(path)
    if methods is None:
        for prefix, key_methods in _KEY_PREFIXES:
            if path.startswith(prefix):
                methods, key_text = key_methods, path[len(prefix) :]
                break
        else:
            raise _no_such_path(path)
    route = methods.get("GET" if method == "HEAD" else method)
    if route is None:
        allowed = ", ".join([*methods, "HEAD"] if "GET" in methods else methods)
        detail = f"this path serves {allowed}"
        raise Refused(METHOD_NOT_ALLOWED, detail, (("Allow", allowed),))
    if not route.listener & listener:
        raise Refused(UNKNOWN_PATH, "this path is served on another listener of this node")
    return Match(route, key_text)


def _no_such_path(path: str) -> Refused:
    if any(path == start or path.startswith(start + "/") for start in _UNSERVED):
        return Refused(NOT_IMPLEMENTED, "this version does not implement this path")
    return Refused(UNKNOWN_PATH, "no such path; keys are under /v1/kv/")
