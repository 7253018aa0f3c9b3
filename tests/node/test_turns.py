"""What a turn does first, what it puts off, and what it does not do at all."""

from collections.abc import Iterable

from typing_extensions import override

from raftkv.kv.commands import Put, encode_command, join_batch
from raftkv.node.commit_news import CommitNews
from raftkv.node.events import (
    Continue,
    DiskDone,
    Effect,
    FrameReceived,
    Reply,
    SubmitDisk,
    TellCommitSoon,
    Tick,
    WriteRequest,
)
from raftkv.node.messages import PeerFrame
from raftkv.raft import Append, AppendResp, Entry, EntryType, Heartbeat
from raftkv.raft.rawnode import RawNode
from tests.node.test_joining import LEADER, Empty
from tests.node.test_stalls_and_slices import Alone
from tests.simulation.cluster import Machine
from tests.simulation.scenarios import Script


def write(number: int) -> WriteRequest:
    return WriteRequest(number, encode_command(Put(b"k%d" % number, b"v")), 100.0)


def test_rule_04_the_disk_begins_before_what_is_committed_is_applied() -> None:
    alone = Alone()
    alone.handle(write(1))
    alone.handle(write(2))
    done = DiskDone(alone.waiting[0].submission, alone.disk.perform(alone.waiting.pop(0).ops))
    # Each effect with the store's revision when it came.
    seen = [
        (type(effect), alone.node.status(alone.now).revision)
        for effect in alone.node.handle([done], alone.now)
    ]
    assert [item for item in seen if item[0] in (SubmitDisk, Reply)] == [
        (SubmitDisk, 0),
        (Reply, 1),
    ]


# ---- a follower -----------------------------------------------------------------------------


class Follower(Empty):
    """One of three, with the founding entry; the test is the leader."""

    def __init__(self) -> None:
        super().__init__()
        self.hear(self.append())
        self.settle()
        self.sent.clear()

    @property
    def must_continue(self) -> bool:
        """Whether the last turn asked for another one."""
        return isinstance(self.last_effect, Continue)

    @override
    def _take(self, effects: Iterable[Effect]) -> None:
        effects = list(effects)
        self.last_effect = next((e for e in effects if isinstance(e, Continue)), None)
        super()._take(effects)

    @property
    def raft(self) -> RawNode:
        assert self.node.core is not None
        return self.node.core.raft

    def entry(self, index: int, commit: int) -> None:
        """The leader sends an entry, and tells of a commit."""
        put = encode_command(Put(b"k", b"v"))
        entry = Entry(1, index, EntryType.NORMAL, join_batch([put]))
        self.hear(Append(LEADER, self.id, 1, 1, 1, index - 1, commit, (entry,)))

    def acknowledged(self) -> list[int]:
        return [message.match for message in self.sent if isinstance(message, AppendResp)]


def test_a_follower_acknowledges_before_it_applies() -> None:
    node = Follower()
    node.entry(2, commit=1)
    node.settle()
    node.entry(3, commit=2)
    assert (node.raft.commit_index, node.raft.applied_index) == (2, 1)
    node.settle()
    assert node.raft.applied_index == 2
    assert node.acknowledged() == [2, 3]


def test_to_apply_is_put_off_once_and_no_longer_whatever_the_disk_does() -> None:
    node = Follower()
    node.entry(2, commit=1)
    node.settle()
    node.entry(3, commit=2)
    assert node.raft.applied_index == 1
    node.handle(Tick())
    assert node.raft.applied_index == 2
    assert node.waiting
    assert node.acknowledged() == [2]


def test_a_backlog_is_put_off_once_and_then_applied_slice_by_slice() -> None:
    node = Follower()
    for index in range(2, 302):
        node.entry(index, commit=1)
    node.settle()
    node.entry(302, commit=301)
    assert node.raft.applied_index == 1
    turns = 0
    node.handle(Tick())
    while node.must_continue:
        node.handle()
        turns += 1
    assert turns >= 2
    assert node.raft.applied_index == 301
    assert node.waiting  # the disk has not answered all the while


# ---- a leader -------------------------------------------------------------------------------


def test_news_of_a_commit_travel_with_what_is_next() -> None:
    effects: list[Effect] = []
    news = CommitNews(0.5, effects.append)
    first, second = (Append(1, peer, 1, 1, 1, 5, 5, ()) for peer in (2, 3))
    newer = Append(1, 2, 1, 1, 1, 6, 6, ())
    for message in (first, second, newer):
        news.hold(message)
    assert effects == [TellCommitSoon(0.5)]
    assert news.take(3) == second
    assert news.take(3) is None
    assert news.take_all() == [newer]
    assert news.take_all() == []
    news.hold(first)
    assert effects == [TellCommitSoon(0.5)] * 2


def applied(script: Script, machine: Machine) -> int:
    return script.raft(machine).applied_index


def test_followers_apply_a_lone_write_within_milliseconds() -> None:
    script = Script(seed=3, size=3)
    leader = script.elected(script.voters)
    script.write(leader)
    index = script.raft(leader).commit_index
    began = script.world.now
    script.until(lambda: all(applied(script, m) == index for m in script.voters), "all to apply")
    assert script.world.now - began < 0.02


def test_an_acknowledgement_from_which_nothing_follows_waits_for_the_next_turn() -> None:
    script = Script(seed=3, size=3)
    leader = script.elected(script.voters)
    follower = next(machine for machine in script.voters if machine is not leader)
    assert leader.process is not None
    assert leader.member_id is not None
    assert follower.member_id is not None
    raft, node = script.raft(leader), leader.process.node
    session = raft.progress[follower.member_id].session

    def may_wait(*messages: AppendResp | Heartbeat) -> bool:
        frame = PeerFrame("c0ffee", follower.member_id or 0, leader.member_id or 0, messages)
        return node.may_wait(FrameReceived(frame))

    ends = follower.member_id, leader.member_id, raft.term
    last = raft.last_index
    accepted = AppendResp(*ends, session, last)
    assert may_wait(accepted)
    assert not may_wait(AppendResp(*ends, session, 0, last))
    assert not may_wait(accepted, accepted)
    assert not may_wait(Heartbeat(*ends, session, last, 1))
    assert not node.may_wait(Tick())
    # Something is not committed: now it counts.
    raft.propose(b"x")
    assert not may_wait(accepted)
