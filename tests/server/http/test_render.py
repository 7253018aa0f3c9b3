"""Answers from values (API contract)."""

import json
from typing import Any

import pytest

from raftkv.kv.outcomes import ConditionFailed, Deleted, Item, Outcome, TooLarge, Written
from raftkv.node.events import Consistency, ReadResult
from raftkv.node.messages import Failure, FailureCode
from raftkv.server.http.conditions import parse_tags
from raftkv.server.http.problems import problem_of
from raftkv.server.http.reading import HowToRead, Reading
from raftkv.server.http.render import Renderer, Response, cluster_body, status_body
from raftkv.server.http.requests import ReadKey
from tests.server.http.fake_driver import CLUSTER, LEADER_ID, NODE_ID, STATUS

RENDERER = Renderer("n1")
ITEM = Item(b"k", b"v\x00", create_revision=3, mod_revision=7, version=2)


def read(
    item: Item | None, *, as_json: bool = False, if_match: str = "", if_none_match: str = ""
) -> Response:
    asked = ReadKey(
        b"k",
        0,
        HowToRead(Consistency.LOCAL),
        as_json,
        parse_tags("If-Match", [if_match] if if_match else []),
        parse_tags("If-None-Match", [if_none_match] if if_none_match else []),
    )
    return RENDERER.read(asked, Reading(ReadResult(item, 9), Consistency.LOCAL))


def write(outcome: Outcome, key: bytes = b"k") -> Response:
    return RENDERER.write(key, outcome)


def problem(response: Response) -> Any:
    assert response.headers["Content-Type"] == "application/problem+json"
    return json.loads(response.body)


def test_raw_value() -> None:
    response = read(ITEM)
    assert (response.status, response.body) == (200, b"v\x00")
    expected = {
        "Content-Type": "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "Cache-Control": "no-store",
        "Vary": "Accept",
        "ETag": '"7"',
        "X-RaftKV-Revision": "9",
        "X-RaftKV-Create-Revision": "3",
        "X-RaftKV-Mod-Revision": "7",
        "X-RaftKV-Version": "2",
        "X-RaftKV-Lease": "0",
        "X-RaftKV-Consistency": "local",
        "X-RaftKV-Node": "n1",
    }
    assert expected.items() <= response.headers.items()


def test_json_item() -> None:
    response = read(ITEM, as_json=True)
    assert response.headers["ETag"] == '"7-j"'
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Vary"] == "Accept"
    assert json.loads(response.body) == {
        "key": "k",
        "key_encoding": "utf-8",
        "value": "v\x00",
        "value_encoding": "utf-8",
        "create_revision": 3,
        "mod_revision": 7,
        "version": 2,
        "lease": "0",
    }


def test_bytes_that_are_not_text_travel_as_base64() -> None:
    body = json.loads(read(Item(b"\xff", b"\xfe\xff", 1, 1, 1, lease=255), as_json=True).body)
    assert (body["key"], body["key_encoding"]) == ("/w==", "base64")
    assert (body["value"], body["value_encoding"]) == ("/v8=", "base64")
    assert body["lease"] == "00000000000000ff"


def test_absent_key() -> None:
    response = read(None)
    assert response.status == 404
    assert response.headers["X-RaftKV-Revision"] == "9"
    assert response.headers["X-RaftKV-Consistency"] == "local"
    assert problem(response)["code"] == "key_not_found"
    assert "ETag" not in response.headers


@pytest.mark.parametrize(
    ("tags", "as_json", "status"),
    [
        ('"7"', False, 304),
        ("*", False, 304),
        ('"6", "7"', False, 304),
        ('"6"', False, 200),
        ('W/"7"', False, 200),
        ('"7-j"', False, 200),
        ('"7"', True, 200),
        ('"7-j"', True, 304),
    ],
)
def test_if_none_match_on_a_read(tags: str, as_json: bool, status: int) -> None:
    response = read(ITEM, as_json=as_json, if_none_match=tags)
    assert response.status == status
    assert response.headers["X-RaftKV-Revision"] == "9"
    assert response.headers["ETag"] == ('"7-j"' if as_json else '"7"')
    if status == 304:
        assert not response.body
        assert "Content-Type" not in response.headers


