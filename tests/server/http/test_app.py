"""The API contract over a real socket: failures, cluster, probes, who may ask, drain."""

import asyncio
import json

import pytest

from raftkv.node.messages import Failure, FailureCode
from raftkv.node.status import State
from raftkv.server.http.routes import Listener
from tests.server.http.fake_driver import LEADER_ID, NODE_ID, FakeDriver
from tests.server.http.harness import Served, serving, until

pytestmark = pytest.mark.usefixtures("both_ways")
BOTH_LOOPS = True

# ---- failures, redirects, clusters ----------------------------------------------------------


async def test_rule_18_an_unknown_outcome_is_504_unknown(served: Served) -> None:
    served.driver.failure = Failure(FailureCode.UNKNOWN, "the leader went away")
    answer = await served.ask("PUT", "/v1/kv/a", body=b"")
    assert (answer.status, answer.code()) == (504, "unknown")
    assert (answer.json()["outcome"], answer.json()["retryable"]) == ("unknown", False)


async def test_rule_16_without_a_leader_503_says_not_committed(served: Served) -> None:
    served.driver.failure = Failure(FailureCode.NO_LEADER, "no leader for 5 s")
    for method in ("PUT", "GET", "DELETE"):
        answer = await served.ask(method, "/v1/kv/a", body=b"")
        assert (answer.status, answer.json()["outcome"]) == (503, "not_committed")
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["X-RaftKV-Revision"] == "100"


async def test_redirect_names_the_configured_address_of_the_leader(served: Served) -> None:
    served.driver.change(leader=LEADER_ID, role="follower")
    target = "/v1/kv/a%2Fb?redirect=true&timeout=1s"
    spoofed = {"Host": "localhost", "X-Forwarded-Host": "evil", "Forwarded": "host=evil"}
    answer = await served.ask("PUT", target, body=b"v", headers=spoofed)
    assert answer.status == 307
    assert answer.headers["Location"] == "http://n2:7400" + target
    assert not served.driver.commands


@pytest.mark.parametrize("leader", [NODE_ID, None, 12345])
async def test_redirect_is_done_here_when_there_is_nowhere_to_go(
    served: Served, leader: int | None
) -> None:
    served.driver.change(leader=leader)
    assert (await served.ask("PUT", "/v1/kv/a?redirect=true", body=b"v")).status == 201


async def test_a_request_for_another_cluster_is_421(served: Served) -> None:
    for method, target in (("PUT", "/v1/kv/a"), ("GET", "/v1/kv/a"), ("GET", "/v1/status")):
        answer = await served.ask(method, target, body=b"", headers={"X-RaftKV-Cluster": "c2"})
        assert (answer.status, answer.code()) == (421, "wrong_cluster")
    lines = [("X-RaftKV-Cluster", "c1"), ("X-RaftKV-Cluster", "c2")]
    assert (await served.ask("GET", "/v1/status", headers=lines)).status == 421
    right = await served.ask("PUT", "/v1/kv/a", body=b"", headers={"X-RaftKV-Cluster": "c1"})
    assert right.status == 201
    assert len(served.driver.commands) == 1


async def test_every_answer_of_a_key_names_the_revision(served: Served) -> None:
    for method, target, headers in (
        ("GET", "/v1/kv/none", {}),
        ("GET", "/v1/kv/", {}),
        ("GET", "/v1/kv/a?x=1", {}),
        ("PATCH", "/v1/kv/a", {}),
        ("PUT", "/v1/kv/a", {"Idempotency-Key": ""}),
        ("PUT", "/v1/kv/a", {"Content-Encoding": "gzip"}),
    ):
        answer = await served.ask(method, target, body=b"", headers=headers)
        assert answer.status >= 400
        assert answer.headers["X-RaftKV-Revision"] == "100"


