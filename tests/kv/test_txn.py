"""Transactions: what they compare, that they are atomic, what fails them."""

import pytest

from raftkv.kv.commands import (
    Append,
    Compare,
    Comparison,
    Condition,
    Delete,
    DeleteRange,
    Increment,
    Put,
    ReadKey,
    Target,
    Txn,
    TxnOp,
)
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import (
    ConditionFailed,
    Deleted,
    Got,
    Incremented,
    Item,
    LeaseNotFound,
    NotACounter,
    TooLarge,
    TooManyKeys,
    TxnDone,
    TxnFailed,
    Written,
)
from raftkv.kv.store import Store
from tests.kv.support import counted_bytes, dump, one, run


def txn(*ops: TxnOp, keys_max: int = 100, result_bytes_max: int = 1 << 20) -> Txn:
    return Txn((), ops, (), keys_max, result_bytes_max)


def test_rule_20_a_transaction_takes_one_revision_and_its_operations_see_each_other() -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"a", b"1"), Put(b"b", b"x"))
    outcome = one(
        store,
        txn(
            Increment(b"a", 4),
            Append(b"a", b"0", 9),
            ReadKey(b"a"),
            Delete(b"b"),
            ReadKey(b"b"),
            Put(b"c", b"new"),
            DeleteRange(b"c", None, 9),
            Put(b"c", b"again"),
        ),
    )
    assert outcome == TxnDone(
        3,
        True,
        (
            Incremented(3, 2, 5),
            Written(3, 3),
            Got(Item(b"a", b"50", 1, 3, 3)),
            Deleted(3, 1),
            Got(None),
            Written(3, 1),
            Deleted(3, 1),
            Written(3, 1),
        ),
    )
    assert store.revision == 3
    assert store.get_at(b"a", 2) == Item(b"a", b"1", 1, 1, 1)
    assert store.get_at(b"a", 3) == store.get(b"a") == Item(b"a", b"50", 1, 3, 3)
    assert store.get(b"c") == Item(b"c", b"again", 3, 3, 1)
    assert store.key_count == 2


def test_rule_20_a_transaction_that_changes_nothing_takes_no_revision() -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"a", b"1"))
    assert one(store, txn(ReadKey(b"a"), Delete(b"missing"))) == TxnDone(
        1, True, (Got(Item(b"a", b"1", 1, 1, 1)), Deleted(1, 0))
    )
    assert one(store, Txn((), (), (), 0, 0)) == TxnDone(1, True, ())


@pytest.mark.parametrize(
    ("target", "value", "less", "equal"),
    [
        (Target.VALUE, b"m", b"l", b"m"),
        (Target.VERSION, 2, 1, 2),
        (Target.CREATE_REVISION, 1, 0, 1),
        (Target.MOD_REVISION, 2, 1, 2),
        (Target.LEASE, 0, -1, 0),
    ],
)
def test_each_target_is_compared_in_each_way(
    target: Target, value: bytes | int, less: bytes | int, equal: bytes | int
) -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"k", b"a"), Put(b"k", b"m"))

    def holds(comparison: Comparison, with_: bytes | int) -> bool:
        wanted = (Compare(b"k", target, comparison, with_),)
        outcome = one(store, Txn(wanted, (), (), 0, 0))
        assert isinstance(outcome, TxnDone)
        return outcome.succeeded

    assert value == equal
    assert holds(Comparison.EQUAL, equal)
    assert not holds(Comparison.EQUAL, less)
    assert holds(Comparison.NOT_EQUAL, less)
    assert not holds(Comparison.NOT_EQUAL, equal)
    assert holds(Comparison.GREATER, less)
    assert not holds(Comparison.GREATER, equal)
    assert not holds(Comparison.LESS, equal)
    # Bytes are never compared with a number, and it is no error: no entry may stop a node.
    assert not holds(Comparison.NOT_EQUAL, 0 if isinstance(value, bytes) else b"0")


