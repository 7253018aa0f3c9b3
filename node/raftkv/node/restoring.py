"""Makes the data directory of a new cluster's first node out of a backup (rule 20).

Called by `raftkv restore`, on an empty directory that no node works in. The order makes a crash
harmless: the identity comes last, and a directory without one, but with anything else, is refused
by every start.
"""

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from raftkv.kv import restoring
from raftkv.kv.engine import EngineCopy
from raftkv.kv.environment import EngineFactory
from raftkv.kv.records import FORMAT
from raftkv.kv.store import Store
from raftkv.node.founding import founding_configuration
from raftkv.node.settings import NodeSettings
from raftkv.raft.messages import EntryId, HardState, Member
from raftkv.storage.disk import Close, Disk, DiskTask, FsyncDir, Listdir, Mkdir, Unlink, run_task
from raftkv.storage.errors import StorageError
from raftkv.storage.identity import Identity, create_identity, write_identity
from raftkv.storage.layout import LOCK, ROOT, SNAPSHOTS, WAL
from raftkv.storage.snapshots import (
    SnapshotInfo,
    SnapshotMeta,
    SnapshotReceiver,
    load,
    write_snapshot,
)
from raftkv.storage.wal import LogTail, Wal, create_segment

# The new cluster's log begins after its founding entry, which the snapshot stands for.
FOUNDING_ENTRY: Final = EntryId(1, 1)


# What file systems put into a fresh volume, and the lock that the caller holds.
_HARMLESS: Final = frozenset({LOCK, "lost+found", ".snapshot"})


class NotEmptyError(StorageError):
    """A backup is restored into an empty directory only."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"the data directory is not empty: it holds {', '.join(names[:5])}")


class Rng(Protocol):
    """Where the new member's id comes from."""

    def getrandbits(self, k: int, /) -> int:
        """An integer of ``k`` random bits."""
        ...


class Restored(msgspec.Struct, frozen=True):
    """What was made."""

    member: Member
    cluster_id: str
    revision: int  # of the store: beyond all that the backup's cluster can have reached
    keys: int


def restore(
    disk: Disk,
    engines: EngineFactory,
    rng: Rng,
    settings: NodeSettings,
    *,
    cluster_id: str,
    info: SnapshotInfo,
    pieces: Iterable[bytes],
) -> Restored:
    """Fill the empty directory of ``disk``; blocking.

    Args:
        disk: of the new node's data directory, held by nobody else.
        engines: of the same directory.
        rng: see `Rng`.
        settings: name and addresses of the new node.
        cluster_id: never used before.
        info: what header and trailer of the backup say.
        pieces: its bytes, in order.

    Raises:
        StorageError, StoreError, DiskError: nothing can be started from the directory then; it
            is to be emptied before another attempt.
    """
    identity = create_identity(rng)
    member = Member(identity.member_id, settings.name, settings.peer_url, settings.client_url)
    run_task(disk, _receive(info, pieces))
    engines.rebuild()
    building = engines.begin_install()
    run_task(disk, load(info.name, building))
    engine = building.finish()
    revision = restoring.restore(engine, FOUNDING_ENTRY.index)
    store = Store(engine)
    conf = founding_configuration((member,))
    meta = SnapshotMeta(
        cluster_id=cluster_id,
        last=FOUNDING_ENTRY,
        config_index=FOUNDING_ENTRY.index,
        conf=conf,
        chain_hash=store.chain_hash,
        revision=revision,
        state_bytes=engine.size_bytes(),
        record_format=FORMAT,
    )
    copy = engine.begin_copy()
    try:
        run_task(disk, _begin_log(identity, meta, copy, rng, settings.segment_bytes))
    finally:
        copy.close()
    keys = store.key_count
    engines.close_clean(engine)
    adopted = msgspec.structs.replace(identity, cluster_id=cluster_id)
    run_task(disk, write_identity(adopted))
    return Restored(member, cluster_id, revision, keys)


def _receive(info: SnapshotInfo, pieces: Iterable[bytes]) -> DiskTask[None]:
    """Copy the backup into the directory, verified."""
    (names,) = yield (Listdir(ROOT),)
    assert isinstance(names, list)
    found = sorted(name for name, _ in names if name not in _HARMLESS)
    if found:
        raise NotEmptyError(found)
    yield (Mkdir(SNAPSHOTS), Mkdir(WAL), FsyncDir(ROOT))
    receiver = SnapshotReceiver(info)
    yield from receiver.begin()
    for piece in pieces:
        yield from receiver.write(receiver.received_bytes, piece)
    yield from receiver.finish()


def _begin_log(
    identity: Identity, meta: SnapshotMeta, copy: EngineCopy, rng: Rng, segment_bytes: int
) -> DiskTask[None]:
    """Snapshot and log of the new cluster, in the place of the backup."""
    (names,) = yield (Listdir(SNAPSHOTS),)
    assert isinstance(names, list)
    info = yield from write_snapshot(meta, copy)
    hard_state = HardState(term=FOUNDING_ENTRY.term, vote=None, commit=FOUNDING_ENTRY.index)
    tail = LogTail(sequence=0, crc=0, last=EntryId(0, 0), hard_state=HardState())
    segment = yield from create_segment(
        number=1,
        rng=rng,
        member_id=identity.member_id,
        segment_bytes=segment_bytes,
        next_frame_bytes=0,
        tail=tail,
    )
    wal = Wal(
        rng=rng,
        member_id=identity.member_id,
        segment_bytes=segment_bytes,
        segment=segment,
        tail=tail,
    )
    yield from wal.append_snapshot(info, installs=True, hard_state=hard_state)
    yield (Close(segment.handle),)
    backups = [name for name, _ in names if name != info.name]
    yield (*(Unlink(f"{SNAPSHOTS}/{name}") for name in backups), FsyncDir(SNAPSHOTS))
