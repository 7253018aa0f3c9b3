"""A new cluster out of a backup (rule 20), on the simulated disk."""

from random import Random

import pytest

from raftkv.kv.commands import AcquireLock, GrantLease, Put, encode_command, join_batch
from raftkv.kv.memory_engine import MemoryEngineFactory
from raftkv.kv.outcomes import LeaseGranted
from raftkv.kv.restoring import REVISION_JUMP
from raftkv.kv.store import Store
from raftkv.node.events import DiskDone, SubmitDisk
from raftkv.node.node import Node
from raftkv.node.restoring import NotEmptyError, Restored, restore
from raftkv.node.settings import NodeSettings
from raftkv.raft.messages import ConfState, Entry, EntryId, EntryType
from raftkv.storage.disk import Listdir, Mkdir, run_task
from raftkv.storage.errors import SnapshotRefusedError, StorageError
from raftkv.storage.layout import SNAPSHOTS
from raftkv.storage.snapshots import SnapshotInfo, SnapshotMeta, write_snapshot
from tests.simulation.disk import Crash, SimDisk

SETTINGS = NodeSettings(
    name="r1", peer_url="r1:1", client_url="http://r1", version="test", segment_bytes=1 << 16
)


def make_backup() -> tuple[SnapshotInfo, bytes, Store]:
    """A store with keys, a lease and a lock, and its snapshot file."""
    store = Store(MemoryEngineFactory().open())
    commands = [Put(b"key %d" % number, b"value") for number in range(100)]
    batch = join_batch([encode_command(command) for command in commands])
    (applied,) = store.apply([Entry(1, 1, EntryType.NORMAL, batch)])
    lease = join_batch(
        [
            encode_command(GrantLease(1000, 100)),
            encode_command(AcquireLock(b"lock", b"owner", 1000, 0, 0)),
        ]
    )
    (applied,) = store.apply([Entry(1, 2, EntryType.NORMAL, lease)])
    assert applied.outcomes is not None
    granted = applied.outcomes[0]
    assert isinstance(granted, LeaseGranted)
    attached = join_batch([encode_command(Put(b"leased", b"v", lease=granted.lease))])
    store.apply([Entry(1, 3, EntryType.NORMAL, attached)])
    disk = SimDisk()
    disk.perform((Mkdir(SNAPSHOTS),))
    meta = SnapshotMeta("old", EntryId(1, 3), 1, ConfState(), store.chain_hash, store.revision, 1)
    copy = store.engine.begin_copy()
    info = run_task(disk, write_snapshot(meta, copy))
    return info, disk.read(f"{SNAPSHOTS}/{info.name}"), store


def run_restore(
    disk: SimDisk, engines: MemoryEngineFactory, backup: bytes, info: SnapshotInfo
) -> Restored:
    pieces = [backup[at : at + 10_000] for at in range(0, len(backup), 10_000)]
    return restore(disk, engines, Random(1), SETTINGS, cluster_id="new", info=info, pieces=pieces)


def start(disk: SimDisk, engines: MemoryEngineFactory) -> Node:
    """A node on that disk, after recovery."""
    node = Node(SETTINGS, engines, Random(2))
    waiting = [effect for effect in node.start(0.0) if isinstance(effect, SubmitDisk)]
    while waiting:
        submission = waiting.pop(0)
        done = DiskDone(submission.submission, disk.perform(submission.ops))
        waiting += [e for e in node.handle([done], 0.0) if isinstance(e, SubmitDisk)]
    return node


def test_rule_20_a_restored_cluster_goes_on_far_beyond_its_backup() -> None:
    info, backup, old = make_backup()
    disk, engines = SimDisk(), MemoryEngineFactory()
    restored = run_restore(disk, engines, backup, info)
    assert restored.revision == old.revision + REVISION_JUMP
    assert restored.keys == old.key_count
    node = start(disk, engines)
    assert node.core is not None
    store = node.core.store
    assert node.core.identity.cluster_id == "new"
    assert store.revision == restored.revision
    assert (store.lease_count, store.lock_count) == (0, 0)
    item = store.get(b"leased")
    assert item is not None
    assert (item.value, item.lease) == (b"v", 0)
    assert store.compacted_revision == restored.revision
    assert node.core.raft.is_voter
    assert node.core.raft.conf_state.voters == (restored.member.id,)


def test_rule_20_a_restored_node_recovers_from_its_snapshot_too() -> None:
    info, backup, old = make_backup()
    disk = SimDisk()
    run_restore(disk, MemoryEngineFactory(), backup, info)
    node = start(disk, MemoryEngineFactory())  # the engine is lost
    assert node.core is not None
    assert node.core.store.key_count == old.key_count


def test_a_backup_is_restored_into_an_empty_directory_only() -> None:
    info, backup, _ = make_backup()
    disk = SimDisk()
    disk.perform((Mkdir("something"),))
    with pytest.raises(NotEmptyError, match="something"):
        run_restore(disk, MemoryEngineFactory(), backup, info)


@pytest.mark.parametrize("offset", [0, 100, 70_000, -1])
def test_row_29_a_damaged_backup_is_refused(offset: int) -> None:
    info, backup, _ = make_backup()
    damaged = bytearray(backup)
    damaged[offset] ^= 1
    with pytest.raises(SnapshotRefusedError):
        run_restore(SimDisk(), MemoryEngineFactory(), bytes(damaged), info)


def test_a_restore_that_was_cut_short_is_never_taken_for_a_node() -> None:
    info, backup, old = make_backup()
    op_number = 0
    while True:
        disk, engines = SimDisk(), MemoryEngineFactory()
        op_number += 1
        disk.crash_at(op_number)
        try:
            run_restore(disk, engines, backup, info)
        except Crash:
            disk.power_loss(Random(op_number))
        else:
            assert op_number > 10
            return
        disk.cancel_faults()
        is_untouched = not {name for name, _ in listing(disk)} - {"identity.tmp"}
        try:
            node = start(disk, MemoryEngineFactory())
        except StorageError:
            continue  # refused: what `restore` promises
        assert (
            node.is_stopped
            or is_untouched
            or (node.core is not None and node.core.store.key_count == old.key_count)
        )


def listing(disk: SimDisk) -> list[tuple[str, int]]:
    (names,) = disk.perform((Listdir("."),))
    assert isinstance(names, list)
    return names
