"""The store against a dumb model, and the rules of the node design that it keeps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv.commands import Append, Command, Condition, Delete, DeleteRange, Put
from raftkv.kv.lmdb_engine import LmdbEngine
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import ConditionFailed, Deleted, Item, TooLarge, Written
from raftkv.kv.records import rev_key
from raftkv.kv.store import SLICE_BYTES_MAX, SLICE_RECORDS_MAX, Store
from raftkv.raft.messages import Entry, EntryType
from tests.kv.against_model import check_against_model, logs, state_of
from tests.kv.support import DETERMINISTIC, dump, entry, open_engine, run

ENGINES = ["memory", "lmdb"]


@settings(DETERMINISTIC, max_examples=300)
@given(logs, st.lists(st.integers(1, 4), max_size=6))
def test_the_store_in_memory_is_the_model(
    log: list[list[Command] | None], sizes: list[int]
) -> None:
    check_against_model(MemoryEngine(), log, sizes)


@settings(DETERMINISTIC, max_examples=60)
@given(logs, st.lists(st.integers(1, 4), max_size=6))
def test_the_store_in_lmdb_is_the_model(log: list[list[Command] | None], sizes: list[int]) -> None:
    with open_engine("lmdb") as engine:
        check_against_model(engine, log, sizes)


# ---- rule 8 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1, 3])
def test_rule_08_entries_are_applied_without_gap_or_repetition(index: int) -> None:
    store = Store(MemoryEngine())
    store.apply([entry(1, Put(b"k", b"1"))])
    before = state_of(store)
    with pytest.raises(AssertionError, match="is applied as entry 2"):
        store.apply([entry(index, Put(b"k", b"2"))])
    with pytest.raises(AssertionError, match="is applied as entry 3"):
        store.apply([entry(2, Put(b"k", b"2")), entry(4, Put(b"k", b"4"))])
    assert state_of(store) == before


# ---- rule 26 --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENGINES)
def test_rule_26_a_slice_ends_when_it_has_touched_too_much(kind: str) -> None:
    count = SLICE_RECORDS_MAX + 1
    with open_engine(kind) as engine:
        store = Store(engine)
        run(store, *(Put(b"a%d" % number, b"") for number in range(count)))
        delete = DeleteRange(b"a", b"b", 10_000)
        rest = [entry(2, Put(b"b", b"")), entry(3, delete), entry(4, Put(b"c", b""))]
        assert [each.index for each in store.apply(rest)] == [2, 3]
        assert (store.applied_index, store.get(b"c")) == (3, None)
        large = bytes(SLICE_BYTES_MAX)
        rest = [rest[2], entry(5, Put(b"d", large)), entry(6, Put(b"e", b""))]
        assert [each.index for each in store.apply(rest)] == [4, 5]
        assert store.applied_index == Store(engine).applied_index == 5


# ---- rule 20 --------------------------------------------------------------------------------


def test_rule_20_only_a_command_that_changed_a_key_takes_a_revision() -> None:
    store = Store(MemoryEngine())
    assert run(
        store,
        Delete(b"k"),
        Put(b"k", b"", Condition(exists=True)),
        Put(b"k", b"", Condition(revisions=(0, 1))),
        Append(b"k", b"12", 1),
        Put(b"k", b"v"),
        Put(b"k", b"v"),
        Delete(b"k", Condition(exists=False)),
        Delete(b"k", Condition(revisions=(1,))),
        Append(b"k", b"", 1, Condition(revisions=(7, 2))),
        Delete(b"k", Condition(revisions=(3,))),
        Delete(b"k"),
        Delete(b"k", Condition(exists=True)),
    ) == [
        Deleted(0, 0),
        ConditionFailed(0, 0),
        ConditionFailed(0, 0),
        TooLarge(0, 2),
        Written(1, 1),
        Written(2, 2),  # the same value is a change: the ETag is the revision
        ConditionFailed(2, 2),
        ConditionFailed(2, 2),
        Written(3, 3),
        Deleted(4, 1),
        Deleted(4, 0),
        ConditionFailed(4, 0),
    ]
    assert store.revision == 4


def test_rule_20_an_entry_without_commands_takes_an_index_but_no_revision() -> None:
    store = Store(MemoryEngine())
    applied = store.apply(
        [
            Entry(1, 1, EntryType.CONFIG, b"a configuration, opaque here"),
            Entry(2, 2, EntryType.NOOP, b""),
            entry(3, term=2),
            entry(4, Put(b"k", b""), term=2),
        ]
    )
    assert [(a.index, a.term, a.outcomes) for a in applied] == [
        (1, 1, None),
        (2, 2, None),
        (3, 2, ()),
        (4, 2, (Written(1, 1),)),
    ]
    assert (store.applied_index, store.revision) == (4, 1)


def test_rule_20_a_key_that_is_created_again_begins_again() -> None:
    store = Store(MemoryEngine())
    run(store, Put(b"k", b"1"), Put(b"k", b"2"), Delete(b"k"))
    (outcome,) = run(store, Append(b"k", b"3", 9))
    assert outcome == Written(4, 1)
    assert outcome.created
    assert store.get(b"k") == Item(b"k", b"3", 4, 4, 1)


# ---- rule 24 --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENGINES)
def test_rule_24_records_of_a_key_that_is_written_overwritten_deleted(kind: str) -> None:
    with open_engine(kind) as engine:
        store = Store(engine)
        run(store, Put(b"a", b"1"))
        (_, cur, rev, *_), (history,) = dump(engine, [b"a"])
        assert [key for key, _ in cur] == [b"a"]
        assert [key for key, _ in rev] == [rev_key(1, 0)]
        assert history == [], "written only when a key is overwritten or deleted"

        run(store, Put(b"a", b"2"))
        (_, cur, rev, *_), (history,) = dump(engine, [b"a"])
        assert [key for key, _ in cur] == [b"a"]
        assert [key for key, _ in rev] == [rev_key(1, 0), rev_key(2, 0)]
        assert history == [rev_key(1, 0)]

        run(store, Delete(b"a"))
        (_, cur, rev, *_), (history,) = dump(engine, [b"a"])
        assert cur == []
        assert [key for key, _ in rev] == [rev_key(1, 0), rev_key(2, 0), rev_key(3, 0)]
        assert history == [rev_key(3, 0), rev_key(2, 0), rev_key(1, 0)]


def test_rule_24_no_read_transaction_outlives_a_call() -> None:
    # A commit while a snapshot is open fails in this engine, so each call proves the one before.
    store = Store(MemoryEngine())
    for _ in range(2):
        run(store, Put(b"a", b"1"), Delete(b"b"))
        store.get(b"a")
        run(store, Put(b"b", b"1"))
        store.get(b"missing")
        run(store, Delete(b"a"))
        store.get_at(b"a", 1)
        store.get_at(b"missing", 1)
    with open_engine("lmdb") as engine:
        assert isinstance(engine, LmdbEngine)
        store = Store(engine)
        run(store, Put(b"a", b"1"))
        store.get(b"a")
        store.get_at(b"missing", 1)
        assert active_readers(engine) == 0
        with engine.read():
            assert active_readers(engine) == 1
        assert active_readers(engine) == 0


def active_readers(engine: LmdbEngine) -> int:
    """How many slots of LMDB's reader table hold a transaction; a free one shows a dash."""
    _header, *slots = engine.env.readers().splitlines()
    return sum(slot.split()[-1] != "-" for slot in slots)