def test_a_missing_key_has_no_value_and_numbers_of_zero() -> None:
    store = Store(MemoryEngine())
    for comparison in Comparison:
        wanted = (Compare(b"k", Target.VALUE, comparison, b""),)
        expected = comparison is Comparison.NOT_EQUAL
        assert one(store, Txn(wanted, (), (), 0, 0)) == TxnDone(0, expected, ())
    for target in Target:
        if target is not Target.VALUE:
            zero = (Compare(b"k", target, Comparison.EQUAL, 0),)
            assert one(store, Txn(zero, (), (), 0, 0)) == TxnDone(0, True, ())


def test_the_other_branch_is_done_when_one_compare_does_not_hold() -> None:
    store = Store(MemoryEngine())
    compares = (
        Compare(b"k", Target.VERSION, Comparison.EQUAL, 0),
        Compare(b"k", Target.VERSION, Comparison.EQUAL, 1),
    )
    wanted = Txn(compares, (Put(b"yes", b""),), (Put(b"no", b""),), 9, 9)
    assert one(store, wanted) == TxnDone(1, False, (Written(1, 1),))
    assert store.get(b"yes") is None
    assert store.get(b"no") is not None


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (Append(b"big", b"xx", 1), TooLarge(2, 2)),
        (Increment(b"text", 1), NotACounter(2)),
        (DeleteRange(b"", None, 1), TooManyKeys(2)),
        (Put(b"k", b"", None, 99), LeaseNotFound(2)),
        (Put(b"k", b"", Condition(exists=True)), ConditionFailed(2, 0)),
        # The key's revision as the operations before left it: one that is taken back.
        (Delete(b"text", Condition(revisions=(2,))), ConditionFailed(2, 1)),
        (ReadKey(b"large"), TooLarge(2, 105)),
    ],
)
def test_an_operation_that_cannot_be_done_takes_all_back(last: TxnOp, reason: object) -> None:
    engine = MemoryEngine()
    store = Store(engine)
    run(store, Put(b"text", b"text"), Put(b"large", bytes(100)))
    before = dump(engine, [b"text", b"large", b"new"])
    counts = (store.revision, store.key_count, store.logical_bytes, store.lease_count)
    tried = txn(
        Put(b"text", b"other"),
        Put(b"new", b"", None, 0, 1000),
        Put(b"new2", b"", None, 0, 1000),
        Delete(b"large"),
        Put(b"large", bytes(100)),
        last,
        Put(b"never", b""),
        result_bytes_max=104,
    )
    outcomes = run(store, tried, Put(b"after", b""))
    assert outcomes == [TxnFailed(2, True, 5, reason), Written(3, 1)]  # type: ignore[arg-type]
    run(store, Delete(b"after"))
    assert store.get(b"after") is None
    # All that is left is the key that came after.
    assert counts == (2, store.key_count, counts[2], store.lease_count)
    assert store.logical_bytes == counted_bytes(engine)
    tables, histories = dump(engine, [b"text", b"large", b"new"])
    assert histories == before[1]
    assert tables[1] == before[0][1]
    assert tables[3:] == before[0][3:]


def test_rule_24_a_transaction_changes_no_more_keys_than_it_may() -> None:
    store = Store(MemoryEngine())
    run(store, *(Put(b"%d" % n, b"") for n in range(5)))
    for ops, at in [
        ((Put(b"a", b""), Put(b"b", b""), Put(b"c", b"")), 2),
        ((Put(b"a", b""), DeleteRange(b"0", b"2", 9)), 1),
        ((DeleteRange(b"0", b"3", 9),), 0),
    ]:
        expected = TxnFailed(5, True, at, TooManyKeys(5))
        assert one(store, txn(*ops, keys_max=2)) == expected
    assert isinstance(one(store, txn(DeleteRange(b"0", b"2", 9), keys_max=2)), TxnDone)


def test_rule_24_a_transaction_fills_all_sub_revisions_and_not_one_more() -> None:
    store = Store(MemoryEngine())
    run(store, *(Put(b"%05d" % n, b"") for n in range(65_500)))
    puts = [Put(b"more", b"")] * 40
    too_many = txn(*puts, DeleteRange(b"0", b"9", 65_535), keys_max=65_535)
    assert one(store, too_many) == TxnFailed(65_500, True, 40, TooManyKeys(65_500))
    done = one(store, txn(*puts[:35], DeleteRange(b"0", b"9", 65_535), keys_max=65_535))
    assert isinstance(done, TxnDone)
    assert store.key_count == 1
