"""The change feed against the model: every place to begin, range and way of cutting."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from raftkv.kv.changes import (
    Change,
    Changes,
    ChangesAfter,
    LastChange,
    LastChanged,
    last_change,
    read_changes,
)
from raftkv.kv.commands import Command, Compact, Delete, DeleteRange, GrantLease, Put, Sweep, Txn
from raftkv.kv.engine import Engine
from raftkv.kv.outcomes import Item
from raftkv.kv.store import RevisionCompacted, Store
from tests.kv.model import Model
from tests.kv.support import DETERMINISTIC, KEYS, commands, entry, open_engine

ENGINES = ("memory", "lmdb")

bounds = st.sampled_from((b"", *KEYS, b"a\x01", b"zz"))
wishes = st.builds(
    ChangesAfter,
    revision=st.just(0),
    start=bounds,
    end=st.none() | bounds,
    records_max=st.integers(1, 5),
    bytes_max=st.integers(1, 200),
    with_previous=st.booleans(),
)


def feed_of(engine: Engine, store_revision: int, wanted: ChangesAfter) -> list[Changes]:
    """All pieces, each asked for where the one before ended."""
    pieces: list[Changes] = []
    while True:
        piece = read_changes(engine, store_revision, wanted)
        pieces.append(piece)
        assert piece.store_revision == store_revision
        if piece.revision == store_revision:
            return pieces
        assert piece.revision > wanted.revision, "no piece brings the feed forward"
        wanted = replace(wanted, revision=piece.revision)


def expected(states: Sequence[dict[bytes, Item]], wanted: ChangesAfter) -> list[Change]:
    """What differs between each state and the one before."""
    changes = []
    for revision in range(wanted.revision + 1, len(states)):
        old, new = states[revision - 1], states[revision]
        for key in sorted(old.keys() | new.keys()):
            is_wanted = key >= wanted.start and (wanted.end is None or key < wanted.end)
            if is_wanted and old.get(key) != new.get(key):
                before = old.get(key) if wanted.with_previous else None
                changes.append(Change(key, revision, new.get(key), before))
    return changes


def check(engine: Engine, content: Sequence[Command], wanted: ChangesAfter) -> None:
    store, model = Store(engine), Model()
    store.apply([entry(1, *content)])
    for command in content:
        model.execute(command)
    for after in range(store.revision + 1):
        asked = replace(wanted, revision=after)
        if after < store.compacted_revision:
            with pytest.raises(RevisionCompacted) as raised:
                read_changes(engine, store.revision, asked)
            assert raised.value.oldest == store.compacted_revision
            continue
        pieces = feed_of(engine, store.revision, asked)
        found = [change for piece in pieces for change in piece.changes]
        assert found == expected(model.states, asked)
        passed = after
        for piece in pieces:
            # Whole revisions: none is in two pieces.
            assert all(passed < change.revision <= piece.revision for change in piece.changes)
            passed = piece.revision
    for key in KEYS:
        found_last = last_change(engine, store.revision, store.compacted_revision, LastChange(key))
        changed_at = [r for r in range(1, len(model.states)) if differs(model.states, r, key)]
        item = model.items.get(key)
        last = changed_at[-1] if changed_at else 0
        if item is None and last <= store.compacted_revision:
            assert found_last.changed_at in (0, last)  # swept, or not yet
        else:
            assert found_last.changed_at == last
        assert found_last.item == item


def differs(states: Sequence[dict[bytes, Item]], revision: int, key: bytes) -> bool:
    return states[revision].get(key) != states[revision - 1].get(key)


@pytest.mark.parametrize("kind", ENGINES)
def test_rule_24_a_feed_is_whole_however_it_is_cut(kind: str) -> None:
    @settings(DETERMINISTIC, max_examples=150 if kind == "memory" else 40)
    @given(st.lists(commands, max_size=14), wishes)
    def run(content: list[Command], wanted: ChangesAfter) -> None:
        with open_engine(kind) as engine:
            check(engine, content, wanted)

    run()


@pytest.mark.parametrize("kind", ENGINES)
def test_rule_25_after_a_compaction_the_feed_goes_on_from_there(kind: str) -> None:
    @settings(DETERMINISTIC, max_examples=100 if kind == "memory" else 30)
    @given(st.lists(commands, max_size=10), st.integers(0, 9), st.booleans(), wishes)
    def run(content: list[Command], compacted: int, is_swept: bool, wanted: ChangesAfter) -> None:
        with open_engine(kind) as engine:
            tail: list[Command] = [Compact(compacted), *[Sweep(1000)] * is_swept]
            check(engine, [*content, *tail, Put(b"a", b"later"), Delete(b"a")], wanted)

    run()


def test_a_revision_is_never_cut() -> None:
    with open_engine("memory") as engine:
        store = Store(engine)
        store.apply([entry(1, *(Put(b"%d" % n, b"v") for n in range(50)))])
        store.apply([entry(2, DeleteRange(b"", None, 50), Put(b"x", b""))])
        asked = ChangesAfter(50, records_max=1, bytes_max=1, with_previous=True)
        piece = read_changes(engine, store.revision, asked)
        assert (len(piece.changes), piece.revision) == (50, 51)
        assert {change.previous.value for change in piece.changes if change.previous} == {b"v"}
        piece = read_changes(engine, store.revision, replace(asked, revision=51))
        assert (len(piece.changes), piece.revision) == (1, 52)


def test_a_transaction_that_writes_a_key_twice_is_seen_twice() -> None:
    with open_engine("memory") as engine:
        store = Store(engine)
        store.apply([entry(1, Txn((), (Put(b"k", b"1"), Put(b"k", b"2"), Delete(b"k")), (), 9, 9))])
        changes = read_changes(engine, 1, ChangesAfter(0, with_previous=True)).changes
        assert [
            (
                change.revision,
                change.item.value if change.item else None,
                change.previous.value if change.previous else None,
            )
            for change in changes
        ] == [(1, b"1", None), (1, b"2", b"1"), (1, None, b"2")]


def test_revisions_without_a_key_are_passed() -> None:
    with open_engine("memory") as engine:
        store = Store(engine)
        store.apply([entry(1, GrantLease(1000, 9), Put(b"k", b""), GrantLease(1000, 9))])
        assert store.revision == 3
        piece = read_changes(engine, 3, ChangesAfter(0, records_max=1))
        assert ([change.revision for change in piece.changes], piece.revision) == ([2], 3)
        assert read_changes(engine, 3, ChangesAfter(3)) == Changes((), 3, 3)


def test_a_key_that_never_existed_has_no_last_change() -> None:
    with open_engine("memory") as engine:
        store = Store(engine)
        store.apply([entry(1, Put(b"a", b""), Put(b"c", b""), Delete(b"c"))])
        assert last_change(engine, 3, 0, LastChange(b"b")) == LastChanged(None, 0, 3, 0)
        assert last_change(engine, 3, 0, LastChange(b"c")) == LastChanged(None, 3, 3, 0)
