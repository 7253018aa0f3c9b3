"""Transactions: conditions on several keys, then several operations, all or nothing.

Called by `raftkv.kv.execute`. The operations are those of `raftkv.kv.keys`, done one after the
other over a savepoint: each sees what those before it did, their changes share one revision and
are told apart by the sub-revision. A key may be changed more than once; the last change stands,
its history has all of them, and its version counts each.
"""

from typing import TypeVar

from msgspec.structs import replace

from raftkv.kv.commands import (
    Compare,
    Comparison,
    DeleteRange,
    ReadKey,
    Target,
    Txn,
    TxnOp,
)
from raftkv.kv.keys import KeyOutcome, delete_range, do_key_command
from raftkv.kv.outcomes import (
    ConditionFailed,
    Got,
    OpOutcome,
    TooLarge,
    TooManyKeys,
    TxnDone,
    TxnFailed,
    TxnReason,
)
from raftkv.kv.slice import Slice

Comparable = TypeVar("Comparable", bytes, int)


def transact(slice_: Slice, txn: Txn) -> TxnDone | TxnFailed:
    """Do the branch of ``txn`` that its compares choose.

    An operation's own condition counts: one that is not met fails the transaction, as anything
    does for which an operation cannot be done.
    """
    succeeded = all(_is_met(slice_, compare) for compare in txn.compares)
    results: list[OpOutcome] = []
    gathered_bytes = 0
    slice_.set_savepoint()
    for number, op in enumerate(txn.success if succeeded else txn.failure):
        outcome = _do(slice_, op, txn.keys_max)
        if isinstance(outcome, Got):
            if outcome.item is not None:
                gathered_bytes += len(outcome.item.key) + len(outcome.item.value)
            if gathered_bytes > txn.result_bytes_max:
                outcome = TooLarge(slice_.revision, gathered_bytes)
        elif slice_.changes > txn.keys_max:
            outcome = TooManyKeys(slice_.revision)
        if not isinstance(outcome, OpOutcome):
            slice_.roll_back()
            reason = _as_it_is(slice_, op, outcome)
            return TxnFailed(slice_.revision, succeeded, number, reason)
        results.append(outcome)
    slice_.release()
    return TxnDone(slice_.revision, succeeded, tuple(results))


def _do(slice_: Slice, op: TxnOp, keys_max: int) -> KeyOutcome | Got | TooManyKeys:
    match op:
        case ReadKey():
            return Got(slice_.item(op.key))
        case DeleteRange():
            # Before it is done: more changes than this have no sub-revisions.
            return delete_range(slice_, op, min(op.keys_max, keys_max - slice_.changes))
        case _:
            return do_key_command(slice_, op)


def _as_it_is(slice_: Slice, op: TxnOp, reason: TxnReason) -> TxnReason:
    """``reason`` with revisions that there are: those of the transaction others will get."""
    reason = replace(reason, revision=slice_.revision)
    if isinstance(reason, ConditionFailed):
        assert not isinstance(op, DeleteRange), "a range has no condition"
        current = slice_.look_up(op.key)
        return replace(reason, mod_revision=0 if current is None else current.mod_revision)
    return reason


def _is_met(slice_: Slice, compare: Compare) -> bool:
    """Whether a compare holds. What cannot be compared, bytes with a number, does not."""
    current = slice_.look_up(compare.key)
    wanted = compare.value
    if compare.target is Target.VALUE:
        if current is None:
            return compare.comparison is Comparison.NOT_EQUAL
        return isinstance(wanted, bytes) and _compares(
            slice_.value(current), compare.comparison, wanted
        )
    found = 0
    if current is not None:
        match compare.target:
            case Target.VERSION:
                found = current.version
            case Target.CREATE_REVISION:
                found = current.create_revision
            case Target.MOD_REVISION:
                found = current.mod_revision
            case Target.LEASE:
                found = current.lease
    return isinstance(wanted, int) and _compares(found, compare.comparison, wanted)


def _compares(found: Comparable, comparison: Comparison, wanted: Comparable) -> bool:
    match comparison:
        case Comparison.EQUAL:
            return found == wanted
        case Comparison.NOT_EQUAL:
            return found != wanted
        case Comparison.LESS:
            return found < wanted
        case Comparison.GREATER:
            return found > wanted
