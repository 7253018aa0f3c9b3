"""What the leader proposes by itself (node design, rules 21 and 25)."""

from typing import Any

from msgspec import structs

from raftkv.kv.commands import (
    Command,
    Compact,
    Expire,
    GrantLease,
    Put,
    Stamp,
    Sweep,
    decode_command,
    encode_command,
    join_batch,
)
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.store import Store
from raftkv.node.settings import NodeSettings
from raftkv.node.upkeep import REVISIONS_MAX, UNDER_WAY_MAX, Chores, Upkeep
from raftkv.raft import Entry, EntryType

TICK = 0.02
LEASE_TTL_MS = 1000


class Leader:
    """A leader whose entries are applied when the test says so."""

    def __init__(self, history_keep_ms: int = 0) -> None:
        settings = NodeSettings("n1", "n1:1", "http://n1", "test", history_keep_ms=history_keep_ms)
        self.upkeep = Upkeep(settings)
        self.store = Store(MemoryEngine())
        self.now = 0.0
        self.term = 1
        self.turn()

    def turn(self, seconds: float = 0.0, *, has_batch: bool = False) -> Chores:
        """A turn with a tick, after so much time."""
        self.now += seconds
        self.upkeep.tick()
        raft: Any = self
        return self.upkeep.chores(raft, self.store, self.now, has_batch=has_batch)

    def commands(self, seconds: float = 0.0, *, has_batch: bool = False) -> list[Command]:
        """What it wants to propose."""
        chores = self.turn(seconds, has_batch=has_batch)
        return [decode_command(command) for command in chores.commands]

    def apply(self, *commands: Command) -> None:
        """An entry of these."""
        data = join_batch([encode_command(command) for command in commands])
        index = self.store.applied_index + 1
        self.store.apply([Entry(self.term, index, EntryType.NORMAL, data)])
        self.upkeep.applied(self.store)

    def pass_time(self, seconds: float) -> None:
        """Let it propose and apply what it wants, tick by tick."""
        for _ in range(round(seconds / TICK)):
            chores = self.turn(TICK)
            if not chores.is_empty:
                self.upkeep.proposed(chores, self.store.applied_index + 1)
                self.apply(*[decode_command(command) for command in chores.commands])


def test_rule_21_a_stamp_leads_a_batch_when_a_tick_has_passed_since_the_last() -> None:
    leader = Leader()
    assert leader.commands(TICK / 2, has_batch=True) == []
    chores = leader.turn(TICK / 2 + 0.0015, has_batch=True)
    assert [decode_command(command) for command in chores.commands] == [Stamp(21)]
    # Dropped by the core, its time is not lost.
    leader.upkeep.dropped(chores)
    chores = leader.turn(0.009, has_batch=True)
    assert [decode_command(command) for command in chores.commands] == [Stamp(30)]
    leader.upkeep.proposed(chores, 1)
    assert leader.commands(0.019, has_batch=True) == []


def test_rule_21_log_time_passes_without_writes_only_if_something_ends_by_it() -> None:
    leader = Leader()
    for _ in range(100):
        assert leader.commands(TICK) == []
    leader.apply(Stamp(5), GrantLease(60_000, 10))
    leader.upkeep.proposed(Chores(stamp_ms=2000), 1)
    stamped = [command for _ in range(100) for command in leader.commands(TICK)][:1]
    assert stamped == [Stamp(500)]


def test_rule_21_a_lease_ends_by_a_proposed_expire_and_never_early() -> None:
    leader = Leader()
    leader.apply(GrantLease(LEASE_TTL_MS, 10))
    leader.pass_time(LEASE_TTL_MS / 1000)
    assert leader.store.lease_count == 1
    leader.pass_time(0.6)  # an idle stamp later
    assert leader.store.lease_count == 0


def test_rule_21_a_new_leader_counts_from_its_election() -> None:
    leader = Leader()
    leader.apply(GrantLease(LEASE_TTL_MS, 10))
    for _ in range(20):
        leader.turn(TICK)  # 400 ms that it never stamped
        leader.term += 1
        leader.turn(TICK)
    leader.pass_time(0.9)
    assert leader.store.lease_count == 1
    assert leader.store.log_time_ms <= 900


def test_rule_21_what_is_under_way_is_not_proposed_again_until_it_is_applied() -> None:
    leader = Leader()
    for _ in range(UNDER_WAY_MAX + 10):
        leader.apply(GrantLease(1, 10))
    leader.apply(Stamp(10_000))
    chores = leader.turn()
    first = [decode_command(command) for command in chores.commands]
    assert len(first) == UNDER_WAY_MAX
    assert all(isinstance(command, Expire) for command in first)
    leader.upkeep.proposed(chores, leader.store.applied_index + 1)
    assert leader.commands() == []
    leader.apply(*first)
    assert len(leader.commands()) == 10
    # A new leader does not know what the last one proposed.
    leader.term += 1
    assert len(leader.commands()) == 10


def test_rule_25_history_is_forgotten_when_it_was_kept_for_its_time() -> None:
    leader = Leader(history_keep_ms=32_000)
    for number in range(100):
        leader.apply(Stamp(1000), Put(b"k", b"%d" % number))
        for command in leader.commands():
            leader.apply(command)
            if isinstance(command, Compact):
                # A second a revision: those of the last 32 s stay.
                assert 0 <= number + 1 - command.revision - 32 <= 1
    assert 60 < leader.store.compacted_revision <= 68


def test_rule_25_what_is_compacted_is_swept_bit_by_bit() -> None:
    leader = Leader()
    for number in range(500):
        leader.apply(Put(b"k", b"%d" % number))
    full_bytes = leader.store.logical_bytes
    leader.apply(Compact(500))
    assert leader.commands() == [Sweep(200)]
    leader.pass_time(0.2)
    assert leader.store.logical_bytes < full_bytes / 100
    assert leader.commands() == []


def test_rule_25_history_is_bounded_also_in_revisions() -> None:
    leader = Leader(history_keep_ms=600_000)
    leader.store._meta = structs.replace(leader.store._meta, revision=REVISIONS_MAX + 25_000)
    assert leader.commands() == [Compact(20_000)]


def test_rule_25_zero_keeps_history_for_ever() -> None:
    leader = Leader(history_keep_ms=0)
    for number in range(100):
        leader.apply(Stamp(1_000_000), Put(b"k", b"%d" % number))
        assert leader.commands() == []
