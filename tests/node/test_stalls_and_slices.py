"""What a node does when its disk stalls or fails, and how it shares the loop with others."""

from collections.abc import Iterable

import pytest

from raftkv.kv.commands import DeleteRange, Put, encode_command
from raftkv.kv.memory_engine import MemoryEngineFactory
from raftkv.node.events import (
    Advanced,
    BootstrapRequest,
    CancelRequest,
    Consistency,
    Continue,
    DiskDone,
    DrainRequest,
    Effect,
    Event,
    Get,
    ReadRequest,
    Reply,
    Stop,
    SubmitDisk,
    Tick,
    WriteRequest,
)
from raftkv.node.node import Node
from raftkv.node.settings import NodeSettings
from raftkv.raft.messages import Member
from raftkv.storage.disk import DiskError, Fdatasync
from tests.simulation.cluster import Machine, Process
from tests.simulation.disk import SimDisk
from tests.simulation.scenarios import Script
from tests.simulation.world import World

SETTINGS = NodeSettings(
    name="n1",
    peer_url="n1:1",
    client_url="http://n1",
    version="test",
    segment_bytes=1 << 20,
    slice_commands_max=100,
)


class Alone:
    """A cluster of one node, whose disk answers only when it is told to."""

    def __init__(self, seed: int = 1) -> None:
        self.disk = SimDisk()
        self.now = 0.0
        self.waiting: list[SubmitDisk] = []
        self.effects: list[Effect] = []
        self.node = Node(SETTINGS, MemoryEngineFactory(), World(seed).rng)
        self._take(self.node.start(self.now))
        self.settle()
        identity = self.node.identity
        assert identity is not None
        member = Member(identity.member_id, "n1", "n1:1", "http://n1")
        self.handle(BootstrapRequest(1, "c1", (member,)))
        self.settle()
        self.effects.clear()

    def handle(self, *events: Event) -> None:
        """One turn."""
        self._take(self.node.handle(events, self.now))

    def settle(self) -> None:
        """Let the disk do everything it was asked."""
        while self.waiting:
            self.complete()

    def complete(self) -> None:
        """Let the disk do what it was asked first."""
        submission = self.waiting.pop(0)
        self.handle(DiskDone(submission.submission, self.disk.perform(submission.ops)))

    def _take(self, effects: Iterable[Effect]) -> None:
        effects = list(effects)
        self.effects += effects
        self.waiting += [effect for effect in effects if isinstance(effect, SubmitDisk)]

    def stops(self) -> list[str]:
        """Why the node gave up, if it did."""
        return [effect.reason for effect in self.effects if isinstance(effect, Stop)]


def _write(number: int) -> WriteRequest:
    return WriteRequest(number, encode_command(Put(b"k%d" % number, b"v")), 100.0)


def test_rule_12_a_disk_that_stalls_for_twenty_seconds_ends_the_process() -> None:
    alone = Alone()
    alone.handle(_write(1))
    assert len(alone.waiting) == 1
    alone.now += 19.9
    alone.handle(Tick())
    assert alone.stops() == []
    alone.now += 0.2
    alone.handle(Tick())
    assert alone.stops() == ["the disk has not finished a write for 20 s"]


def test_rule_12_a_pause_of_the_whole_process_is_no_stall_of_its_disk() -> None:
    """The tick may come ahead of the completion that waited meanwhile."""
    alone = Alone()
    alone.handle(_write(1))
    submission = alone.waiting.pop()
    results = alone.disk.perform(submission.ops)
    alone.now += 60.0
    alone.handle(Tick(), DiskDone(submission.submission, results))
    assert alone.stops() == []


def test_rule_12_a_leader_whose_disk_stalls_hands_leadership_on() -> None:
    script = Script(seed=1, size=3)
    leader = script.elected(script.cluster.machines)
    others = [machine for machine in script.cluster.machines if machine is not leader]
    submit = script.cluster._submit

    def stall(machine: Machine, process: Process, submission: SubmitDisk) -> None:
        if machine is not leader:
            submit(machine, process, submission)

    script.cluster._submit = stall  # type: ignore[method-assign]
    stalled_at = script.world.now
    script.write(leader)
    successor = script.elected(others)
    assert 3.0 < script.world.now - stalled_at < 4.0
    assert script.raft(successor).term == script.raft(leader).term


