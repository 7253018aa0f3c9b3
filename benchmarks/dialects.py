"""How each system spells puts and gets on a socket, and what its answers say: bytes in and out.

A value begins with the number of its write, in `NUMBER_DIGITS` digits, so that a reader knows whose
write it saw; 12 bytes are 16 characters of base64, which etcd's JSON needs.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

NUMBER_DIGITS: Final = 12
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_RAFTKV_WRITTEN: Final = re.compile(rb"\r\netag: *\"(\d+)\"", re.IGNORECASE)
_RAFTKV_READ: Final = re.compile(rb"\r\nx-raftkv-mod-revision: *(\d+)\r\n", re.IGNORECASE)
_ETCD_WRITTEN: Final = re.compile(rb'"revision":"(\d+)"')
_ETCD_READ: Final = re.compile(rb'"mod_revision":"(\d+)"')
_ETCD_VALUE: Final = re.compile(rb'"value":"([A-Za-z0-9+/]{16})')

Outcome = Literal["done", "refused", "unknown"]


@dataclass(frozen=True)
class Answer:
    """What an answer says. ``number`` and ``revision``: see `benchmarks.judge.Operation`."""

    outcome: Outcome
    number: int = -1
    revision: int = 0


@dataclass(frozen=True)
class Dialect:
    """The requests, and how answers are read: whole answers, head and body."""

    put: Callable[[bytes, bytes], bytes]  # key, value
    get: Callable[[bytes], bytes]  # linearizable
    written: Callable[[bytes], Answer]
    read: Callable[[bytes], Answer]


def answer_bytes(received: bytes | bytearray) -> int | None:
    """The length of the answer at the front, head included; None: its head is not whole.

    Raises ValueError when the answer does not state its length, which the systems measured here
    do for all that is asked of them.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    found = _LENGTH.search(received, 0, end + 2)
    if found is None:
        raise ValueError(f"an answer without a length: {bytes(received[: min(end, 200)])!r}")
    return end + 4 + int(found[1])


def value_of(number: int, size: int) -> bytes:
    """A value that names its write."""
    return (b"%0*d" % (NUMBER_DIGITS, number)).ljust(size, b"x")


def _status(answer: bytes) -> int:
    return int(answer[9:12])


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() else -1


def _raftkv_put(key: bytes, value: bytes) -> bytes:
    head = b"PUT /v1/kv/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
    return head % (key, len(value)) + value


def _raftkv_get(key: bytes) -> bytes:
    return b"GET /v1/kv/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % key


def _raftkv_written(answer: bytes) -> Answer:
    status = _status(answer)
    if status in (200, 201):
        found = _RAFTKV_WRITTEN.search(answer)
        return Answer("done", revision=int(found[1]) if found else 0)
    if b'"outcome":"not_committed"' in answer:
        return Answer("refused")
    return Answer("unknown")


def _raftkv_read(answer: bytes) -> Answer:
    status = _status(answer)
    if status == 404:
        return Answer("done")
    if status != 200:
        return Answer("refused")
    found = _RAFTKV_READ.search(answer)
    body = answer.find(b"\r\n\r\n") + 4
    number = _number(answer[body : body + NUMBER_DIGITS])
    return Answer("done", number, int(found[1]) if found else 0)


def _etcd(path: bytes, body: bytes) -> bytes:
    head = b"POST /v3/kv/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
    return head % (path, len(body)) + body


def _etcd_put(key: bytes, value: bytes) -> bytes:
    return _etcd(b"put", b'{"key":"%s","value":"%s"}' % (b64encode(key), b64encode(value)))


def _etcd_get(key: bytes) -> bytes:
    return _etcd(b"range", b'{"key":"%s"}' % b64encode(key))


def _etcd_written(answer: bytes) -> Answer:
    status = _status(answer)
    if status == 200:
        found = _ETCD_WRITTEN.search(answer)
        return Answer("done", revision=int(found[1]) if found else 0)
    return Answer("refused" if status == 429 else "unknown")


def _etcd_read(answer: bytes) -> Answer:
    if _status(answer) != 200:
        return Answer("refused")
    found, value = _ETCD_READ.search(answer), _ETCD_VALUE.search(answer)
    number = -1 if value is None else _number(b64decode(value[1]))
    return Answer("done", number, int(found[1]) if found else 0)


RAFTKV: Final = Dialect(_raftkv_put, _raftkv_get, _raftkv_written, _raftkv_read)
ETCD_JSON: Final = Dialect(_etcd_put, _etcd_get, _etcd_written, _etcd_read)
DIALECTS: Final = {"RaftKV": RAFTKV, "etcd JSON": ETCD_JSON}
