"""Requests between nodes: what a leader refuses, and what a follower makes of its answers."""

from typing import Any

from raftkv.kv.commands import Command, Delete, Once, Put, Stamp, decode_batch, encode_command
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import Replayed, Written, encode_outcome
from raftkv.kv.store import Store
from raftkv.node.events import (
    Answer,
    Consistency,
    Get,
    PeerUp,
    ReadRequest,
    ReadResult,
    Stale,
    WriteRequest,
)
from raftkv.node.messages import (
    Failure,
    FailureCode,
    ForwardReplies,
    ForwardWrites,
    PeerMessage,
    RequestId,
)
from raftkv.node.requests import Outlook, Requests
from raftkv.node.settings import NodeSettings
from raftkv.raft import Entry, EntryType, NodeId, Role
from raftkv.raft.messages import EntryId

LEADER, FOLLOWER = 7, 8
COMMAND = encode_command(Put(b"k", b"v"))


class FakeRaft:
    """A core as `Requests` sees it: follows, or leads and takes nothing."""

    role = Role.FOLLOWER
    leader_id: NodeId | None = LEADER


class Harness:
    """Requests of a node that knows a leader and is connected to it."""

    def __init__(self, **changes: Any) -> None:
        settings = NodeSettings("n1", "n1:1", "http://n1", "test", **changes)
        self.answers: dict[RequestId, Answer] = {}
        self.sent: list[tuple[NodeId, PeerMessage]] = []
        self.raft: Any = FakeRaft()
        self.store = Store(MemoryEngine())
        self.now = 0.0
        self.requests = Requests(
            settings,
            incarnation=99,
            first_context=1,
            answer=self._answer,
            send=lambda peer, message: self.sent.append((peer, message)),
        )
        self.requests.on_peer_up(PeerUp(LEADER))

    def _answer(self, request: RequestId, answer: Answer) -> None:
        assert request not in self.answers, "a second answer"
        self.answers[request] = answer

    def write(self, number: RequestId, command: bytes = COMMAND) -> None:
        """A client's write, given to the leader."""
        self.requests.on_write(WriteRequest(number, command, deadline=5.0))
        self.offer()

    def offer(self) -> None:
        """The part of a turn that gives writes to the leader."""
        self.requests.offer_writes(self.raft, self.store, self.now)

    def forwarded(self) -> list[list[RequestId]]:
        """The ids of every message with writes that was sent."""
        messages = [message for _, message in self.sent if isinstance(message, ForwardWrites)]
        return [[number for number, _ in message.writes] for message in messages]

    def reply(self, number: RequestId, reply: bytes | int | None, sender: NodeId = LEADER) -> None:
        """The leader, or who takes itself for it, answers."""
        self.requests.on_forward_replies(sender, ForwardReplies(99, ((number, reply),)))

    def code(self, number: RequestId) -> FailureCode:
        """Why a request was refused."""
        answer = self.answers[number]
        assert isinstance(answer, Failure)
        return answer.code


def _replies(harness: Harness) -> list[bytes | int | None]:
    harness.requests.flush_replies()
    messages = [message for _, message in harness.sent if isinstance(message, ForwardReplies)]
    return [reply for message in messages for _, reply in message.replies]


def test_a_full_leader_refuses_forwarded_writes_for_good() -> None:
    """Given back, they would be sent again at once, and keep both nodes busy."""
    leader = Harness(pending_requests_max=1)
    frame = ForwardWrites(5, ((1, COMMAND), (2, COMMAND)))
    leader.requests.on_forward(FOLLOWER, frame, 0.0, is_leader=True)
    assert _replies(leader) == [FailureCode.OVERLOADED]


def test_what_is_no_command_never_reaches_the_log() -> None:
    leader = Harness()
    frame = ForwardWrites(5, ((1, b"\xc1"), (2, b""), (3, encode_command(Stamp(1000)))))
    leader.requests.on_forward(FOLLOWER, frame, 0.0, is_leader=True)
    assert _replies(leader) == [FailureCode.INVALID] * 3
    assert len(leader.requests) == 0


def test_a_write_that_was_given_back_goes_to_the_same_leader_only_after_a_tick() -> None:
    node = Harness()
    node.write(1)
    node.reply(1, None)
    node.offer()
    assert node.forwarded() == [[1]]
    node.requests.tick(node.now)
    node.offer()
    assert node.forwarded() == [[1], [1]]
    assert node.answers == {}


def test_a_write_that_was_given_back_goes_to_another_leader_at_once() -> None:
    node = Harness()
    node.write(1)
    node.reply(1, None)
    node.raft.leader_id = FOLLOWER
    node.requests.on_peer_up(PeerUp(FOLLOWER))
    node.offer()
    assert [peer for peer, _ in node.sent] == [LEADER, FOLLOWER]


def test_rule_18_an_answer_that_makes_no_sense_leaves_the_outcome_unknown() -> None:
    node = Harness()
    for number, reply in ((1, 999), (2, b"\xc1"), (3, FailureCode.QUOTA)):
        node.write(number)
        node.reply(number, reply)
    assert node.code(1) is FailureCode.UNKNOWN
    assert node.code(2) is FailureCode.UNKNOWN
    assert node.code(3) is FailureCode.QUOTA


def test_rule_18_only_who_was_asked_can_answer() -> None:
    node = Harness()
    node.write(1)
    node.reply(1, encode_outcome(Written(1, 1)), sender=FOLLOWER)
    assert node.answers == {}
    node.reply(1, encode_outcome(Written(1, 1)))
    assert node.answers == {1: Written(1, 1)}


