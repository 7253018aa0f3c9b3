"""Bad inputs of faults.md section 6 in keys, values, ranges, revisions and transactions.

Each is stored byte-exact or refused by name, and nothing is changed by what is refused.
"""

import base64
import json
import unicodedata
from urllib.parse import quote_from_bytes

import pytest

from raftkv.kv.commands import Compact, encode_command
from tests.server.http.fake_driver import LEADER_ID
from tests.server.http.harness import Served

BYTES = (b"\xff\xfe", b"\xed\xa0\x80", b"a\x00b", b"\r\nX-Evil: y", b"\xc0\xaf", b"%00")


@pytest.mark.parametrize("data", BYTES)
async def test_row_10_any_bytes_are_kept_and_never_in_a_header(served: Served, data: bytes) -> None:
    key = "/v1/kv/" + quote_from_bytes(data, safe="")
    put = await served.ask("PUT", key, body=data)
    assert put.status == 201
    got = await served.ask("GET", key)
    assert got.body == data
    assert "X-Evil" not in got.headers
    item = (await served.ask("GET", key, headers={"Accept": "application/json"})).json()
    for name in ("key", "value"):
        text = item[name]
        decoded = base64.b64decode(text) if item[f"{name}_encoding"] == "base64" else text.encode()
        assert decoded == data
    listed = await served.ask("GET", "/v1/kv?prefix=" + quote_from_bytes(data, safe=""))
    assert len(listed.json()["items"]) == 1
    lock = await served.ask(
        "POST", "/v1/locks/" + quote_from_bytes(data, safe=""), body=b'{"ttl":"1s"}'
    )
    assert lock.status == 200
    assert "X-Evil" not in lock.headers


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1/kv/", 400),
        ("/v1/kv/k", 201),
        ("/v1/kv/" + "k" * 511, 201),
        ("/v1/kv/" + "k" * 512, 400),
        ("/v1/kv/" + "%6B" * 511, 201),
        ("/v1/kv/" + "%6B" * 512, 400),
        ("/v1/kv/..", 201),
        ("/v1/kv/%2e%2e", 201),
        ("/v1/kv/%00", 201),
        ("/v1/kv//", 201),
        ("/v1/kv/%", 400),
        ("/v1/kv/%zz", 400),
        ("/v1/k/", 400),
        ("/v1/k/!", 400),
        ("/v1/k/YQ=", 201),
        ("/v1/k/YR", 400),
    ],
)
async def test_row_11_a_key_is_its_bytes_or_none(served: Served, target: str, status: int) -> None:
    answer = await served.ask("PUT", target, body=b"v")
    assert answer.status == status
    if status == 400:
        assert answer.code() == "bad_key"
    assert len(served.driver.items) == (status == 201)


async def test_row_11_two_spellings_of_a_key_are_one(served: Served) -> None:
    for target in ("/v1/kv/..", "/v1/kv/%2e%2e", "/v1/kv/%2E.", "/v1/k/Li4", "/v1/k/Li4="):
        await served.ask("PUT", target, body=b"v")
    assert list(served.driver.items) == [b".."]


async def test_row_12_keys_are_compared_as_bytes(served: Served) -> None:
    keys = {
        unicodedata.normalize(form, text).encode()
        for form in ("NFC", "NFD")
        for text in ("é", "É", "ß", "SS")
    }
    for key in keys:
        answer = await served.ask("PUT", "/v1/kv/" + quote_from_bytes(key), body=key)
        assert answer.status == 201
    assert set(served.driver.items) == keys
    assert len(keys) == 6


@pytest.mark.parametrize("value", [b"", bytes(4096), bytes(1 << 20), b"\xff" * 512, b"0" * 512])
async def test_row_13_values_come_back(served: Served, value: bytes) -> None:
    await served.ask("PUT", "/v1/kv/a", body=value)
    assert (await served.ask("GET", "/v1/kv/a")).body == value


@pytest.mark.parametrize(
    "query",
    [
        "start=b&end=a", "limit=0", "limit=-1", "limit=9223372036854775808", "limit=10001",
        "limit=1e3", "limit=", "order=up", "keys_only=1", "prefix=" + "p" * 512,
        "cursor=x", "cursor=" + "A" * 5000, "delimiter=" + "d" * 512, "revision=0",
        "limit=1&limit=2",
    ],
)  # fmt: skip
async def test_row_14_a_range_that_is_none_is_400(served: Served, query: str) -> None:
    answer = await served.ask("GET", "/v1/kv?" + query)
    assert (answer.status, answer.code()) == (400, "bad_parameter")
    assert query.partition("=")[0] in answer.json()["detail"]
    assert not served.driver.queries