def test_rule_05_the_first_failed_fsync_ends_the_process() -> None:
    alone = Alone()
    alone.handle(_write(1))
    submission = alone.waiting.pop()
    sync = next(op for op in submission.ops if isinstance(op, Fdatasync))
    alone.handle(DiskDone(submission.submission, DiskError(sync, 5, "Input/output error")))
    (reason,) = alone.stops()
    assert "fdatasync failed: Input/output error" in reason
    alone.effects.clear()
    alone.handle(_write(2), Tick())
    alone.handle(DrainRequest(3, draining=True))
    assert alone.effects == []


def test_rule_04_requests_that_come_during_a_write_share_the_next_one() -> None:
    alone = Alone()
    alone.handle(_write(1))
    for number in range(2, 50):
        alone.handle(_write(number))
    assert len(alone.waiting) == 1
    alone.complete()
    assert len(alone.waiting) == 1
    alone.complete()
    assert alone.waiting == []


def test_rule_26_apply_runs_in_slices_that_give_the_loop_back() -> None:
    alone = Alone()
    alone.handle(*[_write(number) for number in range(1, 1001)])
    alone.settle()
    turns = 0
    while any(isinstance(effect, Continue) for effect in alone.effects):
        answered = sum(isinstance(effect, Reply) for effect in alone.effects)
        alone.effects.clear()
        # A slice ends with the entry that fills it, and an entry has at most 256 commands.
        assert answered <= SETTINGS.slice_commands_max + SETTINGS.batch_commands_max
        alone.handle()
        turns += 1
    assert turns >= 3
    status = alone.node.status(alone.now)
    assert (status.revision, status.keys) == (1000, 1000)


def test_rule_26_heavy_requests_that_come_together_are_slices_of_their_own() -> None:
    alone = Alone()
    alone.handle(*[_write(number) for number in range(1, 2001)])
    alone.settle()
    while alone.node.status(alone.now).revision < 2000:
        alone.handle()
    delete = encode_command(DeleteRange(b"", None, 10_000))
    put = encode_command(Put(b"a", b""))
    alone.effects.clear()
    alone.handle(*[WriteRequest(3000 + n, (delete, put)[n % 2], 100.0) for n in range(4)])
    alone.settle()
    answered = []
    while True:
        answered.append([e.id for e in alone.effects if isinstance(e, Reply)])
        if not any(isinstance(effect, Continue) for effect in alone.effects):
            break
        alone.effects.clear()
        alone.handle()
    # The first deletes two thousand keys, the next one.
    assert answered == [[3000], [3001, 3002, 3003]]


@pytest.mark.parametrize("consistency", [Consistency.LINEARIZABLE, Consistency.LOCAL])
def test_rule_26_large_answers_are_found_a_few_in_a_turn(consistency: Consistency) -> None:
    alone = Alone()
    put = encode_command(Put(b"large", bytes(1 << 19)))
    alone.handle(WriteRequest(1, put, 100.0))
    alone.settle()
    alone.handle(Tick())  # what it asked before it led is asked again
    alone.effects.clear()
    alone.handle(*[ReadRequest(n, Get(b"large"), consistency, 0, 100.0) for n in range(10, 60)])
    alone.handle(CancelRequest(50))
    turns = [[effect.id for effect in alone.effects if isinstance(effect, Reply)]]
    while any(isinstance(effect, Continue) for effect in alone.effects):
        alone.effects.clear()
        alone.handle()
        turns.append([effect.id for effect in alone.effects if isinstance(effect, Reply)])
    assert [len(turn) for turn in turns] == [6, *[3] * 14, 1]
    answered = [number for turn in turns for number in turn]
    assert answered == [number for number in range(10, 60) if number != 50]


def test_the_host_is_told_once_a_turn_how_far_the_store_has_come() -> None:
    alone = Alone()
    alone.handle(*[_write(number) for number in range(1, 51)])
    alone.settle()
    told = [effect.revision for effect in alone.effects if isinstance(effect, Advanced)]
    assert told == [50]
    alone.effects.clear()
    alone.handle(Tick())
    assert not any(isinstance(effect, Advanced) for effect in alone.effects)