async def test_a_client_that_goes_away_cancels_its_request(served: Served) -> None:
    served.driver.gate = asyncio.Event()
    async with served.connect() as raw:
        raw.send(b"GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: served.driver.waiting)
        assert served.server.in_flight == 1
    await until(lambda: served.driver.cancelled == 1)
    await until(lambda: served.server.in_flight == 0)


# ---- cluster and operations -----------------------------------------------------------------


async def test_status(served: Served) -> None:
    body = (await served.ask("GET", "/v1/status")).json()
    assert body["member_id"] == f"{NODE_ID:016x}"
    expected = {
        "name", "cluster_id", "state", "role", "term", "leader", "commit_index", "applied_index",
        "first_log_index", "last_log_index", "revision", "db_bytes", "uptime_seconds", "version",
        "warnings",
    }  # fmt: skip
    assert expected <= set(body)
    assert (await served.ask("GET", "/v1/status?verbose=1")).status == 400


async def test_cluster(served: Served) -> None:
    body = (await served.ask("GET", "/v1/cluster")).json()
    assert (body["fault_tolerance"], body["joint"], body["config_index"]) == (0, False, 1)
    member = body["members"][1]
    expected = ("n2", "follower", 9, 4, 0.1, True)
    names = ("name", "role", "match_index", "lag_entries", "last_contact_seconds", "healthy")
    assert tuple(member[name] for name in names) == expected


BOOTSTRAP = json.dumps(
    {
        "cluster_id": "c9",
        "members": [
            {
                "id": f"{NODE_ID:016x}",
                "name": "n1",
                "peer_url": "n1:7401",
                "client_url": "http://n1:7400",
            }
        ],
    }
).encode()


async def test_bootstrap(served: Served) -> None:
    served.driver.change(cluster_id=None, state=State.UNINITIALISED)
    # The header may name the cluster that is being founded.
    headers = {"X-RaftKV-Cluster": "c9"}
    first = await served.ask("POST", "/v1/cluster/bootstrap", body=BOOTSTRAP, headers=headers)
    assert (first.status, first.json()["repeated"]) == (200, False)
    again = await served.ask("POST", "/v1/cluster/bootstrap", body=BOOTSTRAP)
    assert (again.status, again.json()["repeated"]) == (200, True)
    assert again.json()["cluster_id"] == "c9"
    assert served.driver.bootstraps[0][1][0].id == NODE_ID


@pytest.mark.parametrize(
    ("code", "status"), [(FailureCode.CONFLICT, 409), (FailureCode.INVALID, 400)]
)
async def test_bootstrap_refused(served: Served, code: FailureCode, status: int) -> None:
    served.driver.failure = Failure(code, "no")
    answer = await served.ask("POST", "/v1/cluster/bootstrap", body=BOOTSTRAP)
    assert (answer.status, answer.json()["detail"]) == (status, "no")


async def test_drain_and_undrain(served: Served) -> None:
    body = b'{"avoid":["00000000000000ff"]}'
    started = await served.ask("POST", "/v1/maintenance/drain", body=body)
    assert (started.status, started.json()) == (200, {"draining": True})
    assert (await served.ask("GET", "/readyz")).status == 503
    undone = await served.ask("DELETE", "/v1/maintenance/drain")
    assert (undone.status, undone.json()) == (200, {"draining": False})
    assert (await served.ask("GET", "/readyz")).status == 200
    assert served.driver.drains == [(True, (255,)), (False, ())]


async def test_rule_22_with_an_admin_listener_clients_cannot_change_the_cluster() -> None:
    async with serving(listener=Listener.CLIENT) as served:
        answer = await served.ask("POST", "/v1/cluster/bootstrap", body=BOOTSTRAP)
        assert (answer.status, answer.code()) == (404, "unknown_path")
        assert not served.driver.bootstraps
    async with serving(listener=Listener.ADMIN) as served:
        assert (await served.ask("POST", "/v1/cluster/bootstrap", body=BOOTSTRAP)).status == 200
        assert (await served.ask("GET", "/v1/status")).status == 200
        assert (await served.ask("GET", "/v1/kv/a")).status == 404


# ---- probes and metrics ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, None),
        ({"cluster_id": None, "state": State.UNINITIALISED}, "initialised"),
        ({"state": State.FAILED}, "initialised"),
        ({"removed": True}, "a member"),
        ({"caught_up": False, "state": State.JOINING}, "caught up"),
        ({"seconds_since_leader": None}, "knew a leader within 10 s"),
        ({"seconds_since_leader": 10.1}, "knew a leader within 10 s"),
        ({"seconds_since_leader": 9.9}, None),
        ({"state": State.DRAINING}, "not draining"),
    ],
)
async def test_rule_17_readiness(
    served: Served, changes: dict[str, object], failing: str | None
) -> None:
    served.driver.change(**changes)
    answer = await served.ask("GET", "/readyz")
    verbose = (await served.ask("GET", "/readyz?verbose")).body.decode().splitlines()
    assert len(verbose) == 5
    if failing is None:
        assert (answer.status, answer.body) == (200, b"ok\n")
        assert all(line.startswith("[+] ") for line in verbose)
    else:
        assert answer.status == 503
        assert answer.body.decode() == f"[-] {failing}\n"
        assert f"[-] {failing}" in verbose


async def test_rule_17_liveness_is_about_this_process_only(served: Served) -> None:
    served.driver.change(leader=None, seconds_since_leader=None, caught_up=False)
    assert (await served.ask("GET", "/livez")).status == 200
    served.driver.stuck = "a disk operation has taken 31 s"
    answer = await served.ask("GET", "/livez")
    assert (answer.status, answer.body) == (503, b"a disk operation has taken 31 s\n")


