"""The API contract over a real socket: every row and parameter that this version serves."""

import asyncio
import base64
import json
from urllib.parse import quote_from_bytes

import aiohttp
import pytest
from yarl import URL

from raftkv.kv.commands import Append, Condition, Delete, Put
from raftkv.node.events import Consistency
from raftkv.node.messages import Failure, FailureCode
from raftkv.node.status import State
from raftkv.server.http.routes import Listener
from raftkv.server.http.settings import HttpSettings
from tests.server.http.fake_driver import LEADER_ID, NODE_ID, FakeDriver
from tests.server.http.harness import Served, serving, until

pytestmark = pytest.mark.usefixtures("both_ways")
BOTH_LOOPS = True

# ---- keys -----------------------------------------------------------------------------------


async def test_put_get_head_delete(served: Served) -> None:
    created = await served.ask("PUT", "/v1/kv/a", body=b"one")
    assert (created.status, created.headers["ETag"]) == (201, '"101"')
    replaced = await served.ask("PUT", "/v1/kv/a", body=b"two")
    assert (replaced.status, replaced.json()["version"]) == (200, 2)

    got = await served.ask("GET", "/v1/kv/a")
    assert (got.status, got.body) == (200, b"two")
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert got.headers["X-RaftKV-Consistency"] == "linearizable"
    assert got.headers["X-RaftKV-Node"] == "n1"

    head = await served.ask("HEAD", "/v1/kv/a")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "3")
    assert head.headers["ETag"] == got.headers["ETag"] == '"102"'

    deleted = await served.ask("DELETE", "/v1/kv/a")
    assert deleted.json() == {"deleted": 1, "revision": 103}
    assert (await served.ask("DELETE", "/v1/kv/a")).json() == {"deleted": 0, "revision": 103}
    gone = await served.ask("GET", "/v1/kv/a")
    assert (gone.status, gone.code()) == (404, "key_not_found")
    assert (await served.ask("HEAD", "/v1/kv/a")).status == 404


async def test_a_value_as_of_a_revision(served: Served) -> None:
    await served.ask("PUT", "/v1/kv/a", body=b"one")
    await served.ask("PUT", "/v1/kv/a", body=b"two")
    await served.ask("DELETE", "/v1/kv/a")
    for revision, status in ((100, 404), (101, 200), (102, 200), (103, 404)):
        answer = await served.ask("GET", f"/v1/kv/a?revision={revision}")
        assert answer.status == status
        assert answer.headers["X-RaftKV-Revision"] == "103"
    old = await served.ask("GET", "/v1/kv/a?revision=101")
    assert (old.body, old.headers["ETag"]) == (b"one", '"101"')
    future = await served.ask("GET", "/v1/kv/a?revision=104")
    assert (future.status, future.code()) == (400, "future_revision")
    assert "the store is at 103" in future.json()["detail"]


async def test_a_write_returns_what_was_there_before(served: Served) -> None:
    created = await served.ask("PUT", "/v1/kv/a?prev=true", body=b"\xff")
    assert (created.status, created.json()["prev"]) == (201, None)
    replaced = await served.ask("POST", "/v1/kv/a?op=append&prev=true", body=b"x")
    assert replaced.json()["version"] == 2
    assert replaced.json()["prev"] == {
        "key": "a",
        "key_encoding": "utf-8",
        "value": "/w==",
        "value_encoding": "base64",
        "create_revision": 101,
        "mod_revision": 101,
        "version": 1,
        "lease": "0",
    }
    deleted = await served.ask("DELETE", "/v1/kv/a?prev=true")
    assert (deleted.json()["deleted"], deleted.json()["prev"]["mod_revision"]) == (1, 102)
    assert "prev" not in (await served.ask("DELETE", "/v1/kv/a")).json()
    headers = {"If-Match": "*"}
    failed = await served.ask("PUT", "/v1/kv/a?prev=true", body=b"", headers=headers)
    assert (failed.status, failed.code()) == (412, "condition_failed")


async def test_increment(served: Served) -> None:
    created = await served.ask("POST", "/v1/kv/n?op=increment")
    assert (created.status, created.headers["ETag"]) == (201, '"101"')
    assert created.json() == {
        "key": "n",
        "key_encoding": "utf-8",
        "revision": 101,
        "version": 1,
        "value": "1",
        "value_encoding": "utf-8",
    }
    added = await served.ask("POST", "/v1/kv/n?op=increment&by=-43&prev=true")
    assert (added.status, added.json()["value"]) == (200, "-42")
    assert added.json()["prev"]["value"] == "1"
    overflow = await served.ask("POST", f"/v1/kv/n?op=increment&by={-(2**63)}")
    assert (overflow.status, overflow.code()) == (409, "counter_overflow")
    await served.ask("PUT", "/v1/kv/n", body=b"4.2")
    refused = await served.ask("POST", "/v1/kv/n?op=increment")
    assert (refused.status, refused.code()) == (409, "not_a_counter")
    assert served.driver.items[b"n"].value == b"4.2"


async def test_append(served: Served) -> None:
    created = await served.ask("POST", "/v1/kv/a?op=append", body=b"one")
    assert created.status == 201
    assert (await served.ask("POST", "/v1/kv/a?op=append", body=b"two")).status == 200
    assert served.driver.items[b"a"].value == b"onetwo"
    assert isinstance(served.driver.commands[0], Append)


async def test_append_beyond_the_limit_is_413() -> None:
    async with serving(settings=HttpSettings("n1", value_bytes_max=5)) as served:
        await served.ask("PUT", "/v1/kv/a", body=b"12345")
        answer = await served.ask("POST", "/v1/kv/a?op=append", body=b"6")
        assert (answer.status, answer.code()) == (413, "too_large")
        assert served.driver.items[b"a"].value == b"12345"


