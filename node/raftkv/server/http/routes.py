"""The route table: what is served, where, and by which handler. Data, and one pure lookup.

Dispatch compares the raw path: nothing is decoded or normalised, so `/v1/kv/a//b` and
`/v1/kv/%2e%2e` reach their keys. A key route takes the rest of the path as the key; a route that
ends behind the braces takes precedence, so that a lock named `a/keepalive` is `a%2Fkeepalive`.
"""

from enum import Flag
from typing import Final, NamedTuple

from raftkv.server.http.problems import METHOD_NOT_ALLOWED, UNKNOWN_PATH, Refused


class Listener(Flag):
    """Which of the node's listeners serve a route; one socket may be several of them."""

    CLIENT = 1  # --addr
    ADMIN = 2  # --admin-addr; the client listener when that is not set
    METRICS = 4  # --metrics-addr


class Route(NamedTuple):
    """One row of the table."""

    method: str  # GET serves HEAD too
    path: str  # exact, or with the name of what is matched in braces, and what follows it
    listener: Listener
    handler: str  # a name in `raftkv.server.http.handlers.CALLS`
    summary: str
    needs_token: bool = True  # when there is a token file; probes have none


_ANY: Final = Listener.CLIENT | Listener.ADMIN | Listener.METRICS
_CLIENT: Final = Listener.CLIENT
_ADMIN: Final = Listener.ADMIN
_KEY: Final = "/v1/kv/{key}"
_ENCODED_KEY: Final = "/v1/k/{base64url}"
_LEASE: Final = "/v1/leases/{id}"
_LOCK: Final = "/v1/locks/{name}"
_MEMBER: Final = "/v1/cluster/members/{id}"

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
    Route("POST", "/v1/txn", _CLIENT, "txn", "compare, then change and read keys, all or nothing"),
    Route("POST", "/v1/leases", _CLIENT, "grant_lease", "make a lease"),
    Route("GET", "/v1/leases", _CLIENT, "list_leases", "the leases, in pages"),
    Route("GET", _LEASE, _CLIENT, "read_lease", "a lease with its keys"),
    Route("DELETE", _LEASE, _CLIENT, "revoke_lease", "end a lease; its keys vanish"),
    Route("POST", _LEASE + "/keepalive", _CLIENT, "keep_lease_alive", "begin its life anew"),
    Route("GET", "/v1/locks", _CLIENT, "list_locks", "the locks that are held, in pages"),
    Route("GET", _LOCK, _CLIENT, "read_lock", "who holds a lock, and who waits"),
    Route("POST", _LOCK, _CLIENT, "acquire_lock", "take a lock, perhaps waiting for it"),
    Route("DELETE", _LOCK, _CLIENT, "release_lock", "give a lock back"),
    Route("POST", _LOCK + "/keepalive", _CLIENT, "keep_lock_alive", "begin its life anew"),
    # The admin listener shows what its caller needs to know before it changes anything: a
    # network policy may keep the operator from the client port.
    Route("GET", "/v1/status", _CLIENT | _ADMIN, "status", "this node"),
    Route("GET", "/v1/cluster", _CLIENT | _ADMIN, "cluster", "the configuration and its members"),
    Route("POST", "/v1/cluster/bootstrap", _ADMIN, "bootstrap", "found a cluster on this node"),
    Route("POST", "/v1/cluster/members", _ADMIN, "add_member", "add a node as a learner"),
    Route("DELETE", _MEMBER, _ADMIN, "remove_member", "remove a member for good"),
    Route("POST", _MEMBER + "/promote", _ADMIN, "promote_member", "let a learner vote"),
    Route(
        "POST",
        _MEMBER + "/replace",
        _ADMIN,
        "replace_member",
        "let a learner vote in the place of a voter",
    ),
    Route("POST", "/v1/cluster/leader", _ADMIN, "transfer_leader", "hand leadership on"),
    Route("POST", "/v1/maintenance/snapshot", _ADMIN, "take_snapshot", "snapshot this node now"),
    Route(
        "POST",
        "/v1/maintenance/compact",
        _ADMIN,
        "compact",
        "forget the history before a revision",
    ),
    Route("POST", "/v1/maintenance/drain", _ADMIN, "drain", "start the drain of this node"),
    Route("DELETE", "/v1/maintenance/drain", _ADMIN, "drain", "undo the drain of this node"),
    # A browser asks before it lets a page of another member read these with a token.
    Route("OPTIONS", "/v1/status", _CLIENT, "preflight", "may a page read it", needs_token=False),
    Route("OPTIONS", "/v1/cluster", _CLIENT, "preflight", "may a page read it", needs_token=False),
    Route("GET", "/v1/backup", _CLIENT | _ADMIN, "backup", "the whole store at one revision"),
    Route(
        "GET",
        "/openapi.json",
        _CLIENT | _ADMIN,
        "describe",
        "this API, as an OpenAPI document",
        needs_token=False,
    ),
    Route("GET", "/", _CLIENT, "page", "the web console", needs_token=False),
    Route("GET", "/console/{file}", _CLIENT, "page_file", "its files", needs_token=False),
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


_Methods = dict[str, Route]
_Ends = list[tuple[str, _Methods]]  # by what follows the braces


def _exact() -> dict[str, _Methods]:
    grouped: dict[str, _Methods] = {}
    for route in ROUTES:
        if "{" not in route.path:
            grouped.setdefault(route.path, {})[route.method] = route
    return grouped


def _by_prefix() -> tuple[tuple[str, _Methods, _Ends], ...]:
    """For each prefix the methods of all that begins so, and those of what also ends somehow."""
    grouped: dict[str, dict[str, _Methods]] = {}
    for route in ROUTES:
        prefix, brace, rest = route.path.partition("{")
        if brace:
            end = rest.partition("}")[2]
            grouped.setdefault(prefix, {}).setdefault(end, {})[route.method] = route
    return tuple((prefix, ends.pop(""), list(ends.items())) for prefix, ends in grouped.items())


_EXACT: Final = _exact()
_PREFIXES: Final = _by_prefix()


class Match(NamedTuple):
    """The row that serves a request, and what the path has for the braces ("" without them)."""

    route: Route
    key_text: str


def match_route(method: str, path: str, listener: Listener) -> Match:
    """The row for ``method`` and the raw ``path``, refused with 404 or 405 when there is none."""
    key_text = ""
    methods = _EXACT.get(path)
    if methods is None:
        for prefix, of_prefix, ends in _PREFIXES:
            if path.startswith(prefix):
                methods, key_text = of_prefix, path[len(prefix) :]
                for end, of_end in ends:
                    if key_text.endswith(end):
                        methods, key_text = of_end, key_text.removesuffix(end)
                        break
                break
        else:
            raise Refused(UNKNOWN_PATH, "no such path; keys are under /v1/kv/")
    route = methods.get("GET" if method == "HEAD" else method)
    if route is None:
        allowed = ", ".join([*methods, "HEAD"] if "GET" in methods else methods)
        detail = f"this path serves {allowed}"
        raise Refused(METHOD_NOT_ALLOWED, detail, (("Allow", allowed),))
    if not route.listener & listener:
        raise Refused(UNKNOWN_PATH, "this path is served on another listener of this node")
    return Match(route, key_text)
