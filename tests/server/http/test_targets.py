"""Keys and query parameters from raw targets (API contract, 'Keys and values')."""

import base64
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.server.http.problems import Refused
from raftkv.server.http.targets import (
    KEY_BYTES_MAX,
    key_of_base64url,
    key_of_path,
    parse_query,
    split_target,
)

KEYS = st.binary(min_size=1, max_size=KEY_BYTES_MAX)


def refused_code(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.problem.kind.code


@given(KEYS, st.sampled_from(["", "/", "/~!$&'()*+,;=:@"]))
def test_every_key_comes_back_from_its_percent_encoding(key: bytes, safe: str) -> None:
    assert key_of_path(quote_from_bytes(key, safe=safe)) == key


@given(KEYS, st.booleans())
def test_every_key_comes_back_from_base64url(key: bytes, has_padding: bool) -> None:
    encoded = base64.urlsafe_b64encode(key).decode()
    assert key_of_base64url(encoded if has_padding else encoded.rstrip("=")) == key


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    for parse in (key_of_path, key_of_base64url):
        try:
            key = parse(text)
        except Refused:
            continue
        assert 1 <= len(key) <= KEY_BYTES_MAX


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a", b"a"),
        ("a/b", b"a/b"),
        ("a%2Fb", b"a/b"),
        ("a%2fb", b"a/b"),
        ("//", b"//"),
        ("a//b/", b"a//b/"),
        ("..", b".."),
        ("../..", b"../.."),
        ("%2e%2e", b".."),
        ("./a", b"./a"),
        ("%00", b"\x00"),
        ("%FF", b"\xff"),
        ("%25FF", b"%FF"),
        ("%2525", b"%25"),
        ("a+b", b"a+b"),
        ("a%20b", b"a b"),
        ("%C3%A9", "é".encode()),
        ("e%CC%81", "e\u0301".encode()),  # the decomposed form is another key
        ("A", b"A"),
        ("a&b=c;d", b"a&b=c;d"),
        ('{"x"}', b'{"x"}'),
        ("x" * KEY_BYTES_MAX, b"x" * KEY_BYTES_MAX),
        ("%41" * KEY_BYTES_MAX, b"A" * KEY_BYTES_MAX),
    ],
)
def test_key_is_the_decoded_bytes_and_nothing_else(text: str, key: bytes) -> None:
    assert key_of_path(text) == key


@pytest.mark.parametrize("text", ["", "%", "a%", "%4", "%zz", "%4g", "x" * (KEY_BYTES_MAX + 1)])
def test_not_a_key(text: str) -> None:
    assert refused_code(key_of_path, text) == "bad_key"


@pytest.mark.parametrize(
    "text",
    [
        "", "=", "a", "YQ=a", "Y Q", "YQ+", "YQ/", "%", "YR",  # YR: bits that spell nothing
        base64.urlsafe_b64encode(b"x" * (KEY_BYTES_MAX + 1)).decode(),
    ],
)  # fmt: skip
def test_not_a_base64url_key(text: str) -> None:
    assert refused_code(key_of_base64url, text) == "bad_key"


def test_padding_may_be_percent_encoded() -> None:
    assert key_of_base64url("YQ%3D%3D") == b"a"


@pytest.mark.parametrize(
    "target", ["", "*", "http://host/v1/kv/a", "v1/kv/a", "/v1/kv/é", "/v1/kv/a#b", "/v1?x#y"]
)
def test_a_target_is_an_ascii_path(target: str) -> None:
    assert refused_code(split_target, target) == "malformed"


def test_split_target() -> None:
    assert split_target("/a") == ("/a", "")
    assert split_target("/a?b=c?d") == ("/a", "b=c?d")


def test_in_a_query_plus_is_a_space() -> None:
    assert parse_query("a=1+2%2B3&b", ("a", "b")) == {"a": "1 2+3", "b": ""}


@pytest.mark.parametrize(
    ("query", "code", "named"),
    [
        ("c=1", "bad_parameter", "'c'"),
        ("a=1&a=1", "bad_parameter", "'a'"),
        ("a=1&%61=2", "bad_parameter", "'a'"),
        ("a=1&", "bad_parameter", "''"),
        ("A=1", "bad_parameter", "'A'"),
        ("a=%", "bad_parameter", "'%'"),
        ("a=%FF", "bad_parameter", "'a'"),
        ("ttl=30s", "bad_parameter", "'ttl'"),
        ("revision=7", "bad_parameter", "'revision'"),
        ("after=7&wait=3s", "bad_parameter", "'after'"),
    ],
)
def test_a_parameter_that_is_not_understood_is_named(query: str, code: str, named: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_query(query, ("a",))
    assert caught.value.problem.kind.code == code
    assert named in caught.value.problem.detail
