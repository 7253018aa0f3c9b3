"""Requests to meanings (API contract; faults.md section 6, rows 8, 9, 34)."""

import pytest
from multidict import CIMultiDict

from raftkv.kv.commands import Append, Condition, Delete, Increment, Put, ReturnPrevious
from raftkv.node.events import Consistency
from raftkv.server.http.problems import Refused
from raftkv.server.http.requests import (
    WriteOp,
    check_head,
    is_local_host,
    is_own_origin,
    parse_read,
    parse_verbose,
    parse_write,
    wants_json,
)

NO_HEADERS: CIMultiDict[str] = CIMultiDict()


def headers(**lines: str) -> CIMultiDict[str]:
    return CIMultiDict({name.replace("_", "-"): value for name, value in lines.items()})


# ---- reads ----------------------------------------------------------------------------------


def test_a_plain_read_is_linearizable() -> None:
    asked = parse_read(b"k", "", NO_HEADERS)
    assert asked.key == b"k"
    assert asked.how == (Consistency.LINEARIZABLE, 0, 5.0, 0.0)
    assert not asked.as_json
    assert asked.if_match is asked.if_none_match is None


def test_read_parameters() -> None:
    asked = parse_read(b"k", "consistency=local&min_revision=42&timeout=250ms", NO_HEADERS)
    assert asked.how == (Consistency.LOCAL, 42, 0.25, 0.0)
    asked = parse_read(b"k", "consistency=bounded&max_stale=1m30s", NO_HEADERS)
    assert asked.how == (Consistency.BOUNDED, 0, 5.0, 90.0)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("consistency=strong", "bad_parameter"),
        ("consistency=", "bad_parameter"),
        ("consistency=bounded", "bad_parameter"),
        ("max_stale=5s", "bad_parameter"),
        ("max_stale=5s&consistency=local", "bad_parameter"),
        ("max_stale=0s&consistency=bounded", "bad_parameter"),
        ("max_stale=11y&consistency=bounded", "bad_parameter"),
        ("min_revision=-1", "bad_parameter"),
        ("min_revision=", "bad_parameter"),
        ("min_revision=1e3", "bad_parameter"),
        ("min_revision=%D9%A7", "bad_parameter"),
        ("min_revision=9223372036854775808", "bad_parameter"),
        ("min_revision=" + "1" * 5000, "bad_parameter"),
        ("timeout=", "bad_parameter"),
        ("timeout=5", "bad_parameter"),
        ("timeout=0s", "bad_parameter"),
        ("timeout=-1s", "bad_parameter"),
        ("timeout=61s", "bad_parameter"),
        ("timeout=1e3s", "bad_parameter"),
        ("timeout=nans", "bad_parameter"),
        ("timeout=1d", "bad_parameter"),
        ("timeout=1s500ms2s", "bad_parameter"),
        ("timeout=1s1m", "bad_parameter"),
        ("timeout=1m1s", "bad_parameter"),
        ("redirect=true", "bad_parameter"),
        ("op=append", "bad_parameter"),
        ("revision=0", "bad_parameter"),
        ("revision=-1", "bad_parameter"),
        ("revision=1.5", "bad_parameter"),
        ("revision=9223372036854775808", "bad_parameter"),
        ("prev=true", "bad_parameter"),
    ],
)
def test_read_parameters_refused(query: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_read(b"k", query, NO_HEADERS)
    assert caught.value.problem.kind.code == code
    assert query.partition("=")[0].split("&")[0] in caught.value.problem.detail


def test_a_read_as_of_a_revision() -> None:
    assert parse_read(b"k", "", NO_HEADERS).revision == 0
    assert parse_read(b"k", "revision=9223372036854775807", NO_HEADERS).revision == 2**63 - 1


def test_greatest_min_revision() -> None:
    assert parse_read(b"k", "min_revision=9223372036854775807", NO_HEADERS).how.min_revision > 0


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], False),
        (["*/*"], False),
        (["application/json"], True),
        (["APPLICATION/JSON"], True),
        (["text/html, application/json;q=0.9, */*;q=0.8"], True),
        (["application/json, text/plain, */*"], True),
        (["text/html", "application/json"], True),
        (["application/json;q=0"], False),
        (["application/json;q=x"], False),
        (["application/octet-stream"], False),
        (["application/octet-stream, application/json;q=0.5"], False),
        (["application/octet-stream;q=0.5, application/json"], True),
        (["application/jsonx"], False),
        ([""], False),
    ],
)
def test_accept(accept: list[str], expected: bool) -> None:
    assert wants_json(accept) is expected


