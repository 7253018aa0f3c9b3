"""Transactions over HTTP: the shapes of the body, the command they mean, the answer. Pure.

Called by `raftkv.server.http.calls.txn`. The limits of a transaction are put into the command, so
that apply depends on nothing else (node design, rule 19).
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from raftkv.kv.commands import (
    Append,
    Compare,
    Comparison,
    Delete,
    DeleteRange,
    Increment,
    Put,
    ReadKey,
    Target,
    Txn,
    TxnOp,
)
from raftkv.kv.outcomes import Deleted, Got, Incremented, OpOutcome, TxnDone, Written
from raftkv.server.http import authorisation as touch
from raftkv.server.http import parameters as take
from raftkv.server.http.bodies import (
    Duration,
    HexId,
    bytes_field,
    decode_body,
    key_field,
    value_field,
)
from raftkv.server.http.problems import BAD_BODY, Refused
from raftkv.server.http.ranges import KEYS_REMOVED_MAX, check_open, parse_bounds
from raftkv.server.http.render import ItemBody, item_body
from raftkv.server.http.texts import NO_LEASE, Encoding, text_of

#: Of each list of the body.
OPS_MAX: Final = 128
#: Items that the `get` operations of one transaction may gather.
RESULT_BYTES_MAX: Final = 4 << 20
BODY_BYTES_MAX: Final = 4 << 20

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class PutOp(msgspec.Struct, tag_field="op", tag="put", forbid_unknown_fields=True):
    """Store the value; at most one of ``lease`` and ``ttl`` is given."""

    key: str
    value: str
    key_encoding: Encoding = "utf-8"
    value_encoding: Encoding = "utf-8"
    lease: HexId | None = None
    ttl: Duration | None = None


class GetOp(msgspec.Struct, tag_field="op", tag="get", forbid_unknown_fields=True):
    """Read the item, as the operations before left it."""

    key: str
    key_encoding: Encoding = "utf-8"


class DeleteOp(msgspec.Struct, tag_field="op", tag="delete", forbid_unknown_fields=True):
    """Remove the key, if it is there."""

    key: str
    key_encoding: Encoding = "utf-8"


class DeleteRangeOp(msgspec.Struct, tag_field="op", tag="delete_range", forbid_unknown_fields=True):
    """Remove the keys of a range; one that is open at an end needs ``all``."""

    prefix: str = ""
    prefix_encoding: Encoding = "utf-8"
    start: str = ""
    start_encoding: Encoding = "utf-8"
    end: str = ""
    end_encoding: Encoding = "utf-8"
    all: bool = False


class AppendOp(msgspec.Struct, tag_field="op", tag="append", forbid_unknown_fields=True):
    """Append to the value, creating the key if it is absent."""

    key: str
    value: str
    key_encoding: Encoding = "utf-8"
    value_encoding: Encoding = "utf-8"


class IncrementOp(msgspec.Struct, tag_field="op", tag="increment", forbid_unknown_fields=True):
    """Add to the decimal number under the key."""

    key: str
    key_encoding: Encoding = "utf-8"
    by: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] = 1


Op = PutOp | GetOp | DeleteOp | DeleteRangeOp | AppendOp | IncrementOp


class CompareBody(msgspec.Struct, forbid_unknown_fields=True):
    """What must hold of a key.

    ``value`` is a string for the target "value" (in ``value_encoding``), the id or "0" for
    "lease", and a number for the others; all numbers are 0 for a key that does not exist.
    """

    key: str
    target: Literal["value", "version", "create_revision", "mod_revision", "lease"]
    op: Literal["=", "!=", "<", ">"]
    value: str | Number
    key_encoding: Encoding = "utf-8"
    value_encoding: Encoding = "utf-8"


class TxnBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of `POST /v1/txn`."""

    compare: Annotated[list[CompareBody], msgspec.Meta(max_length=OPS_MAX)] = []
    success: Annotated[list[Op], msgspec.Meta(max_length=OPS_MAX)] = []
    failure: Annotated[list[Op], msgspec.Meta(max_length=OPS_MAX)] = []


_TARGETS: Final = {target.name.lower(): target for target in Target}
_COMPARISONS: Final = {
    "=": Comparison.EQUAL,
    "!=": Comparison.NOT_EQUAL,
    "<": Comparison.LESS,
    ">": Comparison.GREATER,
}


def parse_txn(body: bytes, value_bytes_max: int) -> Txn:
    """POST /v1/txn. A refusal names the place, as in success[3].key."""
    asked = decode_body(body, TxnBody)
    return Txn(
        tuple(_compare(f"compare[{i}]", each) for i, each in enumerate(asked.compare)),
        tuple(_op(f"success[{i}]", each, value_bytes_max) for i, each in enumerate(asked.success)),
        tuple(_op(f"failure[{i}]", each, value_bytes_max) for i, each in enumerate(asked.failure)),
        KEYS_REMOVED_MAX,
        RESULT_BYTES_MAX,
    )


def body_bytes_max(value_bytes_max: int) -> int:
    """How large the body may be: room for one largest value in base64, at least."""
    return max(BODY_BYTES_MAX, 2 * value_bytes_max)


def accesses_of(txn: Txn) -> list[touch.Access]:
    """Everything that the transaction may look at or change, but for leases."""
    accesses: list[touch.Access] = [touch.ReadKey(each.key) for each in txn.compares]
    for op in (*txn.success, *txn.failure):
        match op:
            case ReadKey():
                accesses.append(touch.ReadKey(op.key))
            case DeleteRange():
                accesses.append(touch.WriteRange(op.start, op.end))
            case _:
                accesses.append(touch.WriteKey(op.key))
    return accesses