# ---- byte-exact keys and values -------------------------------------------------------------


@pytest.mark.parametrize("kind", ENGINES)
def test_keys_of_every_byte_and_length_are_kept_apart(kind: str) -> None:
    keys = [bytes((byte,)) for byte in range(256)]
    keys += [b"/" * length for length in range(2, 512)]
    keys += [b"\x00" * 511, b"\xff" * 511, b"\x00" * 510 + b"\x01", bytes(range(256))]
    keys += [b"a//b", b"a/../b", b"%FF", b"%25FF", "\u00e9".encode(), "e\u0301".encode()]
    assert len(set(keys)) == len(keys)
    with open_engine(kind) as engine:
        store = Store(engine)
        # Twice, so that the history holds each of them too.
        for round_ in (b"first", b"second"):
            run(store, *(Put(key, round_ + key) for key in keys))
        assert store.key_count == len(keys)
        for key in keys:
            item = store.get(key)
            assert item is not None
            assert (item.key, item.value, item.version) == (key, b"second" + key, 2)
            old = store.get_at(key, len(keys))
            assert old is not None
            assert (old.key, old.value, old.version) == (key, b"first" + key, 1)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    "value",
    [b"", b"\x00", bytes(range(256)), bytes(1 << 20), b"\xff" * (1 << 20), b"\x00" * 4096],
    ids=["empty", "nul", "every byte", "1 MiB of zeros", "1 MiB of ones", "a page of zeros"],
)
def test_values_are_kept_byte_for_byte(kind: str, value: bytes) -> None:
    with open_engine(kind) as engine:
        store = Store(engine)
        run(store, Put(b"put", value), Append(b"appended", value, len(value)))
        run(store, Append(b"put", b"+", 1 << 21), Append(b"put", value, 1 << 22))
        assert store.get(b"appended") == Item(b"appended", value, 2, 2, 1)
        assert store.get_at(b"put", 1) == Item(b"put", value, 1, 1, 1)
        assert store.get(b"put") == Item(b"put", value + b"+" + value, 1, 4, 3)