# ---- writes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "query", "op"),
    [
        ("PUT", "", WriteOp.PUT),
        ("DELETE", "", WriteOp.DELETE),
        ("POST", "op=append", WriteOp.APPEND),
        ("POST", "op=increment", WriteOp.INCREMENT),
    ],
)
def test_write_operations(method: str, query: str, op: WriteOp) -> None:
    asked = parse_write(method, b"k", query, NO_HEADERS)
    assert (asked.op, asked.key, asked.condition) == (op, b"k", None)
    assert (asked.timeout_seconds, asked.may_redirect) == (5.0, False)


def test_write_parameters_and_conditions() -> None:
    asked = parse_write("PUT", b"k", "redirect=true&timeout=1m", headers(If_Match='"7"'))
    assert asked.may_redirect
    assert asked.timeout_seconds == 60.0
    assert asked.condition == Condition(revisions=(7,))
    asked = parse_write("POST", b"k", "op=append&redirect=false", headers(If_None_Match="*"))
    assert not asked.may_redirect
    assert asked.condition == Condition(exists=False)


def test_increments() -> None:
    for query, by in (("", 1), ("&by=5", 5), ("&by=-9223372036854775808", -(2**63))):
        asked = parse_write("POST", b"k", "op=increment" + query, NO_HEADERS)
        assert asked.command(b"", 9) == Increment(b"k", by)


def test_a_write_that_returns_the_previous_item() -> None:
    asked = parse_write("DELETE", b"k", "prev=true", NO_HEADERS)
    assert asked.command(b"", 9) == ReturnPrevious(Delete(b"k"))
    asked = parse_write("POST", b"k", "op=append&prev=true", NO_HEADERS)
    assert asked.command(b"x", 9) == ReturnPrevious(Append(b"k", b"x", 9))
    assert parse_write("PUT", b"k", "prev=false", NO_HEADERS).command(b"", 9) == Put(b"k", b"")


@pytest.mark.parametrize(
    ("method", "query", "code"),
    [
        ("POST", "", "bad_parameter"),
        ("POST", "op=prepend", "bad_parameter"),
        ("POST", "op=increment&by=", "bad_parameter"),
        ("POST", "op=increment&by=1.5", "bad_parameter"),
        ("POST", "op=increment&by=9223372036854775808", "bad_parameter"),
        ("POST", "op=increment&by=-9223372036854775809", "bad_parameter"),
        ("POST", "op=increment&by=" + "1" * 5000, "bad_parameter"),
        ("POST", "op=append&by=1", "bad_parameter"),
        ("PUT", "by=1", "bad_parameter"),
        ("PUT", "op=append", "bad_parameter"),
        ("PUT", "redirect=1", "bad_parameter"),
        ("PUT", "redirect=", "bad_parameter"),
        ("PUT", "consistency=local", "bad_parameter"),
        ("PUT", "ttl=30", "bad_parameter"),
        ("PUT", "ttl=0s", "bad_parameter"),
        ("PUT", "ttl=0.1ms", "bad_parameter"),
        ("PUT", "ttl=-1s", "bad_parameter"),
        ("PUT", "ttl=nan", "bad_parameter"),
        ("PUT", "ttl=1000000000000000000s", "bad_parameter"),
        ("PUT", "ttl=100000h", "bad_parameter"),
        ("PUT", "lease=7", "bad_parameter"),
        ("PUT", "lease=00000000000000FF", "bad_parameter"),
        ("PUT", "lease=", "bad_parameter"),
        ("PUT", "ttl=30s&lease=00000000000000ff", "bad_parameter"),
        ("DELETE", "ttl=30s", "bad_parameter"),
        ("POST", "op=append&ttl=30s", "bad_parameter"),
        ("PUT", "prev=1", "bad_parameter"),
        ("DELETE", "prefix=a", "bad_parameter"),
    ],
)
def test_write_parameters_refused(method: str, query: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_write(method, b"k", query, NO_HEADERS)
    assert caught.value.problem.kind.code == code


@pytest.mark.parametrize(
    ("text", "ttl_ms"),
    [("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("1.5s", 1500), ("1h1m1s1ms", 3_661_001)],
)
def test_a_key_with_a_lease(text: str, ttl_ms: int) -> None:
    asked = parse_write("PUT", b"k", f"ttl={text}", NO_HEADERS)
    assert asked.command(b"v", 9) == Put(b"k", b"v", None, 0, ttl_ms)
    asked = parse_write("PUT", b"k", "lease=00000000000000ff", NO_HEADERS)
    assert asked.command(b"v", 9) == Put(b"k", b"v", None, 255)


def test_commands() -> None:
    condition = Condition(exists=True)
    match = headers(If_Match="*")
    put = parse_write("PUT", b"k", "", match).command(b"v", 9)
    append = parse_write("POST", b"k", "op=append", match).command(b"v", 9)
    delete = parse_write("DELETE", b"k", "", match).command(b"", 9)
    assert put == Put(b"k", b"v", condition)
    assert append == Append(b"k", b"v", 9, condition)
    assert delete == Delete(b"k", condition)


# ---- rules of every request -----------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:7400", "LOCALHOST", "localhost.", "a.localhost:1", "127.0.0.1",
        "127.0.0.1:7400", "127.9.9.9", "[::1]", "[::1]:7400",
    ],
)  # fmt: skip
def test_local_hosts(host: str) -> None:
    assert is_local_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "", "example.com", "localhost.example.com", "127.0.0.1.example.com", "xlocalhost",
        "10.0.0.1", "0.0.0.0", "[::]", "[fe80::1]", "1", "127.1", "user@localhost",
    ],
)  # fmt: skip
def test_foreign_hosts(host: str) -> None:
    assert not is_local_host(host)


