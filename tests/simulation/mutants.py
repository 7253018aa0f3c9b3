"""Seeded bugs that the simulation must find: proof that its checkers can fail.

Each mutant is the real code with one rule broken, the way a hasty change would break it. `make
mutants` runs random seeds of standard length until every mutant is dead, and prints which seed
killed it. None may outlive 200 seeds.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import click
from msgspec.structs import replace

from raftkv.kv import idempotency, leases, locks
from raftkv.kv.changes import Changes, ChangesAfter, read_changes
from raftkv.kv.engine import Engine, Table
from raftkv.kv.memory_engine import Tables
from raftkv.kv.outcomes import LockGrant
from raftkv.kv.records import META_KEY, decode_meta, encode_meta
from raftkv.kv.slice import Slice
from raftkv.kv.store import AppliedEntry, Store
from raftkv.node import queries, snapshots
from raftkv.node.disk_tasks import DiskTasks
from raftkv.node.events import DiskDone, PeerDown, ReadRequest
from raftkv.node.log_clock import LogClock
from raftkv.node.messages import ConfigChanged
from raftkv.node.node import Core, Node
from raftkv.node.orders import Orders, _Change
from raftkv.node.reads import Reads
from raftkv.node.requests import Requests
from raftkv.raft import membership, replication
from raftkv.raft.durability import Write
from raftkv.raft.log import RaftLog
from raftkv.raft.messages import Append, ConfState, Entry, HardState, Index, NodeId
from raftkv.raft.quorum import Quorum
from raftkv.raft.raft import Raft
from raftkv.raft.rawnode import RawNode
from raftkv.raft.read_only import ReadRound, ReadRounds
from raftkv.raft.roles import Leader
from raftkv.storage import recovery
from raftkv.storage.disk import DiskError, DiskTask, Fdatasync
from raftkv.storage.snapshots import SnapshotMeta
from raftkv.storage.wal import Wal
from tests.simulation import sessions
from tests.simulation.checkers import InvariantError
from tests.simulation.run import LENGTHS, STANDARD, Length, run

SEEDS_MAX = 200

Mutant = Callable[[], AbstractContextManager[None]]


@contextmanager
def vote_not_persisted() -> Iterator[None]:
    """The term reaches the disk, the vote does not: a restarted node votes again."""
    original = Wal.append

    def append(self: Wal, hard_state: HardState | None, entries: Sequence[Entry]) -> DiskTask[None]:
        if hard_state is not None and hard_state.term > 1:  # a founder needs its own vote
            hard_state = HardState(hard_state.term, None, hard_state.commit)
        return original(self, hard_state, entries)

    with patch.object(Wal, "append", append):
        yield


@contextmanager
def answer_before_fsync() -> Iterator[None]:
    """Votes and acknowledgements leave when the write starts instead of when it is durable."""
    original = Node._start_write

    def start_write(self: Node, core: Core, write: Write) -> None:
        for message in write.messages:
            self._send(message.receiver, message)
        original(self, core, Write(write.number, write.hard_state, write.entries, []))

    with patch.object(Node, "_start_write", start_write):
        yield


@contextmanager
def commit_of_old_term() -> Iterator[None]:
    """A leader commits whatever a majority holds (paper fig. 8)."""

    def advance_commit(self: Raft, leader: Leader) -> None:
        index = self.quorum.agreed_value(lambda voter: leader.progress[voter].match)
        if leader.is_founding or index <= self.log.commit:
            return original(self, leader)
        committed = self.log.entries(self.log.commit + 1, index + 1)
        leader.uncommitted_bytes -= sum(len(entry.data) for entry in committed)
        leader.has_news = True
        self.log.commit_to(index)
        membership.leave_joint(self, leader)
        return None

    original = Raft.advance_commit
    with patch.object(Raft, "advance_commit", advance_commit):
        yield


@contextmanager
def applied_before_it_is_committed() -> Iterator[None]:
    """What is durable here is applied, whether a quorum holds it or not."""

    def take_applicable(self: RaftLog, bytes_max: int) -> tuple[Entry, ...]:
        if self.applied != self.applying or self.applying >= self.durable:
            return ()
        entries = self.entries_within(self.applying + 1, self.durable, bytes_max)
        self.applying = entries[-1].index
        return entries

    with patch.object(RaftLog, "take_applicable", take_applicable):
        yield


@contextmanager
def late_append_truncates() -> Iterator[None]:
    """A follower takes every Append at its word, also below what is committed."""

    def on_append(raft: Raft, message: Append) -> None:
        log = raft.log
        if not raft.follow(message.sender):
            return
        if log.term_of(message.prev_index) != message.prev_term:
            replication._reject(raft, message)
            return
        if message.entries and message.prev_index >= log.applied:
            log.commit = min(log.commit, message.prev_index)
            if message.entries[0].index <= log.last_index:
                log.truncate(message.entries[0].index)
            log.append(message.entries)
            raft.configuration_may_have_changed()
        match = message.prev_index + len(message.entries)
        raft.commit_to(min(message.commit, match))
        raft.accept(message, match)

    with patch.object(replication, "on_append", on_append):
        yield


def _quorum_of(halves: Callable[[ConfState], tuple[tuple[NodeId, ...], ...]]) -> Mutant:
    """A quorum that is counted otherwise."""

    @contextmanager
    def mutant() -> Iterator[None]:
        def of(conf: ConfState) -> Quorum:
            return Quorum(tuple(half for half in halves(conf) if half))

        with patch.object(Quorum, "of", of):
            yield

    return mutant


@contextmanager
def configuration_applied_twice() -> Iterator[None]:
    """A configuration is in force when it is appended, and again when it is applied."""
    original = RaftLog.applied_to

    def applied_to(self: RaftLog, index: Index) -> None:
        if self.base.index <= self.applied < index:
            self._configurations.append(self.entries(self.applied + 1, index + 1))
        original(self, index)

    with patch.object(RaftLog, "applied_to", applied_to):
        yield


@contextmanager
def snapshot_without_the_configuration() -> Iterator[None]:
    """A snapshot holds the state and forgets who the members are."""

    def make(**values: Any) -> SnapshotMeta:
        return SnapshotMeta(**values | {"config_index": 0, "conf": ConfState()})

    with patch.object(snapshots, "SnapshotMeta", make):
        yield


@contextmanager
def snapshot_without_idempotency_records() -> Iterator[None]:
    """A snapshot holds all tables but those that say what was done already."""
    original = Tables.encode

    def encode(self: Tables) -> bytes:
        without = Tables()
        for table in Table:
            if table not in (Table.ONCE, Table.ONCE_END):
                without.tables[table].update(self.tables[table])
        without.history.update(self.history)
        return original(without)

    with patch.object(Tables, "encode", encode):
        yield


@contextmanager
def tokens_repeat_after_a_snapshot() -> Iterator[None]:
    """Who installs a snapshot gives revisions, and so fencing tokens, that were given before."""
    original = Tables.decode

    def decode(data: bytes) -> Tables:
        tables = original(data)
        meta = decode_meta(tables.tables[Table.META][META_KEY])
        meta = replace(meta, revision=max(0, meta.revision - 3))
        tables.tables[Table.META][META_KEY] = encode_meta(meta)
        return tables

    with (
        patch.object(Tables, "decode", decode),
        patch.object(snapshots, "_check_installed", lambda _store, _info: None),
    ):
        yield


@contextmanager
def forwarded_write_sent_again() -> Iterator[None]:
    """When the connection to the leader breaks, what was sent over it is sent to the next."""

    def on_peer_down(self: Requests, event: PeerDown) -> None:
        self._connected.discard(event.peer)
        for write in self.writes.lose_peer(event.peer):
            self._hold_again(write)

    with patch.object(Requests, "on_peer_down", on_peer_down):
        yield


@contextmanager
def read_before_it_is_applied() -> Iterator[None]:
    """A confirmed read is answered at once, whatever this node has applied."""
    original = Reads.take_ready

    def take_ready(self: Reads, _applied: Index, revision: int) -> list[ReadRequest]:
        return original(self, 1 << 62, revision)

    with patch.object(Reads, "take_ready", take_ready):
        yield


@contextmanager
def watch_resumes_one_late() -> Iterator[None]:
    """Who follows the changes from a revision on misses the first one."""

    def read(engine: Engine, store_revision: int, wanted: ChangesAfter) -> Changes:
        after = min(wanted.revision + 1, store_revision)
        return read_changes(engine, store_revision, replace(wanted, revision=after))

    with patch.object(queries, "read_changes", read):
        yield


@contextmanager
def lease_ends_early_after_an_election() -> Iterator[None]:
    """A new leader stamps all the time since it led last, or since its machine was booted."""
    original = LogClock.lead

    def lead(self: LogClock, term: int, now: float) -> bool:
        seen_at = self._seen_at
        is_new = original(self, term, now)
        if is_new:
            self.unstamped_seconds = now - seen_at
        return is_new

    with patch.object(LogClock, "lead", lead):
        yield


@contextmanager
def failed_sync_taken_for_done() -> Iterator[None]:
    """A disk that says EIO is believed to have written all the same."""
    original = DiskTasks.complete

    def complete(self: DiskTasks, event: DiskDone) -> None:
        results = event.results
        if isinstance(results, DiskError) and isinstance(results.op, Fdatasync):
            event = DiskDone(event.submission, [None] * 8)
        original(self, event)

    with patch.object(DiskTasks, "complete", complete):
        yield


@contextmanager
def damage_cut_as_a_torn_tail() -> Iterator[None]:
    """Recovery ends the log at the first bad frame, and does not look behind it."""
    with patch.object(recovery, "find_later_frame", lambda *_, **__: None):
        yield


@contextmanager
def stale_read() -> Iterator[None]:
    """A leader answers reads without asking a quorum whether it still leads."""

    def take_confirmed(self: ReadRounds, _confirmed: int) -> list[ReadRound]:
        rounds = list(self._under_way)
        self._under_way.clear()
        return rounds

    with patch.object(ReadRounds, "take_confirmed", take_confirmed):
        yield


@contextmanager
def applied_index_outside_the_transaction() -> Iterator[None]:
    """The applied index reaches the engine one slice after its effects (etcd's 3.5 bug)."""
    original = Store.apply

    def apply(self: Store, entries: Sequence[Entry]) -> list[AppliedEntry]:
        before = self._meta
        applied = original(self, entries)
        with self.engine.write() as writer:
            writer.put(Table.META, META_KEY, encode_meta(before))
        return applied

    with patch.object(Store, "apply", apply):
        yield


@contextmanager
def retry_done_again() -> Iterator[None]:
    """An idempotency key is stored, but nobody looks."""
    with patch.object(idempotency, "recall", lambda _slice, _once: None):
        yield


@contextmanager
def fence_without_a_lock() -> Iterator[None]:
    """A write fenced by any token is done."""
    with patch.object(locks, "is_held", lambda _slice, _name, _token: True):
        yield


@contextmanager
def lock_outlives_its_lease() -> Iterator[None]:
    """The end of a lease passes its lock on, but leaves it in the hands of its holder too."""

    def pass_on(slice_: Slice, name: bytes) -> None:
        slice_.grants.append(LockGrant(name, 0, slice_.revision, 1))

    with patch.object(leases, "pass_on", pass_on):
        yield


@contextmanager
def log_time_runs_ahead() -> Iterator[None]:
    """Every stamp counts twice: leases end before their ttl is over."""
    original = Slice.after

    def after(self: Slice, duration_ms: int) -> int:
        is_stamp = duration_ms < sessions.TTL_MS // 2
        return original(self, 2 * duration_ms if is_stamp else duration_ms)

    with patch.object(Slice, "after", after):
        yield


@contextmanager
def change_answered_when_appended() -> Iterator[None]:
    """A membership change is confirmed before it is committed."""

    def follow(self: Orders, change: _Change, _raft: RawNode) -> None:
        self._forget(change)
        self._settle(change.order, ConfigChanged(change.entry.index))

    with patch.object(Orders, "_follow_change", follow):
        yield


MUTANTS: dict[str, Mutant] = {
    mutant.__name__: mutant
    for mutant in (
        vote_not_persisted,
        answer_before_fsync,
        commit_of_old_term,
        applied_before_it_is_committed,
        late_append_truncates,
        configuration_applied_twice,
        snapshot_without_the_configuration,
        snapshot_without_idempotency_records,
        tokens_repeat_after_a_snapshot,
        forwarded_write_sent_again,
        stale_read,
        read_before_it_is_applied,
        watch_resumes_one_late,
        lease_ends_early_after_an_election,
        failed_sync_taken_for_done,
        damage_cut_as_a_torn_tail,
        applied_index_outside_the_transaction,
        retry_done_again,
        fence_without_a_lock,
        lock_outlives_its_lease,
        log_time_runs_ahead,
        change_answered_when_appended,
    )
} | {
    "learner_counts_in_the_quorum": _quorum_of(
        lambda conf: ((*conf.voters, *conf.learners), conf.voters_outgoing)
    ),
    "joint_quorum_is_ignored": _quorum_of(lambda conf: (conf.voters,)),
}


def hunt(
    mutant: Mutant, seeds_max: int = SEEDS_MAX, first_seed: int = 1, length: Length = STANDARD
) -> str | None:
    """What the first random seed says that finds the bug; None if it survives them all."""
    with mutant():
        for seed in range(first_seed, first_seed + seeds_max):
            try:
                run(seed, length)
            except InvariantError as error:
                return str(error).splitlines()[0]
    return None


def _hunt_named(name: str, first: int, length: str) -> str | None:
    return hunt(MUTANTS[name], first_seed=first, length=LENGTHS[length])


@click.command()
@click.option("--only", default="", help="Some of them, by their names, with commas in between.")
@click.option("--first", default=1, show_default=True, help="The first seed.")
@click.option("--length", type=click.Choice(list(LENGTHS)), default="standard", show_default=True)
@click.option("--jobs", default=2, show_default=True, help="Processes.")
def main(only: str, first: int, length: str, jobs: int) -> None:
    """Hunt every mutant."""
    survivors = 0
    names = only.split(",") if only else list(MUTANTS)
    with ProcessPoolExecutor(jobs) as pool:
        hunts = {pool.submit(_hunt_named, name, first, length): name for name in names}
        for done in as_completed(hunts):
            death = done.result()
            survivors += death is None
            click.echo(f"{hunts[done]}: {death or f'SURVIVED {SEEDS_MAX} seeds'}")
    click.echo(f"{len(names) - survivors} passed, {survivors} failed")
    if survivors:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
