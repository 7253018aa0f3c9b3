"""What is asked of the systems by wrk, as data. Names are those of the tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from benchmarks.open_loop import zipf_keys

KEYS: Final = 10_000
KEY_BYTES: Final = 16
VALUE_BYTES: Final = 256
TXN_KEYS: Final = 128
_MIXED_REQUESTS: Final = 50_000
_READ_SHARE: Final = 0.9
_ZIPF: Final = 0.99


@dataclass(frozen=True)
class Request:
    """One HTTP request: target as sent, body without line ends."""

    method: str
    path: str
    body: str = ""


@dataclass(frozen=True)
class Api:
    """How a system spells the operations."""

    put: Callable[[str, str], Request]  # key, value
    get: Callable[[str], Request]  # linearizable
    put_many: Callable[[Sequence[tuple[str, str]]], Request]  # in one transaction


@dataclass(frozen=True)
class Workload:
    """Requests that are sent over and over."""

    name: str
    is_write: bool  # each request moves the revision by one; else none does
    order: str  # "cycle" or "random"
    requests: Callable[[Api, int], Sequence[Request]]  # for this many keys


def key(number: int) -> str:
    """16 bytes."""
    return f"bench/{number:010d}"


def value() -> str:
    """The same always."""
    return "".join(Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=VALUE_BYTES))


def _puts(api: Api, count: int) -> list[Request]:
    text = value()
    return [api.put(key(number), text) for number in range(count)]


def _gets(api: Api, count: int) -> list[Request]:
    return [api.get(key(number)) for number in range(count)]


def _transactions(api: Api, count: int) -> list[Request]:
    text = value()
    return [
        api.put_many([(key(number % KEYS), text) for number in range(first, first + TXN_KEYS)])
        for first in range(0, min(count, KEYS), TXN_KEYS)
    ]


def mixed(api: Api, count: int, name: Callable[[int], str] = key) -> list[Request]:
    """90 reads to 10 writes over ``count`` keys, hot ones by Zipf's law."""
    randomness = Random(2)
    text = value()
    keys = zipf_keys(count, _ZIPF, _MIXED_REQUESTS, randomness)
    return [
        api.get(name(number)) if randomness.random() < _READ_SHARE else api.put(name(number), text)
        for number in keys
    ]


PUT: Final = Workload("PUT", is_write=True, order="cycle", requests=_puts)
GET: Final = Workload("linearizable GET", is_write=False, order="random", requests=_gets)
TRANSACTIONS: Final = Workload(
    f"transaction of {TXN_KEYS} puts", is_write=True, order="cycle", requests=_transactions
)
