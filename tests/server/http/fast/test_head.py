"""What the short way recognises, aiohttp's parser reads as exactly the same request."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_writer import HttpVersion11
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from raftkv.server.http.fast.head import (
    END,
    HEAD_BYTES_MAX,
    Block,
    Recogniser,
    match_line,
    may_become_head,
)

HOST = b"Host: localhost\r\n"
GET = b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"\r\n"


def recognise(data: bytes) -> tuple[bytes, bytes, Block] | None:
    """Method, target and verdict of the head that ``data`` begins with, as `FastConnection`."""
    line = match_line(data, 0)
    if line is None:
        return None
    end = data.find(END, line.end() - 2)
    if end < 0 or end + 4 > HEAD_BYTES_MAX:
        return None
    verdict = Recogniser(must_be_local=False).judge(data[line.end() : end + 2])
    return None if verdict is None else (line[1], line[2], verdict)


def parse(data: bytes) -> Sequence[tuple[Any, Any]]:
    loop = asyncio.new_event_loop()
    try:
        messages, is_upgraded, tail = HttpRequestParser(
            BaseProtocol(loop),
            loop,
            2**16,
            max_line_size=8190,
            max_field_size=8190,
            max_headers=128,
        ).feed_data(data)
    finally:
        loop.close()
    assert not is_upgraded
    assert not tail
    return messages


def check_agreement(data: bytes) -> bool:
    """Whether ``data`` begins with a recognised head; then aiohttp must read the same."""
    found = recognise(data)
    if found is None:
        return False
    method, target, verdict = found
    head_bytes = data.index(END) + 4
    body = b"x" * verdict.body_bytes
    # A second request shows where the parser saw the end of the first.
    messages = parse(data[:head_bytes] + body + GET)
    assert len(messages) == 2
    message, payload = messages[0]
    assert message.method == method.decode()
    assert message.path == target.decode()
    assert message.version == HttpVersion11
    # Names compare without case.
    assert CIMultiDict(message.headers) == CIMultiDict(verdict.headers)  # type: ignore[arg-type]
    flags = (message.should_close, message.upgrade, message.chunked, message.compression)
    assert not any(flags)
    assert payload.is_eof()
    assert payload.read_nowait() == body
    assert messages[1][0].path == "/v1/kv/a"
    return True


NAMES = (
    b"Host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Upgrade",
    b"Accept", b"If-Match", b"Expect", b"X-RaftKV-Cluster", b"X", b"Proxy-Connection", b"TE",
    b"Sec-WebSocket-Key1", b"X_Y", b"X.Y", b"1", b"", b"Content-Encoding", b"Origin",
)  # fmt: skip
VALUES = (
    b"localhost", b"0", b"1", b"7", b"07", b"+1", b"1,1", b"0x1", b"1e1", b"9999999999", b"-1", b"",
    b"chunked", b"keep-alive", b"Keep-Alive", b"close", b"upgrade", b"keep-alive, close", b"*/*",
    b'"7"', b"a b", b" a", b"a ", b"a\tb", b"\xe9", b"a\x00b", b"a\rb", b"a\nb", b"\x7f",
)  # fmt: skip
COLONS = (b": ", b":", b" : ", b":  ", b":\t", b" ", b"")
ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\t", b"", b"\r\r\n")

line = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    st.sampled_from(NAMES) | st.from_regex(rb"[A-Za-z-]{1,9}", fullmatch=True),
    st.just(b": ") | st.sampled_from(COLONS),
    st.sampled_from(VALUES) | st.binary(max_size=6),
    st.just(b"\r\n") | st.sampled_from(ENDS),
)
good_line = st.builds(
    lambda name, value: name + b": " + value + b"\r\n",
    st.sampled_from((b"Accept", b"X-A", b"User-Agent", b"If-Match")),
    st.sampled_from((b"*/*", b'"7"', b"a b", b"x/1 (y; z)")),
)
target = st.sampled_from(
    (b"/v1/kv/a", b"/v1/kv/", b"/v1/k/YQ", b"/v1/kv/%FF/..//", b"/v1/kv/a?x=1", b"/v1/kv/a#b", b"*")
) | st.binary(max_size=5).map(lambda raw: b"/v1/kv/" + raw)
request_line = st.builds(
    lambda method, gap, target, version, end: method + gap + target + version + end,
    st.sampled_from((b"GET", b"PUT", b"POST", b"DELETE", b"HEAD", b"get", b"BREW")),
    st.sampled_from((b" ", b" ", b" ", b"  ", b"\t")),
    target,
    st.just(b" HTTP/1.1") | st.sampled_from((b" HTTP/1.0", b" HTTP/1.1 ", b"", b" HTTP/2.0")),
    st.just(b"\r\n") | st.sampled_from(ENDS),
)
length = st.sampled_from((b"", b"", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n"))
head = st.builds(
    lambda request, length, lines, end: request + HOST + length + b"".join(lines) + end,
    st.just(b"PUT /v1/kv/a HTTP/1.1\r\n") | request_line,
    length,
    st.lists(good_line, max_size=2) | st.lists(line, max_size=3),
    st.just(b"\r\n") | st.sampled_from((b"\n", b"\n\n", b"\r\n\r\n")),
)


@settings(max_examples=200, deadline=None)
@given(head)
@example(b"PUT /v1/kv/a HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\n")
def test_a_recognised_head_is_read_alike_by_aiohttp(data: bytes) -> None:
    check_agreement(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_recognised_head_with_one_byte_changed_is_read_alike_by_aiohttp(
    data: st.DataObject,
) -> None:
    good = (
        b"POST /v1/kv/a%20b?op=append HTTP/1.1\r\nHost: localhost:7400\r\nAccept: */*\r\n"
        b"Connection: keep-alive\r\nContent-Length: 12\r\nIf-None-Match: *\r\n\r\n"
    )
    at = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.binary(max_size=2) | st.sampled_from((b"\r", b"\n", b" ", b":", b"\t")))
    length = data.draw(st.integers(0, 1))
    check_agreement(good[:at] + byte + good[at + length :])


def test_the_checks_recognise_something() -> None:
    good = b"PUT /v1/kv/a?ttl=5s HTTP/1.1\r\n" + HOST
    assert check_agreement(GET)
    assert check_agreement(good + b"Content-Length: 12\r\nUser-Agent: a/1 (b; c)\r\n\r\n")
    assert check_agreement(good + b"connection: Keep-Alive\r\nX-Y:z\r\n\r\n")


REFUSED = {
    "no host": b"GET /v1/kv/a HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "two lengths": b"PUT /v1/kv/a HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n" * 2 + b"\r\n",
    "chunked": b"PUT /v1/kv/a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.0": b"GET /v1/kv/a HTTP/1.0\r\n" + HOST + b"\r\n",
    "absolute form": b"GET http://localhost/v1/kv/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "bare line feed": b"GET /v1/kv/a HTTP/1.1\r\nHost: localhost\n\r\n",
    "folded": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "space before a colon": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n",
    "expect": b"PUT /v1/kv/a HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\n\r\n",
    "closing": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "a list": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, x\r\n\r\n",
    "non-ASCII": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"X: \xc3\xa9\r\n\r\n",
    "signed length": b"PUT /v1/kv/a HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n\r\n",
    "zeros before": b"PUT /v1/kv/a HTTP/1.1\r\n" + HOST + b"Content-Length: 01\r\n\r\n",
    "raw bytes in the target": b"GET /v1/kv/\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "a fragment": b"GET /v1/kv/a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "encoded": b"PUT /v1/kv/a HTTP/1.1\r\n" + HOST + b"Content-Encoding: gzip\r\n\r\n",
    "long": b"GET /v1/kv/a HTTP/1.1\r\n" + HOST + b"X: %b\r\n\r\n" % (b"a" * HEAD_BYTES_MAX),
    "many": b"GET /v1/kv/a HTTP/1.1\r\n"
    + HOST
    + b"".join(b"X%b: a\r\n" % (b"a" * count) for count in range(101))
    + b"\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_others_might_read_otherwise_is_not_recognised(data: bytes) -> None:
    assert recognise(data) is None


def test_verdicts_are_remembered_but_for_secrets_and_what_is_new_each_time() -> None:
    recogniser = Recogniser(must_be_local=True)
    usual = HOST + b"User-Agent: wrk\r\nContent-Length: 256\r\n"
    assert recogniser.judge(usual) is recogniser.known[usual]
    for extra in (b"Authorization: Bearer x\r\n", b"Idempotency-Key: x\r\n", b"X-Trace: 1\r\n"):
        assert recogniser.judge(HOST + extra) is not None
    assert recogniser.judge(b"Host: evil.example\r\n") is None
    assert list(recogniser.known) == [usual]
    for number in range(5000):
        recogniser.judge(HOST + b"User-Agent: %d\r\n" % number)
    assert len(recogniser.known) <= 1024


def test_a_head_in_pieces_is_waited_for_as_long_as_it_may_be_one() -> None:
    for end in range(1, len(GET)):
        assert may_become_head(GET[:end])
    for start in (b"HEAD", b"GET /livez", b"\x16\x03\x01", b"GET /v1/kv/a\n", b"GET /v1/kv/a\r\r"):
        assert not may_become_head(start)
    assert not may_become_head(b"GET /v1/kv/" + b"a" * HEAD_BYTES_MAX)


def test_malformed_data_is_refused_by_the_parser_that_is_compared_with() -> None:
    with pytest.raises(HttpProcessingError):
        parse(REFUSED["two lengths"])
