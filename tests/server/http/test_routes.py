"""The route table (API contract, 'Listeners' and all tables of calls)."""

import pytest

from raftkv.server.http.handlers import CALLS
from raftkv.server.http.problems import Refused
from raftkv.server.http.routes import ROUTES, Listener, match_route

ALL = Listener.CLIENT | Listener.ADMIN | Listener.METRICS


@pytest.mark.parametrize(
    ("method", "path", "row", "key_text"),
    [
        ("GET", "/v1/kv/a", "/v1/kv/{key}", "a"),
        ("HEAD", "/v1/kv/a", "/v1/kv/{key}", "a"),
        ("PUT", "/v1/kv/a//b/", "/v1/kv/{key}", "a//b/"),
        ("DELETE", "/v1/kv/../..", "/v1/kv/{key}", "../.."),
        ("POST", "/v1/kv/%2e", "/v1/kv/{key}", "%2e"),
        ("GET", "/v1/kv", "/v1/kv", ""),
        ("GET", "/v1/kv/", "/v1/kv/{key}", ""),
        ("GET", "/v1/k/YQ", "/v1/k/{base64url}", "YQ"),
        ("GET", "/v1/status", "/v1/status", ""),
        ("HEAD", "/v1/cluster", "/v1/cluster", ""),
        ("GET", "/readyz", "/readyz", ""),
        ("HEAD", "/", "/", ""),
        ("GET", "/console/app.js", "/console/{file}", "app.js"),
        ("POST", "/v1/txn", "/v1/txn", ""),
        ("GET", "/v1/leases", "/v1/leases", ""),
        ("GET", "/v1/leases/7", "/v1/leases/{id}", "7"),
        ("POST", "/v1/leases/7/keepalive", "/v1/leases/{id}/keepalive", "7"),
        ("POST", "/v1/locks/a/b", "/v1/locks/{name}", "a/b"),
        ("POST", "/v1/locks/a/b/keepalive", "/v1/locks/{name}/keepalive", "a/b"),
        ("POST", "/v1/locks/a%2Fkeepalive", "/v1/locks/{name}", "a%2Fkeepalive"),
        ("POST", "/v1/locks/keepalive", "/v1/locks/{name}", "keepalive"),
        ("POST", "/v1/cluster/members", "/v1/cluster/members", ""),
        ("DELETE", "/v1/cluster/members/ff", "/v1/cluster/members/{id}", "ff"),
        ("POST", "/v1/cluster/members/ff/promote", "/v1/cluster/members/{id}/promote", "ff"),
    ],
)
def test_matches(method: str, path: str, row: str, key_text: str) -> None:
    match = match_route(method, path, ALL)
    assert (match.route.path, match.key_text) == (row, key_text)


@pytest.mark.parametrize(
    "path",
    ["/console", "/v1", "/v2/kv/a", "/v1/status/", "/V1/status", "/v1/%73tatus", "//v1/status"],
)
def test_unknown_paths(path: str) -> None:
    with pytest.raises(Refused) as caught:
        match_route("GET", path, ALL)
    assert caught.value.problem.kind.code == "unknown_path"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/v1/kv/a", "GET, PUT, DELETE, POST, HEAD"),
        ("get", "/v1/kv/a", "GET, PUT, DELETE, POST, HEAD"),
        ("POST", "/v1/status", "GET, OPTIONS, HEAD"),
        ("GET", "/v1/cluster/bootstrap", "POST"),
        ("PUT", "/v1/maintenance/drain", "POST, DELETE"),
    ],
)
def test_other_methods_name_the_allowed_ones(method: str, path: str, allowed: str) -> None:
    with pytest.raises(Refused) as caught:
        match_route(method, path, ALL)
    problem = caught.value.problem
    assert problem.kind.status == 405
    assert problem.headers == (("Allow", allowed),)


CHANGING = [
    "/v1/cluster/bootstrap",
    "/v1/cluster/members",
    "/v1/cluster/members/ff/promote",
    "/v1/cluster/members/ff/replace",
    "/v1/cluster/leader",
    "/v1/maintenance/compact",
    "/v1/maintenance/drain",
    "/v1/maintenance/snapshot",
]
PROBES = ["/livez", "/readyz", "/metrics"]


def is_served(method: str, path: str, listener: Listener) -> bool:
    try:
        match_route(method, path, listener)
    except Refused:
        return False
    return True


def test_rule_22_admin_calls_are_served_on_the_admin_listener_only() -> None:
    for path in CHANGING:
        assert is_served("POST", path, Listener.ADMIN)
        assert is_served("POST", path, Listener.CLIENT | Listener.ADMIN)
        assert not is_served("POST", path, Listener.CLIENT)
        assert not is_served("POST", path, Listener.METRICS)


def test_keys_are_served_to_clients_only() -> None:
    assert is_served("GET", "/v1/kv/a", Listener.CLIENT)
    assert not is_served("GET", "/v1/kv/a", Listener.ADMIN | Listener.METRICS)


def test_the_metrics_listener_serves_probes_and_metrics_alone() -> None:
    served = {route.path for route in ROUTES if route.listener & Listener.METRICS}
    assert served == set(PROBES)


def test_every_row_has_a_handler_and_a_summary() -> None:
    for route in ROUTES:
        assert route.summary
    assert {route.handler for route in ROUTES} == set(CALLS)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
