"""Seeded bugs that the simulation must find: proof that its checkers can fail.

Each mutant is the real code with one rule broken, the way a hasty change would break it. `make
mutants` runs seeds until every mutant is dead, and prints which seed killed it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import click

from raftkv.kv import idempotency, leases, locks
from raftkv.kv.engine import Table
from raftkv.kv.outcomes import LockGrant
from raftkv.kv.records import META_KEY, encode_meta
from raftkv.kv.slice import Slice
from raftkv.kv.store import AppliedEntry, Store
from raftkv.node.messages import ConfigChanged
from raftkv.node.node import Core, Node
from raftkv.node.orders import Orders, _Change
from raftkv.raft.durability import Write
from raftkv.raft.messages import Entry, HardState
from raftkv.raft.raft import Raft
from raftkv.raft.rawnode import RawNode
from raftkv.raft.read_only import ReadRound, ReadRounds
from raftkv.raft.roles import Leader
from raftkv.storage.disk import DiskTask
from raftkv.storage.wal import Wal
from tests.simulation import sessions
from tests.simulation.checkers import InvariantError
from tests.simulation.run import run
from tests.simulation.scenarios import SCENARIOS

SEEDS_MAX = 200
EVENTS = 20_000

Mutant = Callable[[], AbstractContextManager[None]]


@contextmanager
def vote_not_persisted() -> Iterator[None]:
    """The term reaches the disk, the vote does not: a restarted node votes again."""
    original = Wal.append

    def append(self: Wal, hard_state: HardState | None, entries: Sequence[Entry]) -> DiskTask[None]:
        if hard_state is not None:
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
        return None

    original = Raft.advance_commit
    with patch.object(Raft, "advance_commit", advance_commit):
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
        stale_read,
        applied_index_outside_the_transaction,
        retry_done_again,
        fence_without_a_lock,
        lock_outlives_its_lease,
        log_time_runs_ahead,
        change_answered_when_appended,
    )
}


def hunt(
    mutant: Mutant, seeds_max: int = SEEDS_MAX, events: int = EVENTS, first_seed: int = 1
) -> str | None:
    """What first finds the bug: a scenario, else a seed. None if it survives them all."""
    with mutant():
        for name, scenario in SCENARIOS.items():
            try:
                scenario(1)
            except InvariantError as error:
                return f"scenario {name}: {error}"
        for seed in range(first_seed, first_seed + seeds_max):
            try:
                run(seed, events)
            except InvariantError as error:
                return str(error).splitlines()[0]
    return None


@click.command()
def main() -> None:
    """Hunt every mutant."""
    survivors = 0
    for name, mutant in MUTANTS.items():
        death = hunt(mutant)
        if death is None:
            survivors += 1
            click.echo(f"{name}: SURVIVED {SEEDS_MAX} seeds")
        else:
            click.echo(f"{name}: {death}")
    click.echo(f"{len(MUTANTS) - survivors} passed, {survivors} failed")
    if survivors:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
