"""`/v1/leases` and keys that belong to one (API contract; faults.md section 6, row 21)."""

import json

import pytest

from raftkv.kv.commands import GrantLease, KeepLeaseAlive, Put, RevokeLease
from raftkv.kv.outcomes import (
    Item,
    LeaseForbidden,
    LeaseFull,
    LeaseGranted,
    LeaseNotFound,
    LeaseRevoked,
)
from raftkv.node.events import (
    Consistency,
    Get,
    GetLease,
    LeaseFound,
    LeaseInfo,
    LeasesFound,
    ListLeases,
    ReadResult,
)
from raftkv.node.messages import Failure, FailureCode
from tests.server.http.fake_driver import LEADER_ID
from tests.server.http.harness import Served

ID = "00000000000000ff"
ONE = f"/v1/leases/{ID}"


async def test_grant(served: Served) -> None:
    served.driver.outcomes = [LeaseGranted(255, 255, 30_000)]
    answer = await served.ask("POST", "/v1/leases?timeout=2s", body=b'{"ttl":"30s"}')
    assert (answer.status, answer.headers["X-RaftKV-Revision"]) == (201, "255")
    assert answer.json() == {"id": ID, "ttl": "30s", "revision": 255}
    assert served.driver.commands == [GrantLease(30_000, 10_000)]
    assert served.driver.timeouts == [2.0]


@pytest.mark.parametrize(
    "ttl",
    ["0s", "0ms", "-1s", "nan", "NaN", "inf", "1e18s", "1000000000000000000s", "", "30", "s",
     "30 s", "1s1m", "999999h", "0.4ms", "३s", 30, None, True],
)  # fmt: skip
async def test_row_21_a_ttl_that_is_none_is_400(served: Served, ttl: object) -> None:
    answer = await served.ask("POST", "/v1/leases", body=json.dumps({"ttl": ttl}).encode())
    assert (answer.status, answer.code()) == (400, "bad_body")
    assert "ttl" in answer.json()["detail"]
    if isinstance(ttl, str):
        answer = await served.ask("PUT", "/v1/kv/a?ttl=" + "".join(
            f"%{byte:02X}" for byte in ttl.encode()), body=b"v")  # fmt: skip
        assert (answer.status, answer.code()) == (400, "bad_parameter")
    assert not served.driver.commands


async def test_keepalive_and_revoke(served: Served) -> None:
    served.driver.outcomes = [LeaseGranted(300, 255, 1500), LeaseRevoked(301, 3)]
    kept = await served.ask("POST", ONE + "/keepalive", body=b"")
    assert (kept.status, kept.json()) == (200, {"id": ID, "ttl": "1500ms", "revision": 300})
    ended = await served.ask("DELETE", ONE)
    assert (ended.status, ended.json()) == (200, {"id": ID, "deleted": 3, "revision": 301})
    assert served.driver.commands == [KeepLeaseAlive(255), RevokeLease(255)]


async def test_a_lease_that_is_no_more_is_404(served: Served) -> None:
    served.driver.outcomes = [LeaseNotFound(300)] * 3
    served.driver.finds[GetLease] = LeaseFound(None, 300)
    for method, target in (
        ("POST", ONE + "/keepalive"),
        ("DELETE", ONE),
        ("PUT", f"/v1/kv/a?lease={ID}"),
        ("GET", ONE),
    ):
        answer = await served.ask(method, target, body=b"")
        assert (answer.status, answer.code()) == (404, "lease_not_found")
        assert answer.headers["X-RaftKV-Revision"] == "300"


@pytest.mark.parametrize(
    "lease", ["", "7", "00000000000000FF", "00000000000000ff0", "%30" * 16, ".."]
)
async def test_an_id_that_is_none_is_400(served: Served, lease: str) -> None:
    for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/keepalive")):
        answer = await served.ask(method, f"/v1/leases/{lease}{end}", body=b"")
        assert (answer.status, answer.code()) == (400, "bad_id")
    assert not served.driver.commands
    assert not served.driver.queries


INFO = LeaseInfo(255, 30_000, 12_345, (b"a", b"\xff"))


