"""The store beside the dumb model: the same log, and then everything is compared."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from raftkv.kv.commands import Command
from raftkv.kv.engine import Engine, Table
from raftkv.kv.listing import find_lease, find_lock, list_leases, list_locks
from raftkv.kv.outcomes import Outcome, Swept
from raftkv.kv.records import Lease
from raftkv.kv.store import RevisionCompacted, Store
from raftkv.raft.messages import Entry, EntryType
from tests.kv.model import Model
from tests.kv.support import KEYS, all_commands, counted_bytes, dump, entry, run

# A log: what its entries hold, None for one without commands.
logs = st.lists(st.none() | st.lists(all_commands, max_size=6), max_size=10)


def entries_of(log: Sequence[Sequence[Command] | None]) -> list[Entry]:
    return [
        Entry(1, index, EntryType.NOOP, b"") if content is None else entry(index, *content)
        for index, content in enumerate(log, start=1)
    ]


def slices_of(entries: Sequence[Entry], sizes: Sequence[int]) -> Iterator[Sequence[Entry]]:
    start = 0
    for size in (*sizes, len(entries)):
        yield entries[start : start + size]
        start += size


def state_of(store: Store) -> tuple[object, ...]:
    """Everything that a store is and holds."""
    properties = (
        store.applied_index,
        store.revision,
        store.chain_hash,
        store.key_count,
        store.logical_bytes,
    )
    return (*properties, dump(store.engine, KEYS))


def check_against_model(
    engine: Engine, log: Sequence[Sequence[Command] | None], sizes: Sequence[int]
) -> None:
    store, model = Store(engine), Model()
    for slice_ in slices_of(entries_of(log), sizes):
        for applied in store.apply(slice_):
            content = log[applied.index - 1]
            expected = None if content is None else tuple(model.execute(c) for c in content)
            assert without_swept_history(applied.outcomes, expected) == expected
            assert list(applied.grants) == model.grants
            model.grants.clear()
    # A store opened on the same tables is the same.
    for view in (store, Store(engine)):
        assert view.applied_index == len(log)
        assert view.revision == model.revision
        assert view.key_count == len(model.items)
        assert view.log_time_ms == model.log_time_ms
        assert view.compacted_revision == model.compacted_revision
        assert view.lease_count == len(model.leases)
        assert view.lock_count == len(model.locks)
        assert view.once_count == len(model.once)
        assert view.logical_bytes == counted_bytes(engine)
        assert view.once_bytes == counted_bytes(engine, (Table.ONCE, Table.ONCE_END))
        assert view.is_time_needed == bool(model.leases or model.once)
    for key in KEYS:
        assert store.get(key) == model.items.get(key)
        for revision, items in enumerate(model.states):
            if revision >= model.compacted_revision:
                assert store.get_at(key, revision) == items.get(key)
            else:
                with pytest.raises(RevisionCompacted):
                    store.get_at(key, revision)
    check_leases_and_locks(store, model)
    check_due(store, model)


def without_swept_history(
    outcomes: Sequence[Outcome] | None, expected: Sequence[Outcome] | None
) -> Sequence[Outcome] | None:
    """As ``outcomes``, but sweeps count what the model knows of: no history."""
    if outcomes is None or expected is None:
        return outcomes
    return tuple(
        replace(outcome, count=wanted.count)
        if isinstance(outcome, Swept) and isinstance(wanted, Swept) and outcome.count > wanted.count
        else outcome
        for outcome, wanted in zip(outcomes, expected, strict=True)
    )


def check_leases_and_locks(store: Store, model: Model) -> None:
    listed = dict(list_leases(store.engine, 0, 1000))
    assert listed.keys() == model.leases.keys()
    for lease, known in model.leases.items():
        keys = {key for key, item in model.items.items() if item.lease == lease}
        found = find_lease(store.engine, lease)
        assert found is not None
        assert found[0] == listed[lease]
        assert set(found[1]) == keys
        assert len(found[1]) == len(keys)
        assert found[0] == Lease(
            known.ttl_ms, known.ends_at_ms, known.keys_max, len(keys), known.is_private, known.lock
        )
    assert [held.name for held in list_locks(store.engine, b"", 1000)] == sorted(model.locks)
    for name, lock in model.locks.items():
        held = find_lock(store.engine, name)
        assert held is not None
        assert (held.lock.token, held.lock.owner, held.lock.ttl_ms, held.lock.ticket) == (
            lock.token,
            lock.owner,
            lock.ttl_ms,
            lock.ticket,
        )
        now = model.log_time_ms
        assert [(w.ticket, w.until_ms) for w in held.lock.waiters if w.until_ms > now] == [
            (w.ticket, w.until_ms) for w in lock.waiters if w.until_ms > now
        ]


def check_due(store: Store, model: Model) -> None:
    """What is due is applied, until nothing is: then nothing is over any more."""
    now = model.log_time_ms
    for _ in range(100):
        wanted = store.due(now, 3)
        assert len(wanted) <= 3
        if not wanted:
            break
        run(store, *wanted)
    assert store.due(now, 3) == []
    assert all(lease.ends_at_ms > now for _, lease in list_leases(store.engine, 0, 1000))
    assert store.once_count == sum(once.ends_at_ms > now for once in model.once.values())