def test_rule_18_writes_beyond_the_bound_stay_held_and_are_not_committed() -> None:
    big = encode_command(Put(b"k", bytes(600)))
    node = Harness(forwarded_bytes_max=1000, batch_commands_max=1)
    for number in (1, 2, 3):
        node.write(number, big)
    assert node.forwarded() == [[1], [2]]
    assert [write.id for write in node.requests.writes.held] == [3]
    node.reply(1, encode_outcome(Written(1, 1)))
    node.offer()
    assert node.forwarded() == [[1], [2], [3]]


def test_reads_are_bounded_wherever_they_wait() -> None:
    node = Harness(pending_requests_max=2)
    for number in (1, 2, 3):
        query = Get(b"k")
        node.requests.on_read(ReadRequest(number, query, Consistency.LOCAL, 9, deadline=5.0))
    node.requests.serve_reads(Store(MemoryEngine()), now=0.0)
    assert list(node.answers) == [3]
    assert node.code(3) is FailureCode.OVERLOADED


def test_a_local_read_says_how_old_what_it_shows_may_be() -> None:
    node = Harness()
    store = Store(MemoryEngine())
    node.requests.on_read(ReadRequest(1, Get(b"k"), Consistency.LOCAL, 0, deadline=5.0))
    node.requests.serve_reads(store, now=1.0)
    assert node.answers == {1: Stale(ReadResult(None, 0), None)}
    node.requests.reads.confirm(node.requests.reads.begin_round(2.0), index=0)
    node.requests.on_read(ReadRequest(2, Get(b"k"), Consistency.LOCAL, 0, deadline=5.0))
    node.requests.serve_reads(store, now=2.25)
    assert node.answers[2] == Stale(ReadResult(None, 0), 0.25)


def test_a_revision_that_is_not_reached_by_the_deadline_is_no_missing_leader() -> None:
    """The API's 504, not 503: this node lags, or the client names what never was."""
    node = Harness()
    node.requests.on_read(ReadRequest(1, Get(b"k"), Consistency.LOCAL, 9, deadline=5.0))
    node.requests.on_read(ReadRequest(2, Get(b"k"), Consistency.LINEARIZABLE, 0, deadline=5.0))
    node.requests.expire(6.0, Outlook(has_cluster=True, knows_leader=False))
    assert node.code(1) is FailureCode.DEADLINE
    assert node.code(2) is FailureCode.NO_LEADER


class Taking(FakeRaft):
    """A leader whose log takes everything, and applies nothing."""

    role = Role.LEADER
    term = 1

    def __init__(self) -> None:
        self.proposed: list[bytes] = []

    def propose(self, data: bytes) -> EntryId:
        """Append an entry."""
        self.proposed.append(data)
        return EntryId(1, len(self.proposed))

    def commands(self) -> list[Command]:
        """All that was proposed, in order."""
        return [command for data in self.proposed for command in decode_batch(data)]


def test_rule_19_a_full_store_refuses_writes_here_and_for_peers_and_takes_deletes() -> None:
    leader = Harness(quota_bytes=0)
    leader.raft = Taking()
    delete = encode_command(Delete(b"k"))
    leader.requests.on_write(WriteRequest(1, COMMAND, deadline=5.0))
    frame = ForwardWrites(5, ((2, COMMAND), (3, delete)))
    leader.requests.on_forward(FOLLOWER, frame, 0.0, is_leader=True)
    leader.offer()
    assert leader.code(1) is FailureCode.QUOTA
    assert _replies(leader) == [FailureCode.QUOTA]
    assert leader.raft.commands() == [Delete(b"k")]


def test_rule_19_what_is_proposed_and_not_applied_counts_against_the_quota() -> None:
    leader = Harness(quota_bytes=3 * len(COMMAND) - 1)
    leader.raft = Taking()
    for number in (1, 2, 3):
        leader.write(number)
    assert list(leader.answers) == [3]
    entry = Entry(1, 1, EntryType.NORMAL, leader.raft.proposed[0])
    (applied,) = leader.store.apply([entry])
    leader.requests.settle_entry(applied)
    assert leader.requests.writes.proposed_bytes == len(COMMAND)


def test_rule_21_answers_reach_their_clients_behind_commands_of_the_leader() -> None:
    leader = Harness()
    leader.raft = Taking()
    leader.offer()
    leader.now = 0.03
    for number, key in ((1, b"a"), (2, b"b")):
        command = encode_command(Put(key, b"v"))
        leader.requests.on_write(WriteRequest(number, command, deadline=5.0))
    leader.offer()
    assert leader.raft.commands() == [Stamp(30), Put(b"a", b"v"), Put(b"b", b"v")]
    (applied,) = leader.store.apply([Entry(1, 1, EntryType.NORMAL, leader.raft.proposed[0])])
    leader.requests.settle_entry(applied)
    assert leader.answers == {1: Written(1, 1), 2: Written(2, 1)}
    assert leader.store.log_time_ms == 30


def test_rule_22_an_answer_told_again_is_counted() -> None:
    leader = Harness()
    leader.raft = Taking()
    once = encode_command(Once(b"id", bytes(16), 1000, Put(b"a", b"v")))
    for number in (1, 2):
        leader.write(number, once)
        entry = Entry(1, number, EntryType.NORMAL, leader.raft.proposed[-1])
        leader.requests.settle_entry(leader.store.apply([entry])[0])
    assert leader.answers == {1: Written(1, 1), 2: Replayed(1, Written(1, 1))}
    assert leader.requests.replayed_count == 1
