"""What clients did and what they were told: the evidence that the checkers judge.

A history is a list of `Operation`, one for each request, kept on disk as JSON lines so that a
failed run can be looked at, cut down by hand and kept. Values are text; a recorder decodes bytes
as Latin-1, which is one-to-one.

Written by the load of `tests/process` and of `tests/e2e`; read by `checker` and `witness`. All
times of a history must come from one monotonic clock, read just before a request is sent and just
after its answer arrived: a wider interval only loses strength, a narrower one is a lie.
"""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import msgspec


class Kind(StrEnum):
    """What was asked for."""

    PUT = "put"
    GET = "get"
    DELETE = "delete"
    APPEND = "append"
    CAS = "cas"  # a put under a precondition on the key's mod revision


class Certainty(StrEnum):
    """What the client may conclude about its request."""

    KNOWN = "known"  # answered: it took effect between its call and its return
    NOT_COMMITTED = "not_committed"  # it did not take effect and never will
    UNKNOWN = "unknown"  # it may take effect at any time after its call, or never


class Operation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request and its answer. What an answer did not say is None.

    ``existed``: whether the key existed just before (201 or 200 of a write, 200 or 404 of a read,
    the count of a delete). ``mod_revision``: the key's, as a read or a failed precondition
    reports it; 0 for a key that does not exist. ``revision``: the one a write took, or else the
    store revision at which the answer was made.
    """

    client: int
    key: str
    kind: Kind
    call_ns: int
    return_ns: int | None = None  # None unless the certainty is KNOWN
    certainty: Certainty = Certainty.KNOWN
    argument: str = ""  # the value to store, or the suffix to append
    expected_revision: int = 0  # of a CAS; 0: the key must not exist
    succeeded: bool = True  # False: the precondition of a CAS failed
    existed: bool | None = None
    value: str | None = None  # of a GET that found the key
    mod_revision: int | None = None
    revision: int | None = None

    @property
    def is_effective_write(self) -> bool:
        """Whether it is known to have changed the key, and so to have taken a revision."""
        match self.kind:
            case Kind.GET:
                return False
            case Kind.DELETE:
                return self.certainty is Certainty.KNOWN and self.existed is True
            case _:
                return self.certainty is Certainty.KNOWN and self.succeeded


def describe(operation: Operation, origin_ns: int = 0) -> str:
    """One line for a person; times in milliseconds after ``origin_ns``."""
    asked = operation.kind.value
    if operation.kind is Kind.CAS:
        asked += f" if @{operation.expected_revision}"
    if operation.kind not in (Kind.GET, Kind.DELETE):
        asked += f" {_shorten(operation.argument)}"
    return (
        f"client {operation.client:<3} "
        f"{_milliseconds(operation.call_ns, origin_ns)} .. "
        f"{_milliseconds(operation.return_ns, origin_ns)}  "
        f"{operation.key} {asked} -> {_describe_answer(operation)}"
    )


def write_history(path: Path, history: Iterable[Operation]) -> None:
    """Store one operation a line, in the given order."""
    encoder = msgspec.json.Encoder()
    path.write_bytes(b"".join(encoder.encode(operation) + b"\n" for operation in history))


def read_history(path: Path) -> list[Operation]:
    """Inverse of `write_history`. Raises ``msgspec.DecodeError`` naming what does not fit."""
    decoder = msgspec.json.Decoder(Operation)
    return [decoder.decode(line) for line in path.read_bytes().splitlines() if line]


def _describe_answer(operation: Operation) -> str:
    if operation.certainty is not Certainty.KNOWN:
        return operation.certainty.value
    said = ["ok" if operation.succeeded else "condition failed"]
    if operation.kind is Kind.GET:
        said = ["absent" if operation.value is None else _shorten(operation.value)]
    if operation.existed is not None and operation.kind is not Kind.GET:
        said.append("existed" if operation.existed else "new")
    if operation.mod_revision is not None:
        said.append(f"mod @{operation.mod_revision}")
    if operation.revision is not None:
        said.append(f"@{operation.revision}")
    return " ".join(said)


def _shorten(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:12]!r}..{text[-24:]!r}({len(text)})"


def _milliseconds(time_ns: int | None, origin_ns: int) -> str:
    return f"{'open':>10}" if time_ns is None else f"{(time_ns - origin_ns) / 1e6:10.3f}"
