"""Membership, leadership, snapshot and compaction over HTTP (API contract; faults.md 6, row 30)."""

import json

import pytest

from raftkv.kv.commands import Compact
from raftkv.kv.outcomes import Compacted, NotYetReached
from raftkv.node.messages import Failure, FailureCode
from raftkv.raft.confchange import AddLearner, PromoteLearner, RemoveMember, ReplaceMember
from raftkv.raft.errors import RefusalReason
from raftkv.raft.messages import Member
from tests.server.http.fake_driver import LEADER_ID, NODE_ID
from tests.server.http.harness import Served

MEMBERS = "/v1/cluster/members"
ID = "00000000000000ff"
ADDED = {"id": ID, "name": "n4", "peer_url": "n4:7401", "client_url": "http://n4:7400"}
MEMBER = Member(255, "n4", "n4:7401", "http://n4:7400")


@pytest.mark.parametrize(
    ("method", "target", "body", "change"),
    [
        ("POST", MEMBERS, json.dumps(ADDED), AddLearner(MEMBER)),
        ("POST", MEMBERS, json.dumps(ADDED | {"promote": "manual"}), AddLearner(MEMBER)),
        ("POST", MEMBERS, json.dumps(ADDED | {"promote": "auto"}), AddLearner(MEMBER, True)),
        ("POST", MEMBERS, json.dumps(ADDED | {"rejoin": True}), AddLearner(MEMBER, rejoins=True)),
        ("POST", f"{MEMBERS}/{ID}/promote", "", PromoteLearner(255)),
        ("POST", f"{MEMBERS}/{ID}/replace", f'{{"by":"{15:016x}"}}', ReplaceMember(255, 15)),
        ("DELETE", f"{MEMBERS}/{ID}", "", RemoveMember(255)),
    ],
)
async def test_membership_changes(
    served: Served, method: str, target: str, body: str, change: object
) -> None:
    answer = await served.ask(method, target, body=body.encode())
    assert (answer.status, answer.json()) == (200, {"config_index": 7})
    assert answer.headers["ETag"] == '"7"'
    conditional = await served.ask(
        method, target + "?timeout=9s", body=body.encode(), headers={"If-Match": '"6"'}
    )
    assert conditional.status == 200
    assert served.driver.changes == [(change, None), (change, 6)]


async def test_a_change_takes_the_tag_of_the_cluster(served: Served) -> None:
    tag = (await served.ask("GET", "/v1/cluster")).headers["ETag"]
    assert tag == '"1"'
    await served.ask("DELETE", f"{MEMBERS}/{ID}", headers={"If-Match": tag})
    assert served.driver.changes == [(RemoveMember(255), 1)]


@pytest.mark.parametrize(
    "tag", ["7", '""', '"x"', '"6", "7"', 'W/"7"', '"-1"', '"99999999999999999999"']
)
async def test_a_condition_names_one_configuration(served: Served, tag: str) -> None:
    answer = await served.ask("DELETE", f"{MEMBERS}/{ID}", headers={"If-Match": tag})
    assert (answer.status, answer.code()) == (400, "bad_header")
    answer = await served.ask("DELETE", f"{MEMBERS}/{ID}", headers={"If-None-Match": "*"})
    assert (answer.status, answer.code()) == (400, "bad_header")
    assert not served.driver.changes


async def test_another_configuration_is_412(served: Served) -> None:
    served.driver.failure = Failure(FailureCode.PRECONDITION, "the configuration is 9")
    answer = await served.ask("DELETE", f"{MEMBERS}/{ID}", headers={"If-Match": '"7"'})
    assert (answer.status, answer.code()) == (412, "config_changed")


@pytest.mark.parametrize("reason", RefusalReason)
async def test_row_30_a_refused_change_says_why(served: Served, reason: RefusalReason) -> None:
    served.driver.failure = Failure(FailureCode.REFUSED, "a sentence", reason=reason)
    answer = await served.ask("DELETE", f"{MEMBERS}/{ID}")
    assert (answer.status, answer.code()) == (409, "change_refused")
    assert (answer.json()["reason"], answer.json()["detail"]) == (reason.value, "a sentence")