async def test_json_item(served: Served) -> None:
    await served.ask("PUT", "/v1/kv/a", body=b"\xff")
    answer = await served.ask("GET", "/v1/kv/a", headers={"Accept": "application/json"})
    assert answer.headers["ETag"] == '"101-j"'
    assert answer.json()["value"] == "/w=="
    again = await served.ask(
        "GET", "/v1/kv/a", headers={"Accept": "application/json", "If-None-Match": '"101-j"'}
    )
    assert (again.status, again.body) == (304, b"")
    assert again.headers["X-RaftKV-Revision"] == "101"


async def test_conditional_writes(served: Served) -> None:
    assert (await served.ask("PUT", "/v1/kv/a", body=b"1", headers={"If-None-Match": "*"})).status
    create = await served.ask("PUT", "/v1/kv/a", body=b"2", headers={"If-None-Match": "*"})
    assert (create.status, create.code()) == (412, "condition_failed")
    assert (create.headers["ETag"], create.headers["X-RaftKV-Revision"]) == ('"101"', "101")
    stale = await served.ask("PUT", "/v1/kv/a", body=b"2", headers={"If-Match": '"99"'})
    assert (stale.status, stale.json()["outcome"]) == (412, "not_committed")
    fresh = await served.ask("PUT", "/v1/kv/a", body=b"2", headers={"If-Match": '"99", "101-j"'})
    assert fresh.status == 200
    absent = await served.ask("DELETE", "/v1/kv/b", headers={"If-Match": "*"})
    assert absent.status == 412
    assert "ETag" not in absent.headers
    command = served.driver.commands[-1]
    assert command == Delete(b"b", Condition(exists=True))


async def test_several_if_match_lines_are_one_list(served: Served) -> None:
    await served.ask("PUT", "/v1/kv/a", body=b"1")
    lines = [("If-Match", '"7"'), ("If-Match", '"101"')]
    assert (await served.ask("PUT", "/v1/kv/a", body=b"2", headers=lines)).status == 200


async def test_read_parameters_reach_the_node(served: Served) -> None:
    answer = await served.ask("GET", "/v1/kv/a?consistency=local&min_revision=7&timeout=250ms")
    assert answer.headers["X-RaftKV-Consistency"] == "local"
    assert served.driver.reads == [(b"a", Consistency.LOCAL, 7, 0.25)]
    await served.ask("PUT", "/v1/kv/a?timeout=2s", body=b"")
    assert served.driver.timeouts == [2.0]


async def test_all_256_bytes_are_keys_of_their_own(served: Served) -> None:
    for byte in range(256):
        key = bytes((byte,))
        target = "/v1/kv/" + quote_from_bytes(key, safe="")
        assert (await served.ask("PUT", target, body=key)).status == 201
    for byte in range(256):
        key = bytes((byte,))
        encoded = base64.urlsafe_b64encode(key).decode()
        assert (await served.ask("GET", "/v1/k/" + encoded)).body == key
    assert len(served.driver.items) == 256


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("/v1/kv/..", b".."),
        ("/v1/kv/../../v1/status", b"../../v1/status"),
        ("/v1/kv//", b"/"),
        ("/v1/kv/a//b/", b"a//b/"),
        ("/v1/kv/%2F", b"/"),
        ("/v1/kv/%FF", b"\xff"),
        ("/v1/kv/%25FF", b"%FF"),
        ("/v1/kv/a+b", b"a+b"),
        ("/v1/kv/a%20b", b"a b"),
        ("/v1/kv/%0D%0AX:%20y", b"\r\nX: y"),
        ("/v1/k/Li4", b".."),
    ],
)
async def test_keys_are_byte_exact(served: Served, target: str, key: bytes) -> None:
    answer = await served.ask("PUT", target, body=b"v")
    assert answer.status == 201
    assert served.driver.commands == [Put(key, b"v")]
    assert "X" not in answer.headers


async def test_keys_through_the_aiohttp_client(served: Served) -> None:
    key = bytes(range(256))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.port}") as session:
        url = URL("/v1/kv/" + quote_from_bytes(key, safe=""), encoded=True)
        async with session.put(url, data=b"v") as response:
            assert response.status == 201
        async with session.get(url) as response:
            assert await response.read() == b"v"
    assert list(served.driver.items) == [key]


async def test_an_empty_key_is_never_a_range(served: Served) -> None:
    for target in ("/v1/kv/", "/v1/k/"):
        for method in ("GET", "PUT", "DELETE"):
            answer = await served.ask(method, target, body=b"")
            assert (answer.status, answer.code()) == (400, "bad_key")
    assert not served.driver.commands


@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 20])
async def test_values_are_byte_exact(served: Served, size: int) -> None:
    value = bytes(size)
    await served.ask("PUT", "/v1/kv/a", body=value)
    assert (await served.ask("GET", "/v1/kv/a")).body == value


async def test_chunked_bodies(served: Served) -> None:
    async with served.connect() as raw:
        raw.send(
            b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n"
        )
        await until(lambda: served.server.in_flight)
        raw.send(b"2\r\nde\r\n0\r\n\r\n")
        assert (await raw.answer()).status == 201
    assert served.driver.items[b"a"].value == b"abcde"


async def test_expect_100_continue_is_answered_before_the_body(served: Served) -> None:
    async with served.connect() as raw:
        raw.send(
            b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert await raw.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.send(b"abc")
        assert (await raw.answer()).status == 201
        raw.send(b"GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await raw.answer()).body == b"abc"


async def test_a_refused_expectation_spares_the_body(served: Served) -> None:
    async with served.connect() as raw:
        raw.send(
            b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        answer = await raw.answer()
        assert (answer.status, answer.headers["Connection"]) == (413, "close")


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