def leases_of(txn: Txn) -> set[int]:
    """The leases that it may attach keys to."""
    ops = (*txn.success, *txn.failure)
    return {op.lease for op in ops if isinstance(op, Put) and op.lease}


def _compare(place: str, asked: CompareBody) -> Compare:
    key = key_field(f"{place}.key", asked.key, asked.key_encoding)
    target = _TARGETS[asked.target]
    value: bytes | int
    match target, asked.value:
        case Target.VALUE, str(text):
            value = bytes_field(f"{place}.value", text, asked.value_encoding)
        case Target.LEASE, str(text):
            value = 0 if text == NO_LEASE else take.hex_id(f"{place}.value", text, BAD_BODY)
        case Target.VALUE | Target.LEASE, _:
            raise Refused(BAD_BODY, f"{place}.value is a string for the target {asked.target}")
        case _, int(number):
            value = number
        case _:
            raise Refused(BAD_BODY, f"{place}.value is a number for the target {asked.target}")
    return Compare(key, target, _COMPARISONS[asked.op], value)


def _op(place: str, asked: Op, value_bytes_max: int) -> TxnOp:
    if isinstance(asked, DeleteRangeOp):
        return _delete_range(place, asked)
    key = key_field(f"{place}.key", asked.key, asked.key_encoding)
    match asked:
        case PutOp():
            value = value_field(
                f"{place}.value", asked.value, asked.value_encoding, value_bytes_max
            )
            return Put(key, value, None, *_lease_of(place, asked))
        case GetOp():
            return ReadKey(key)
        case DeleteOp():
            return Delete(key)
        case AppendOp():
            suffix = value_field(
                f"{place}.value", asked.value, asked.value_encoding, value_bytes_max
            )
            return Append(key, suffix, value_bytes_max)
        case IncrementOp():
            return Increment(key, asked.by)


def _lease_of(place: str, asked: PutOp) -> tuple[int, int]:
    """The lease that is named, and the ttl of one of the key's own; 0 for what is not."""
    if asked.lease is not None and asked.ttl is not None:
        raise Refused(BAD_BODY, f"{place}: a key has one lease: give either lease or ttl")
    lease = 0 if asked.lease is None else take.lease(f"{place}.lease", asked.lease, BAD_BODY)
    ttl_ms = 0
    if asked.ttl is not None:
        ttl_ms = take.duration_ms(f"{place}.ttl", asked.ttl, kind=BAD_BODY)
    return lease, ttl_ms


def _delete_range(place: str, asked: DeleteRangeOp) -> DeleteRange:
    given = {
        "prefix": bytes_field(f"{place}.prefix", asked.prefix, asked.prefix_encoding),
        "start": bytes_field(f"{place}.start", asked.start, asked.start_encoding),
        "end": bytes_field(f"{place}.end", asked.end, asked.end_encoding),
    }
    try:
        check_open(given, BAD_BODY, is_all=asked.all)
        start, end = parse_bounds(given, BAD_BODY)
    except Refused as refused:
        raise Refused(refused.problem.kind, f"{place}: {refused.problem.detail}") from None
    return DeleteRange(start, end, KEYS_REMOVED_MAX)


# ---- the answer -----------------------------------------------------------------------------


class OpResult(msgspec.Struct, omit_defaults=True):
    """What one operation did."""

    op: str
    key: str | msgspec.UnsetType = msgspec.UNSET  # not of delete_range
    key_encoding: str | msgspec.UnsetType = msgspec.UNSET
    revision: int | msgspec.UnsetType = msgspec.UNSET  # of put, append, increment
    version: int | msgspec.UnsetType = msgspec.UNSET  # likewise
    value: str | msgspec.UnsetType = msgspec.UNSET  # of increment: the sum
    value_encoding: str | msgspec.UnsetType = msgspec.UNSET
    deleted: int | msgspec.UnsetType = msgspec.UNSET  # of delete, delete_range
    item: ItemBody | msgspec.UnsetType | None = msgspec.UNSET  # of get; left out of a replay


class TxnResult(msgspec.Struct):
    """The answer to `POST /v1/txn`."""

    succeeded: bool  # whether the compares held
    revision: int
    results: list[OpResult]


_NAMES: Final[dict[type[TxnOp], str]] = {
    Put: "put",
    ReadKey: "get",
    Delete: "delete",
    DeleteRange: "delete_range",
    Append: "append",
    Increment: "increment",
}


def txn_result(txn: Txn, done: TxnDone, *, is_replay: bool) -> TxnResult:
    """What became of ``txn``."""
    ops: Sequence[TxnOp] = txn.success if done.succeeded else txn.failure
    results = [
        _op_result(op, outcome, is_replay=is_replay)
        for op, outcome in zip(ops, done.results, strict=True)
    ]
    return TxnResult(done.succeeded, done.revision, results)


def _op_result(op: TxnOp, outcome: OpOutcome, *, is_replay: bool) -> OpResult:
    result = OpResult(_NAMES[type(op)])
    if not isinstance(op, DeleteRange):
        result.key, result.key_encoding = text_of(op.key)
    match outcome:
        case Written():
            result.revision, result.version = outcome.revision, outcome.version
        case Incremented():
            result.revision, result.version = outcome.revision, outcome.version
            result.value, result.value_encoding = str(outcome.value), "utf-8"
        case Deleted():
            result.deleted = outcome.count
        case Got(item):
            if not is_replay:
                result.item = None if item is None else item_body(item)
    return result