async def test_metrics_listener() -> None:
    async with serving(listener=Listener.METRICS) as served:
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await served.ask("GET", path)).status == 200
        for path in ("/v1/kv/a", "/v1/status", "/v1/maintenance/drain"):
            assert (await served.ask("GET", path)).status in (404, 405)


async def test_requests_are_counted_by_route_never_by_key(served: Served) -> None:
    await served.ask("PUT", "/v1/kv/secret-key", body=b"")
    await served.ask("GET", "/v1/kv/secret-key")
    await served.ask("GET", "/secret-path")
    text = (await served.ask("GET", "/metrics")).body.decode()
    labels = 'code="201",method="PUT",route="/v1/kv/{key}"'
    assert f"raftkv_http_requests_total{{{labels}}} 1.0" in text
    labels = 'code="404",method="GET",route="(none)"'
    assert f"raftkv_http_requests_total{{{labels}}} 1.0" in text
    labels = 'method="GET",route="/v1/kv/{key}"'
    assert f"raftkv_http_request_seconds_count{{{labels}}} 1.0" in text
    assert "raftkv_proposals_committed_total 1.0" in text
    assert "secret" not in text


async def test_failed_proposals_are_counted(served: Served) -> None:
    served.driver.failure = Failure(FailureCode.NO_LEADER, "no leader")
    await served.ask("PUT", "/v1/kv/a", body=b"")
    text = (await served.ask("GET", "/metrics")).body.decode()
    assert "raftkv_proposals_failed_total 1.0" in text


# ---- who may ask ----------------------------------------------------------------------------


async def test_on_loopback_host_must_be_local() -> None:
    foreign = {"Host": "evil.example"}
    async with serving(host="127.0.0.1") as served:
        answer = await served.ask("GET", "/v1/kv/a", headers=foreign)
        assert (answer.status, answer.code()) == (403, "foreign_host")
        assert (await served.ask("GET", "/livez", headers=foreign)).status == 403
    async with serving(host="0.0.0.0") as served:
        assert (await served.ask("GET", "/v1/kv/a", headers=foreign)).status == 404


async def test_a_write_with_a_foreign_origin_is_403(served: Served) -> None:
    headers = {"Host": f"localhost:{served.port}", "Origin": "http://evil.example"}
    for method, target in (
        ("PUT", "/v1/kv/a"),
        ("POST", "/v1/cluster/bootstrap"),
        ("POST", "/v1/maintenance/drain"),
    ):
        answer = await served.ask(method, target, body=BOOTSTRAP, headers=headers)
        assert (answer.status, answer.code()) == (403, "foreign_origin")
    assert not served.driver.commands
    headers["Origin"] = f"http://localhost:{served.port}"
    assert (await served.ask("PUT", "/v1/kv/a", body=b"", headers=headers)).status == 201


# ---- drain ----------------------------------------------------------------------------------


async def test_rule_15_while_draining_every_response_closes_its_connection(
    served: Served,
) -> None:
    async with served.connect() as raw:
        request = b"GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
        raw.send(request)
        assert "Connection" not in (await raw.answer()).headers
        served.driver.change(state=State.DRAINING)
        raw.send(request)
        while "Connection" not in (answer := await raw.answer()).headers:
            raw.send(request)  # the server looks at the state at most ten times a second
        # Requests are still served, only elsewhere next time.
        assert (answer.status, answer.headers["Connection"]) == (404, "close")
        assert await raw.until_closed() == b""


async def test_rule_15_idle_connections_close_at_the_end_busy_ones_do_not(
    served: Served,
) -> None:
    served.driver.gate = asyncio.Event()
    async with served.connect() as idle, served.connect() as busy:
        idle.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await idle.answer()
        busy.send(b"GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: served.driver.waiting)
        assert served.server.in_flight == 1
        served.server.close_idle_connections()
        assert await idle.until_closed() == b""
        served.driver.gate.set()
        assert (await busy.answer()).status == 404
        await until(lambda: served.server.in_flight == 0)


async def test_the_drain_is_seen_by_a_listener_that_was_not_told() -> None:
    driver = FakeDriver()
    async with (
        serving(driver, listener=Listener.CLIENT) as client,
        serving(driver, listener=Listener.ADMIN) as admin,
    ):
        answer = await admin.ask("POST", "/v1/maintenance/drain", body=b"")
        assert answer.status == 200
        assert (await client.ask("GET", "/readyz")).status == 503
        answer = await client.ask("GET", "/v1/kv/a")
        assert answer.headers["Connection"] == "close"