@pytest.mark.parametrize("member", ["", "7", "n1", ID.upper(), ID + "0"])
async def test_ids_are_16_hex_digits(served: Served, member: str) -> None:
    for method, end in (("DELETE", ""), ("POST", "/promote"), ("POST", "/replace")):
        answer = await served.ask(method, f"{MEMBERS}/{member}{end}", body=b"")
        assert (answer.status, answer.code()) == (400, "bad_id")
    assert not served.driver.changes


@pytest.mark.parametrize(
    ("target", "body"),
    [
        (MEMBERS, b""),
        (MEMBERS, b"{}"),
        (MEMBERS, json.dumps(ADDED | {"promote": True}).encode()),
        (MEMBERS, json.dumps(ADDED | {"voter": True}).encode()),
        (MEMBERS, json.dumps(ADDED | {"peer_url": "http://n4:7401"}).encode()),
        (f"{MEMBERS}/{ID}/promote", b"{}"),
        (f"{MEMBERS}/{ID}/replace", b""),
        (f"{MEMBERS}/{ID}/replace", b'{"by":"n4"}'),
        ("/v1/cluster/leader", b'{"target":"n4"}'),
        ("/v1/cluster/leader", b'{"to":null}'),
        ("/v1/maintenance/compact", b""),
        ("/v1/maintenance/compact", b'{"revision":0}'),
        ("/v1/maintenance/compact", b'{"revision":-1}'),
        ("/v1/maintenance/compact", b'{"revision":9223372036854775808}'),
        ("/v1/maintenance/compact", b'{"revision":"7"}'),
        ("/v1/maintenance/snapshot", b"{}"),
    ],
)
async def test_bodies_that_are_not_understood(served: Served, target: str, body: bytes) -> None:
    answer = await served.ask("POST", target, body=body)
    assert (answer.status, answer.code()) == (400, "bad_body")
    assert not served.driver.changes
    assert not served.driver.commands
    assert not served.driver.transfers


async def test_parameters_refused(served: Served) -> None:
    for target in (MEMBERS, "/v1/cluster/leader", "/v1/maintenance/compact"):
        answer = await served.ask("POST", target + "?force=true", body=b"{}")
        assert (answer.status, answer.code()) == (400, "bad_parameter")
    answer = await served.ask("POST", "/v1/maintenance/snapshot?timeout=1s", body=b"")
    assert (answer.status, answer.code()) == (400, "bad_parameter")


async def test_transfer(served: Served) -> None:
    target = f"{LEADER_ID:016x}"
    answer = await served.ask(
        "POST", "/v1/cluster/leader", body=json.dumps({"target": target}).encode()
    )
    assert answer.json() == {"leader": target, "leader_name": "n2", "term": 8}
    for body in (b"", b"{}", b'{"target":null}'):
        assert (await served.ask("POST", "/v1/cluster/leader", body=body)).status == 200
    assert served.driver.transfers == [LEADER_ID, None, None, None]


async def test_snapshot(served: Served) -> None:
    answer = await served.ask("POST", "/v1/maintenance/snapshot", body=b"")
    assert answer.json() == {
        "name": "100-7.snapshot",
        "index": 100,
        "revision": 100,
        "size_bytes": 4096,
    }


async def test_compaction(served: Served) -> None:
    served.driver.outcomes = [Compacted(100, 50), NotYetReached(100)]
    answer = await served.ask("POST", "/v1/maintenance/compact", body=b'{"revision":50}')
    assert answer.json() == {"revision": 100, "compacted_revision": 50}
    future = await served.ask("POST", "/v1/maintenance/compact", body=b'{"revision":500}')
    assert (future.status, future.code()) == (400, "future_revision")
    assert served.driver.commands == [Compact(50), Compact(500)]