@pytest.mark.parametrize(
    ("revision", "status", "code"),
    [
        ("0", 400, "bad_parameter"),
        ("-1", 400, "bad_parameter"),
        ("9223372036854775808", 400, "bad_parameter"),
        ("1" * 5000, 400, "bad_parameter"),
        ("9223372036854775807", 400, "future_revision"),
        ("104", 400, "future_revision"),
        ("101", 410, "compacted"),
    ],
)
async def test_row_15_a_revision_that_cannot_be_read(
    served: Served, revision: str, status: int, code: str
) -> None:
    for value in (b"1", b"2", b"3"):
        await served.ask("PUT", "/v1/kv/a", body=value)
    served.driver.apply(encode_command(Compact(102)))
    for target in ("/v1/kv/a", "/v1/kv"):
        answer = await served.ask("GET", f"{target}?revision={revision}")
        assert (answer.status, answer.code()) == (status, code)
        if code == "compacted":
            assert answer.json()["oldest_revision"] == 102


async def test_row_17_one_key_twice_and_a_compare_of_no_key(served: Served) -> None:
    txn = {
        "compare": [
            {"key": "none", "target": "value", "op": "!=", "value": ""},
            {"key": "none", "target": "version", "op": "=", "value": 0},
        ],
        "success": [
            {"op": "put", "key": "a", "value": "1"},
            {"op": "put", "key": "a", "value": "2"},
            {"op": "delete", "key": "b"},
        ],
    }
    answer = await served.ask("POST", "/v1/txn", body=json.dumps(txn).encode())
    assert (answer.status, answer.json()["succeeded"]) == (200, True)
    assert [each.get("version") for each in answer.json()["results"]] == [1, 2, None]
    assert served.driver.items[b"a"].value == b"2"
    txn["compare"] = [{"key": "none", "target": "value", "op": "=", "value": ""}]
    answer = await served.ask("POST", "/v1/txn", body=json.dumps(txn).encode())
    assert answer.json() == {"succeeded": False, "revision": 101, "results": []}


async def test_row_18_and_19_a_key_is_for_one_request(served: Served) -> None:
    """On a real store: the first outcome of a compare-and-set is the one that is told again."""
    headers = {"Idempotency-Key": "k", "If-None-Match": "*"}
    first = await served.ask("PUT", "/v1/kv/a", body=b"v", headers=headers)
    again = await served.ask("PUT", "/v1/kv/a", body=b"v", headers=headers)
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    stale = {"Idempotency-Key": "stale", "If-Match": '"1"'}
    assert (await served.ask("PUT", "/v1/kv/a", body=b"w", headers=stale)).status == 412
    replayed = await served.ask("PUT", "/v1/kv/a", body=b"w", headers=stale)
    assert (replayed.status, replayed.headers["Idempotency-Replayed"]) == (412, "true")
    for method, target, body, lines in (
        ("PUT", "/v1/kv/a", b"other", headers),
        ("PUT", "/v1/kv/b", b"v", headers),
        ("PUT", "/v1/kv/a", b"v", {"Idempotency-Key": "k"}),
        ("DELETE", "/v1/kv/a", None, headers),
    ):
        answer = await served.ask(method, target, body=body, headers=lines)
        assert (answer.status, answer.code()) == (422, "idempotency_mismatch")
    assert served.driver.items[b"a"].value == b"v"


@pytest.mark.parametrize("name", ["Host", "X-Forwarded-Host", "Forwarded", "X-Forwarded-Proto"])
async def test_row_34_redirects_name_the_leaders_own_address(served: Served, name: str) -> None:
    served.driver.change(leader=LEADER_ID, role="follower")
    lines = {name: "evil.localhost" if name == "Host" else "evil"}
    for method, target in (
        ("PUT", "/v1/kv/a"),
        ("POST", "/v1/txn"),
        ("DELETE", "/v1/cluster/members/00000000000000ff"),
    ):
        answer = await served.ask(method, target + "?redirect=true", body=b"", headers=lines)
        assert answer.headers["Location"] == f"http://n2:7400{target}?redirect=true"
