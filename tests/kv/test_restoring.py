"""A restored store: nothing of the old cluster's revisions, leases or tokens means anything."""

import pytest
from msgspec.structs import replace

from raftkv.kv.commands import AcquireLock, Compact, GrantLease, Once, Put, Stamp
from raftkv.kv.engine import StoreError, Table
from raftkv.kv.outcomes import LockHeld, Written
from raftkv.kv.restoring import REVISION_JUMP, restore
from raftkv.kv.store import RevisionCompacted, Store
from tests.kv.support import counted_bytes, one, open_engine, run


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_rule_20_a_restored_store_goes_on_far_ahead_without_leases_locks_or_records(
    kind: str,
) -> None:
    with open_engine(kind) as engine:
        store = Store(engine)
        run(
            store,
            Put(b"plain", b"1"),
            Put(b"plain", b"2"),
            GrantLease(1000, 9),
            Put(b"leased", b"3", None, 3),
            *(Put(b"%04d" % n, b"4", None, 0, 5000) for n in range(2100)),
            AcquireLock(b"lock", b"owner", 1000, 0, 9),
            Once(b"key", bytes(16), 1000, Put(b"once", b"5")),
            Stamp(70),
        )
        with engine.read() as reader:
            keys = [key for key, _ in reader.scan(Table.CUR, b"", None)]
        before = {key: store.get(key) for key in keys}
        old_revision = store.revision

        assert restore(engine, 17) == old_revision + REVISION_JUMP
        restored = Store(engine)
        assert restored.applied_index == 17
        assert restored.revision == restored.compacted_revision == old_revision + 10**9
        assert restored.chain_hash == bytes(32)
        assert restored.hashes == ()
        assert restored.log_time_ms == 70
        assert (restored.lease_count, restored.lock_count) == (0, 0)
        assert (restored.once_count, restored.once_bytes) == (0, 0)
        assert restored.key_count == len(keys)
        assert not restored.is_time_needed
        assert restored.logical_bytes == counted_bytes(engine)
        for key, item in before.items():
            assert item is not None
            assert restored.get(key) == replace(item, lease=0)
            assert restored.get_at(key, restored.revision) == replace(item, lease=0)
        with pytest.raises(RevisionCompacted):
            restored.get_at(b"plain", old_revision)

        # It goes on as any store does: nothing of before is in the way.
        token = old_revision + 10**9 + 1
        assert run(
            restored,
            AcquireLock(b"lock", b"other", 1000, 0, 9),
            Once(b"key", b"\x01" * 16, 1000, Put(b"once", b"6")),
            Put(b"leased", b"7"),
            Compact(token),
        )[:3] == [LockHeld(token, token, 1000), Written(token + 1, 2), Written(token + 2, 2)]
        while restored.due(70, 1):
            run(restored, *restored.due(70, 1))
        assert restored.logical_bytes == counted_bytes(engine)
        item = restored.get(b"plain")
        assert item is not None
        assert item.value == b"2"
        assert isinstance(one(restored, Put(b"plain", b"8")), Written)


def test_an_empty_engine_cannot_be_restored() -> None:
    with open_engine("memory") as engine, pytest.raises(StoreError, match="no state"):
        restore(engine, 1)
