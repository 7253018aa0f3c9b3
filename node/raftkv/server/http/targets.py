"""From a raw request target to a key and to query parameters.

The key is the percent-decoded bytes of the target and nothing else: no decoding to text, no
folding of dot segments or slashes, no second decoding. Two different byte strings never become
one key, which is why aiohttp's decoded ``path`` and ``query`` are not used (API contract, 'Keys
and values'). Pure.
"""

import base64
import binascii
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import unquote_to_bytes

from raftkv.server.http.problems import (
    BAD_KEY,
    BAD_PARAMETER,
    MALFORMED,
    Kind,
    Refused,
    quoted,
)

KEY_BYTES_MAX: Final = 511  # LMDB's limit for a key

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def split_target(target: str) -> tuple[str, str]:
    """Path and query of an origin-form target ("/path?query"); any other form is refused."""
    if not target.startswith("/"):
        raise Refused(MALFORMED, "the request target must begin with a slash")
    if not target.isascii() or "#" in target:
        raise Refused(MALFORMED, "the request target holds bytes that must be percent-encoded")
    path, _, query = target.partition("?")
    return path, query


def key_of_path(text: str) -> bytes:
    """The key of `/v1/kv/{key}`: the bytes that ``text`` percent-encodes."""
    return _checked(_unquote(text, BAD_KEY))


def key_of_base64url(text: str) -> bytes:
    """The key of `/v1/k/{base64url}`; padding may be left out, another spelling may not."""
    encoded = _unquote(text, BAD_KEY).rstrip(b"=")
    padded = encoded + b"=" * (-len(encoded) % 4)
    try:
        key = base64.b64decode(padded, altchars=b"-_", validate=True)
    except binascii.Error:
        key = b""
    if base64.urlsafe_b64encode(key) != padded:  # one spelling for each key
        raise Refused(BAD_KEY, f"{quoted(text)} is not base64url")
    return _checked(key)


def parse_query(query: str, known: Collection[str]) -> dict[str, str]:
    """The parameters of a query string, each in ``known`` and given once."""
    given = parse_query_bytes(query, known)
    return {name: query_text(name, value) for name, value in given.items()}


def query_text(name: str, value: bytes) -> str:
    """The value of the parameter ``name`` as text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refused(BAD_PARAMETER, f"query parameter {name!r} is not UTF-8") from None


def parse_query_bytes(query: str, known: Collection[str]) -> dict[str, bytes]:
    """As `parse_query`, with values that may be any bytes."""
    parameters: dict[str, bytes] = {}
    if not query:
        return parameters
    for part in query.split("&"):
        raw_name, _, raw_value = part.partition("=")
        name = _unescaped(raw_name).decode(errors="backslashreplace")
        if name not in known:
            raise Refused(BAD_PARAMETER, f"unknown query parameter {quoted(name)}")
        if name in parameters:
            raise Refused(BAD_PARAMETER, f"query parameter {name!r} is given more than once")
        parameters[name] = _unescaped(raw_value)
    return parameters


def _checked(key: bytes) -> bytes:
    if not key:
        raise Refused(BAD_KEY, "the key is empty; a key has 1 to 511 bytes")
    if len(key) > KEY_BYTES_MAX:
        raise Refused(BAD_KEY, f"the key has {len(key)} bytes; a key has 1 to 511 bytes")
    return key


def _unquote(text: str, kind: Kind) -> bytes:
    if "%" not in text:
        return text.encode("ascii")
    bad = _BAD_ESCAPE.search(text)
    if bad is not None:
        bad_escape = quoted(text[bad.start() : bad.start() + 3])
        raise Refused(kind, f"{bad_escape} is not a percent-encoded byte")
    return unquote_to_bytes(text)


def _unescaped(text: str) -> bytes:
    return _unquote(text.replace("+", " "), BAD_PARAMETER)