def test_on_loopback_host_must_be_a_local_name() -> None:
    foreign = headers(Host="evil.example:7400")
    with pytest.raises(Refused) as caught:
        check_head(foreign, is_write=False, must_be_local=True)
    assert caught.value.problem.kind.status == 403
    check_head(foreign, is_write=False, must_be_local=False)
    check_head(headers(Host="localhost:7400"), is_write=False, must_be_local=True)
    check_head(NO_HEADERS, is_write=False, must_be_local=True)  # HTTP/1.0


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://db:7400", "db:7400", True),
        ("http://DB:7400", "db:7400", True),
        ("https://db", "db", True),
        ("https://db", "db:443", True),
        ("https://db:443", "db", True),
        ("http://db", "db:80", True),
        ("http://db:80", "db", True),
        ("http://db", "db:7400", False),
        ("http://evil", "db:7400", False),
        ("http://db:7400.evil", "db:7400", False),
        ("null", "db:7400", False),
        ("null", "null", False),
        ("", "db", False),
        ("file://", "db", False),
        ("http://", "", False),
        ("db:7400", "db:7400", False),
        ("http://db", None, False),
    ],
)
def test_own_origin(origin: str, host: str | None, own: bool) -> None:
    assert is_own_origin(origin, host) is own


def test_a_write_from_a_foreign_page_is_refused_a_read_is_not() -> None:
    foreign = headers(Host="db:7400", Origin="http://evil")
    with pytest.raises(Refused) as caught:
        check_head(foreign, is_write=True, must_be_local=False)
    assert caught.value.problem.kind.status == 403
    check_head(foreign, is_write=False, must_be_local=False)
    own = headers(Host="db:7400", Origin="http://db:7400")
    check_head(own, is_write=True, must_be_local=False)


@pytest.mark.parametrize("coding", ["gzip", "identity", ""])
def test_any_content_encoding_is_refused(coding: str) -> None:
    with pytest.raises(Refused) as caught:
        check_head(headers(Content_Encoding=coding), is_write=True, must_be_local=False)
    assert caught.value.problem.kind.status == 415


@pytest.mark.parametrize("coding", ["gzip, chunked", "GZIP,chunked", "chunked, gzip, chunked"])
def test_a_coding_of_the_transfer_that_would_be_stored_is_refused(coding: str) -> None:
    with pytest.raises(Refused) as caught:
        check_head(headers(Transfer_Encoding=coding), is_write=True, must_be_local=False)
    assert caught.value.problem.kind.status == 415
    check_head(headers(Transfer_Encoding="Chunked"), is_write=True, must_be_local=False)


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", False), ("verbose", True), ("verbose=true", True), ("verbose=false", False)],
)
def test_verbose(query: str, expected: bool) -> None:
    assert parse_verbose(query) is expected
