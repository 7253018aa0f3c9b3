"""Workloads of one node that count what they were told is durable, for crash tests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import pytest

from raftkv.raft.messages import ConfState, EntryId, HardState, Member
from raftkv.storage.disk import run_task
from raftkv.storage.identity import Identity, adopt_cluster
from raftkv.storage.layout import SNAPSHOTS, snapshot_name
from raftkv.storage.snapshots import remove_older_than
from raftkv.storage.wal import Wal
from tests.simulation.disk import Crash, SimDisk
from tests.storage.support import (
    LogState,
    blob_of,
    load_blob,
    make_entries,
    make_snapshot,
    open_on,
    receive,
    restart,
    sent_snapshot,
    state_of,
)

CONF: Final = ConfState(voters=(5,), members=(Member(5, "n5", "n5:7401", "http://n5:7400"),))
BLOB_BYTES: Final = 1500


@dataclass
class Promised:
    """What a process was told is durable, and what it had asked for besides."""

    identity: Identity | None = None
    asked_identity: Identity | None = None
    state: LogState = field(default_factory=LogState)
    asked_state: LogState = field(default_factory=LogState)

    def check(self, disk: SimDisk) -> None:
        """Start a process on ``disk``: it must find what was promised."""
        recovered = open_on(disk, seed=2)
        if self.identity is not None:
            found = {self.identity, self.asked_identity} - {None}
            assert recovered.identity in found
        assert not [path for path in disk.paths() if path.endswith(".tmp")]
        assert state_of(recovered) in (self.state, self.asked_state)
        # The snapshot that the log stands on is there and whole, and is the only one.
        state = state_of(recovered)
        snapshots = [path for path in disk.paths() if path.startswith(SNAPSHOTS)]
        if recovered.snapshot is None:
            assert not snapshots
        else:
            name = snapshot_name(state.base)
            assert snapshots == [f"{SNAPSHOTS}/{name}"]
            assert load_blob(disk, name) == blob_of(state.base, size=BLOB_BYTES).content
        # The log goes on from there, and is the same when it is read once more.
        if recovered.identity.cluster_id is None:
            run_task(disk, adopt_cluster(recovered.identity, "c1", None))
        entries = make_entries(state.last_index + 1, 2, term=9)
        hard_state = HardState(9, None, state.hard_state.commit)
        run_task(disk, recovered.wal.append(hard_state, entries))
        assert state_of(restart(disk)) == state.append(hard_state, entries)


def write_log(disk: SimDisk, promised: Promised) -> None:
    """Two lives of a node: founding, writes over several segments, restart, more writes."""
    recovered = open_on(disk)
    promised.identity = recovered.identity
    promised.asked_identity = Identity(recovered.identity.member_id, "c1", CONF)
    promised.identity = run_task(disk, adopt_cluster(recovered.identity, "c1", CONF))
    write(disk, promised, recovered.wal, count=8)
    recovered = restart(disk)
    assert state_of(recovered) == promised.state
    write(disk, promised, recovered.wal, count=3)


def write(disk: SimDisk, promised: Promised, wal: Wal, count: int) -> None:
    """Writes of one to some eight sectors; every fourth replaces an uncommitted suffix."""
    for number in range(count):
        state = promised.state
        term = max(state.hard_state.term, state.base.term)
        commit, last_index = state.hard_state.commit, state.last_index
        if number % 4 == 3:
            term += 1
            last_index -= min(2, last_index - commit)
        entries = make_entries(last_index + 1, 1 + number % 3, term=term, size=700 * (number % 3))
        hard_state = HardState(term, number or None, max(commit, last_index - 2))
        promised.asked_state = state.append(hard_state, entries)
        run_task(disk, wal.append(hard_state, entries))
        promised.state = promised.asked_state


def take(disk: SimDisk, promised: Promised, wal: Wal, last: EntryId) -> None:
    """Take a snapshot, name it, and remove what it makes needless."""
    info = run_task(disk, make_snapshot(last, size=BLOB_BYTES))
    promised.asked_state = promised.state.stand_on(info.meta, installs=False)
    run_task(disk, wal.append_snapshot(info, installs=False))
    promised.state = promised.asked_state
    run_task(disk, wal.drop_before(last.index))
    run_task(disk, remove_older_than(info.name))


def install(disk: SimDisk, promised: Promised, wal: Wal, last: EntryId) -> None:
    """Receive a snapshot and install it."""
    info = run_task(disk, receive(sent_snapshot(last, size=BLOB_BYTES)))
    promised.asked_state = promised.state.stand_on(info.meta, installs=True)
    run_task(disk, wal.append_snapshot(info, installs=True))
    promised.state = promised.asked_state
    run_task(disk, wal.drop_before(last.index))
    run_task(disk, remove_older_than(info.name))


def found(disk: SimDisk, promised: Promised) -> Wal:
    """A new node founds a cluster."""
    recovered = open_on(disk)
    promised.identity = recovered.identity
    promised.asked_identity = Identity(recovered.identity.member_id, "c1", CONF)
    promised.identity = run_task(disk, adopt_cluster(recovered.identity, "c1", CONF))
    return recovered.wal


def take_snapshots(disk: SimDisk, promised: Promised) -> None:
    """Three snapshots over two lives, with enough writes between them for segments to go."""
    wal = found(disk, promised)
    write(disk, promised, wal, count=8)
    take(disk, promised, wal, promised.state.entries[promised.state.hard_state.commit - 1].id)
    write(disk, promised, wal, count=7)
    base_index, commit = promised.state.base.index, promised.state.hard_state.commit
    take(disk, promised, wal, promised.state.entries[commit - base_index - 1].id)
    recovered = restart(disk)
    assert state_of(recovered) == promised.state
    write(disk, promised, recovered.wal, count=5)
    base_index, commit = promised.state.base.index, promised.state.hard_state.commit
    take(disk, promised, recovered.wal, promised.state.entries[commit - base_index - 1].id)


def install_snapshots(disk: SimDisk, promised: Promised) -> None:
    """A snapshot taken, one installed over it beyond the log, one into a log that diverged."""
    wal = found(disk, promised)
    write(disk, promised, wal, count=6)
    take(disk, promised, wal, promised.state.entries[promised.state.hard_state.commit - 1].id)
    install(disk, promised, wal, EntryId(4, 60))
    write(disk, promised, wal, count=6)
    recovered = restart(disk)
    assert state_of(recovered) == promised.state
    commit = promised.state.hard_state.commit
    assert commit + 1 < promised.state.last_index
    install(disk, promised, recovered.wal, EntryId(9, commit + 1))
    write(disk, promised, recovered.wal, count=2)


Workload = Callable[[SimDisk, Promised], None]


@cache
def op_total(workload: Workload) -> int:
    """How many disk operations the whole workload takes."""
    disk = SimDisk()
    workload(disk, Promised())
    return disk.op_count


def cut_short(workload: Workload, op_number: int) -> tuple[SimDisk, Promised]:
    """The workload, ended at this operation."""
    disk, promised = SimDisk(), Promised()
    disk.crash_at(op_number)
    with pytest.raises(Crash):
        workload(disk, promised)
    return disk, promised
