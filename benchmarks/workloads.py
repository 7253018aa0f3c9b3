"""What is asked of the systems, as data. Names are those of the table in `docs/benchmarks.md`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

KEYS: Final = 10_000
KEY_BYTES: Final = 16
VALUE_BYTES: Final = 256


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


@dataclass(frozen=True)
class Workload:
    """A mix of one: all requests are of the same kind."""

    name: str
    is_write: bool
    order: str  # "cycle" or "random", over the keys
    requests: Callable[[Api, int], Sequence[Request]]  # for this many keys


def key(number: int) -> str:
    """16 bytes."""
    return f"bench/{number:010d}"


def _value() -> str:
    return "".join(Random(0).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=VALUE_BYTES))


def _puts(api: Api, count: int) -> list[Request]:
    value = _value()
    return [api.put(key(number), value) for number in range(count)]


def _gets(api: Api, count: int) -> list[Request]:
    return [api.get(key(number)) for number in range(count)]


# In this order, on one cluster: the reads find what the writes stored.
WORKLOADS: Final = (
    Workload("PUT 256 B", is_write=True, order="cycle", requests=_puts),
    Workload("GET 256 B, linearizable", is_write=False, order="random", requests=_gets),
)