async def test_read_one(served: Served) -> None:
    served.driver.finds[GetLease] = LeaseFound(INFO, 300)
    answer = await served.ask("GET", ONE + "?min_revision=9")
    assert answer.json() == {
        "id": ID,
        "ttl": "30s",
        "remaining": "12345ms",
        "keys": [
            {"key": "a", "key_encoding": "utf-8"},
            {"key": "/w==", "key_encoding": "base64"},
        ],
        "revision": 300,
    }
    assert answer.headers["X-RaftKV-Consistency"] == "linearizable"
    assert answer.headers["X-RaftKV-Revision"] == "300"
    assert served.driver.reads == [(b"", Consistency.LINEARIZABLE, 9, 5.0)]


async def test_list_in_pages(served: Served) -> None:
    served.driver.finds[ListLeases] = LeasesFound((INFO,), 300, 255)
    page = (await served.ask("GET", "/v1/leases?limit=1")).json()
    assert page == {
        "revision": 300,
        "leases": [{"id": ID, "ttl": "30s", "remaining": "12345ms"}],
        "next_cursor": ID,
    }
    served.driver.finds[ListLeases] = LeasesFound((), 300, None)
    page = (await served.ask("GET", f"/v1/leases?cursor={ID}&consistency=local")).json()
    assert page == {"revision": 300, "leases": [], "next_cursor": None}
    assert served.driver.queries == [ListLeases(0, 1), ListLeases(255, 1000)]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=9223372036854775808", "cursor=7", "prefix=a",
     "consistency=strong"],
)  # fmt: skip
async def test_list_parameters_refused(served: Served, query: str) -> None:
    answer = await served.ask("GET", "/v1/leases?" + query)
    assert (answer.status, answer.code()) == (400, "bad_parameter")


async def test_a_key_with_a_lease(served: Served) -> None:
    await served.ask("PUT", f"/v1/kv/a?lease={ID}", body=b"v")
    await served.ask("PUT", "/v1/kv/a?ttl=1m30s", body=b"v")
    assert served.driver.commands == [
        Put(b"a", b"v", None, 255),
        Put(b"a", b"v", None, 0, 90_000),
    ]
    served.driver.finds[Get] = ReadResult(Item(b"a", b"v", 7, 7, 1, 255), 300)
    got = await served.ask("GET", "/v1/kv/a")
    assert got.headers["X-RaftKV-Lease"] == ID
    as_json = await served.ask("GET", "/v1/kv/a", headers={"Accept": "application/json"})
    assert as_json.json()["lease"] == ID


async def test_a_full_lease_is_409(served: Served) -> None:
    served.driver.outcomes = [LeaseFull(300)]
    answer = await served.ask("PUT", f"/v1/kv/a?lease={ID}", body=b"v")
    assert (answer.status, answer.code()) == (409, "lease_full")


async def test_a_lease_that_got_a_foreign_key_meanwhile_is_403(served: Served) -> None:
    served.driver.outcomes = [LeaseForbidden(300)]
    answer = await served.ask("DELETE", ONE)
    assert (answer.status, answer.code()) == (403, "forbidden")


async def test_a_keepalive_with_a_body_is_400(served: Served) -> None:
    answer = await served.ask("POST", ONE + "/keepalive", body=b"{}")
    assert (answer.status, answer.code()) == (400, "bad_body")
    answer = await served.ask("POST", "/v1/kv/n?op=increment", body=b"7")
    assert (answer.status, answer.code()) == (400, "bad_body")
    assert not served.driver.commands


async def test_failures_and_redirects(served: Served) -> None:
    served.driver.failure = Failure(FailureCode.QUOTA, "full")
    answer = await served.ask("POST", "/v1/leases", body=b'{"ttl":"1s"}')
    assert (answer.status, answer.code()) == (507, "quota")
    served.driver.change(leader=LEADER_ID, role="follower")
    for method, target in (("POST", "/v1/leases"), ("DELETE", ONE), ("POST", ONE + "/keepalive")):
        answer = await served.ask(method, target + "?redirect=true", body=b"")
        assert answer.headers["Location"] == f"http://n2:7400{target}?redirect=true"


async def test_no_lease_has_the_id_zero(served: Served) -> None:
    """A key that was to vanish with its lease must not stay for ever."""
    zero = "0" * 16
    answer = await served.ask("PUT", f"/v1/kv/a?lease={zero}", body=b"v")
    assert (answer.status, answer.code()) == (404, "lease_not_found")
    put = {"op": "put", "key": "a", "value": "v", "lease": zero}
    answer = await served.ask("POST", "/v1/txn", body=json.dumps({"success": [put]}).encode())
    assert (answer.status, answer.code()) == (404, "lease_not_found")
    assert not served.driver.items