def test_if_none_match_on_an_absent_key_is_404() -> None:
    assert read(None, if_none_match="*").status == 404


@pytest.mark.parametrize(
    ("item", "tags", "status"),
    [(ITEM, '"7"', 200), (ITEM, "*", 200), (ITEM, '"6"', 412), (None, "*", 412)],
)
def test_if_match_on_a_read(item: Item | None, tags: str, status: int) -> None:
    response = read(item, if_match=tags)
    assert response.status == status
    assert response.headers["X-RaftKV-Revision"] == "9"


def test_written() -> None:
    created, replaced = write(Written(5, 1)), write(Written(6, 2), key=b"\xff")
    assert (created.status, replaced.status) == (201, 200)
    assert created.headers["ETag"] == '"5"'
    assert created.headers["X-RaftKV-Revision"] == "5"
    assert json.loads(created.body) == {
        "key": "k",
        "key_encoding": "utf-8",
        "revision": 5,
        "version": 1,
    }
    assert json.loads(replaced.body)["key_encoding"] == "base64"


@pytest.mark.parametrize("count", [0, 1])
def test_deleted(count: int) -> None:
    response = write(Deleted(8, count))
    assert response.status == 200
    assert response.headers["X-RaftKV-Revision"] == "8"
    assert json.loads(response.body) == {"deleted": count, "revision": 8}


def test_condition_failed_names_the_current_tag() -> None:
    response = write(ConditionFailed(9, 7))
    assert (response.status, problem(response)["code"]) == (412, "condition_failed")
    assert problem(response)["outcome"] == "not_committed"
    assert response.headers["ETag"] == '"7"'
    assert response.headers["X-RaftKV-Revision"] == "9"
    assert "ETag" not in write(ConditionFailed(9, 0)).headers


def test_too_large() -> None:
    response = write(TooLarge(9, 1 << 21))
    assert (response.status, problem(response)["outcome"]) == (413, "not_committed")
    assert response.headers["X-RaftKV-Revision"] == "9"


@pytest.mark.parametrize(
    ("code", "status", "outcome", "retryable"),
    [
        (FailureCode.NO_LEADER, 503, "not_committed", True),
        (FailureCode.UNKNOWN, 504, "unknown", False),
        (FailureCode.DEADLINE, 504, "not_committed", True),
        (FailureCode.OVERLOADED, 429, "not_committed", True),
        (FailureCode.UNINITIALISED, 503, "not_committed", True),
        (FailureCode.CONFLICT, 409, "not_committed", False),
        (FailureCode.INVALID, 400, "not_committed", False),
        (FailureCode.STOPPED, 503, "not_committed", True),
    ],
)
def test_failures(code: FailureCode, status: int, outcome: str, retryable: bool) -> None:
    response = RENDERER.problem(problem_of(Failure(code, "why")), 9)
    body = problem(response)
    assert (response.status, body["outcome"], body["retryable"]) == (status, outcome, retryable)
    assert body["detail"] == "why"
    assert response.headers["X-RaftKV-Revision"] == "9"
    assert ("Retry-After" in response.headers) is (status in (429, 503))


def test_every_failure_of_the_node_is_rendered() -> None:
    for code in FailureCode:
        assert problem_of(Failure(code, "why")).kind.status >= 400


def test_status_and_cluster_spell_ids_in_sixteen_hex_digits() -> None:
    status = status_body(STATUS, 1.25, ("plaintext",))
    assert status["member_id"] == status["leader"] == f"{NODE_ID:016x}" == "00abcdef01234567"
    assert (status["uptime_seconds"], status["warnings"]) == (1.25, ("plaintext",))
    body: Any = cluster_body(CLUSTER)
    assert body["voters"] == [f"{NODE_ID:016x}", f"{LEADER_ID:016x}"]
    assert body["leader"] == f"{NODE_ID:016x}"
    assert body["members"][1]["id"] == f"{LEADER_ID:016x}"
    assert body["members"][1]["lag_entries"] == 4
    assert body["joint"] is False