async def test_row_15_a_compacted_revision_is_410_with_the_oldest(served: Served) -> None:
    served.driver.failure = Failure(FailureCode.COMPACTED, "it is gone", revision=42)
    for target in ("/v1/kv/a?revision=7", "/v1/kv?revision=7"):
        answer = await served.ask("GET", target)
        assert (answer.status, answer.code()) == (410, "compacted")
        assert answer.json()["oldest_revision"] == 42


async def test_redirects(served: Served) -> None:
    served.driver.change(leader=LEADER_ID, role="follower")
    for method, target in (
        ("POST", MEMBERS),
        ("DELETE", f"{MEMBERS}/{ID}"),
        ("POST", f"{MEMBERS}/{ID}/promote"),
        ("POST", "/v1/cluster/leader"),
        ("POST", "/v1/maintenance/compact"),
    ):
        answer = await served.ask(method, target + "?redirect=true", body=b"")
        assert answer.headers["Location"] == f"http://n2:7400{target}?redirect=true"


@pytest.mark.parametrize(
    ("code", "status", "problem", "retryable"),
    [
        (FailureCode.QUOTA, 507, "quota", False),
        (FailureCode.OVERLOADED, 429, "overloaded", True),
        (FailureCode.IDEMPOTENCY_FULL, 429, "idempotency_full", True),
        (FailureCode.STOPPED, 503, "stopping", True),
    ],
)
async def test_failures_of_writes(
    served: Served, code: FailureCode, status: int, problem: str, retryable: bool
) -> None:
    served.driver.failure = Failure(code, "why")
    answer = await served.ask("PUT", "/v1/kv/a", body=b"v")
    assert (answer.status, answer.code()) == (status, problem)
    assert (answer.json()["outcome"], answer.json()["retryable"]) == ("not_committed", retryable)
    assert ("Retry-After" in answer.headers) is retryable


# ---- reads that nobody was asked for --------------------------------------------------------


async def test_a_stale_read_states_its_age(served: Served) -> None:
    await served.ask("PUT", "/v1/kv/a", body=b"v")
    for target in (
        "/v1/kv/a?consistency=local",
        "/v1/kv?consistency=local",
        "/v1/kv/none?consistency=local",
    ):
        answer = await served.ask("GET", target)
        assert answer.headers["X-RaftKV-Consistency"] == "local"
        assert answer.headers["X-RaftKV-Age-Seconds"] == "0.250"
    served.driver.age_seconds = None
    answer = await served.ask("GET", "/v1/kv/a?consistency=local")
    assert answer.headers["X-RaftKV-Age-Seconds"] == "unknown"


async def test_a_bounded_read_says_what_it_was(served: Served) -> None:
    await served.ask("PUT", "/v1/kv/a", body=b"v")
    bounded = "/v1/kv/a?consistency=bounded&max_stale=1500ms"
    asked = await served.ask("GET", bounded)
    assert asked.headers["X-RaftKV-Consistency"] == "linearizable"
    assert "X-RaftKV-Age-Seconds" not in asked.headers
    assert served.driver.max_stale_seconds == 1.5
    served.driver.is_asked = False
    stale = await served.ask("GET", bounded)
    assert (stale.body, stale.headers["X-RaftKV-Consistency"]) == (b"v", "bounded")
    assert stale.headers["X-RaftKV-Age-Seconds"] == "0.250"
    listed = await served.ask("GET", "/v1/kv?consistency=bounded&max_stale=1500ms")
    assert (listed.status, listed.headers["X-RaftKV-Consistency"]) == (200, "bounded")


async def test_a_minimal_revision_that_is_not_reached_is_504_not_committed(served: Served) -> None:
    served.driver.failure = Failure(FailureCode.DEADLINE, "the store is at 100")
    answer = await served.ask("GET", "/v1/kv/a?min_revision=999&timeout=1ms")
    assert (answer.status, answer.code()) == (504, "deadline")
    assert answer.json()["outcome"] == "not_committed"


async def test_the_own_id_is_no_special_case(served: Served) -> None:
    await served.ask("DELETE", f"{MEMBERS}/{NODE_ID:016x}")
    assert served.driver.changes == [(RemoveMember(NODE_ID), None)]
