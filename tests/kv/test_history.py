"""Compaction: what can still be read, and that sweeping removes just what cannot."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv.commands import Command, Compact, Delete, Put, Stamp, Sweep
from raftkv.kv.engine import Table
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import Compacted, NotYetReached, Swept, Written
from raftkv.kv.ranges import Range, read_range
from raftkv.kv.records import rev_key
from raftkv.kv.store import SWEEP_RECORDS, RevisionCompacted, Store
from tests.kv.model import Model
from tests.kv.support import DETERMINISTIC, KEYS, all_commands, counted_bytes, one, open_engine, run


def rev_keys(store: Store) -> list[bytes]:
    with store.engine.read() as reader:
        return [key for key, _ in reader.scan(Table.REV, b"", None)]


def test_rule_25_reads_before_the_compacted_revision_are_refused_and_those_at_it_work() -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"k", b"1"), Put(b"k", b"2"), Put(b"k", b"3"))
    assert store.compacted_revision == 0
    assert one(store, Compact(2)) == Compacted(3, 2)
    assert store.compacted_revision == 2
    with pytest.raises(RevisionCompacted) as refused:
        store.get_at(b"k", 1)
    assert refused.value.oldest == 2
    with pytest.raises(RevisionCompacted):
        read_range(store.engine, store.revision, Range(revision=1))
    item = store.get_at(b"k", 2)
    assert item is not None
    assert item.value == b"2"
    page = read_range(store.engine, store.revision, Range(revision=2))
    assert [item.value for item in page.items] == [b"2"]
    assert Store(store.engine).compacted_revision == 2


def test_rule_25_a_compaction_goes_forward_only_and_not_into_the_future() -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"k", b"1"), Put(b"k", b"2"))
    assert run(store, Compact(3), Compact(2), Compact(1), Compact(0), Compact(-1)) == [
        NotYetReached(2),
        Compacted(2, 2),
        Compacted(2, 2),
        Compacted(2, 2),
        Compacted(2, 2),
    ]
    assert store.revision == 2


def test_rule_25_a_sweep_is_bounded_resumes_and_frees_the_quota() -> None:
    store = Store(MemoryEngine())
    run(store, *(Put(b"k", b"%d" % n) for n in range(10)), Put(b"other", b""), Delete(b"other"))
    before = store.logical_bytes
    assert store.due(0, 9) == []
    run(store, Compact(10))
    assert store.logical_bytes == before, "it is gone at once, its room bit by bit"
    assert store.due(0, 9) == [Sweep(SWEEP_RECORDS)]
    assert one(store, Sweep(4)) == Swept(12, 3)
    assert rev_keys(store)[0] == rev_key(4, 0)
    assert one(store, Sweep(0)) == Swept(12, 0)
    assert one(store, Sweep(4)) == Swept(12, 4)
    # In the same slice as a write that it has to see, and another compaction.
    assert run(store, Put(b"k", b"last"), Compact(13), Sweep(4), Sweep(4)) == [
        Written(13, 11),
        Compacted(13, 13),
        Swept(13, 4),
        Swept(13, 1),
    ]
    assert rev_keys(store) == [rev_key(13, 0)]
    assert store.due(0, 9) == []
    assert store.logical_bytes == counted_bytes(store.engine) < before
    assert store.get(b"other") is None
    assert store.get_at(b"other", 13) is None


def test_rule_25_a_sweep_looks_at_a_bounded_number_of_bytes() -> None:
    store = Store(MemoryEngine())
    for _ in range(2):
        run(store, *(Put(b"%d" % n, bytes(1 << 20)) for n in range(6)))
    run(store, Compact(12))
    counts = []
    while store.due(0, 1):
        outcome = one(store, Sweep(100))
        assert isinstance(outcome, Swept)
        counts.append(outcome.count)
    assert counts == [0, 2, 4]


history_logs = st.lists(all_commands, max_size=30)


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_rule_25_a_swept_store_reads_as_the_model_and_holds_no_more_than_that(kind: str) -> None:
    @settings(DETERMINISTIC, max_examples=150 if kind == "memory" else 40)
    @given(history_logs, st.integers(0, 20))
    def check(log: list[Command], revision: int) -> None:
        with open_engine(kind) as engine:
            store, model = Store(engine), Model()
            for command in log:
                run(store, command)
                model.execute(command)
            run(store, Compact(revision))
            model.execute(Compact(revision))
            while store.due(0, 1):
                run(store, Sweep(3))
            oldest = model.compacted_revision
            for at, items in enumerate(model.states):
                if at >= oldest:
                    for key in KEYS:
                        assert store.get_at(key, at) == items.get(key)
            # Of each key one record for each of the revisions left, and none that is of no use.
            useful = {
                (item.key, item.mod_revision)
                for items in model.states[oldest:]
                for item in items.values()
            }
            with engine.read() as reader:
                records = list(reader.scan(Table.REV, b"", None))
            stored = [value for _, value in records if value[0] == 1]
            assert len(stored) >= len(useful)
            if oldest == model.revision:
                assert len(records) == len(useful) == len(model.items)
            assert store.logical_bytes == counted_bytes(engine)

    check()


def test_rule_21_log_time_is_what_stamps_add_up_to() -> None:
    store = Store(MemoryEngine())
    assert run(store, Stamp(40), Stamp(0), Stamp(2)) == [Swept(0, 0)] * 3
    assert (store.log_time_ms, store.revision) == (42, 0)
    assert Store(store.engine).log_time_ms == 42
    # No entry may stop a node, whatever number is in it.
    run(store, Stamp(2**64 - 1), Stamp(2**64 - 1))
    assert store.log_time_ms == 2**63 - 1
