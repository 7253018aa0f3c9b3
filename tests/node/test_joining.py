"""Who a node listens to, and when it belongs to a cluster (node design, rule 15)."""

from collections.abc import Iterable

from raftkv.kv.memory_engine import MemoryEngineFactory
from raftkv.node.events import (
    Bootstrapped,
    BootstrapRequest,
    DiskDone,
    Effect,
    Event,
    FrameReceived,
    Reply,
    Send,
    SubmitDisk,
    Tick,
)
from raftkv.node.founding import founding_configuration
from raftkv.node.messages import Failure, FailureCode, PeerFrame, PeerMessage
from raftkv.node.node import Node
from raftkv.raft import Append, AppendResp, Entry, EntryType, Heartbeat, Vote, VoteResp
from raftkv.raft.messages import Member, encode_conf_state
from tests.node.test_stalls_and_slices import SETTINGS
from tests.simulation.disk import SimDisk
from tests.simulation.world import World

LEADER, THIRD = 77, 78


class Empty:
    """A node of no cluster, whose disk answers only when it is told to."""

    def __init__(self) -> None:
        self.disk = SimDisk()
        self.waiting: list[SubmitDisk] = []
        self.replies: list[Reply] = []
        self.sent: list[PeerMessage] = []
        self.node = Node(SETTINGS, MemoryEngineFactory(), World(1).rng)
        self._take(self.node.start(0.0))
        self.settle()

    @property
    def id(self) -> int:
        """Its random id."""
        assert self.node.identity is not None
        return self.node.identity.member_id

    @property
    def cluster_id(self) -> str | None:
        """Where it belongs."""
        assert self.node.identity is not None
        return self.node.identity.cluster_id

    def handle(self, *events: Event) -> None:
        """One turn."""
        self._take(self.node.handle(events, 0.0))

    def settle(self) -> None:
        """Let the disk do everything it was asked."""
        while self.waiting:
            submission = self.waiting.pop(0)
            self.handle(DiskDone(submission.submission, self.disk.perform(submission.ops)))

    def hear(self, *messages: PeerMessage, cluster_id: str = "c1", receiver: int = 0) -> None:
        """A frame of the leader, or of who says so."""
        frame = PeerFrame(cluster_id, LEADER, receiver or self.id, messages)
        self.handle(FrameReceived(frame))

    def append(self) -> Append:
        """The founding entry of a cluster that lists this node."""
        members = (self.member(), *(Member(n, f"n{n}", f"n{n}:1", "") for n in (LEADER, THIRD)))
        data = encode_conf_state(founding_configuration(members))
        entry = Entry(1, 1, EntryType.CONFIG, data)
        return Append(LEADER, self.id, 1, 1, 0, 0, 0, (entry,))

    def member(self) -> Member:
        """As whom it is listed."""
        return Member(self.id, "n1", "n1:1", "http://n1")

    def _take(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SubmitDisk):
                self.waiting.append(effect)
            elif isinstance(effect, Reply):
                self.replies.append(effect)
            elif isinstance(effect, Send):
                self.sent += effect.frame.messages


def test_rule_15_a_cluster_is_adopted_from_an_append_to_the_own_id_only() -> None:
    node = Empty()
    heartbeat = Heartbeat(LEADER, node.id, 1, 1, 0, 0)
    vote = Vote(LEADER, node.id, 2, 1, 1)
    node.hear(heartbeat, vote)
    node.hear(node.append(), receiver=THIRD)
    node.settle()
    assert node.cluster_id is None
    assert node.sent == []
    assert node.node.frames_dropped == 2
    node.hear(node.append())
    node.settle()
    assert node.cluster_id == "c1"


def test_rule_15_nothing_is_answered_before_the_identity_is_on_disk() -> None:
    node = Empty()
    node.hear(node.append())
    node.hear(node.append())
    node.handle(Tick())
    assert node.sent == []
    assert node.cluster_id is None
    node.settle()
    answers = [message for message in node.sent if isinstance(message, AppendResp)]
    assert [answer.match for answer in answers] == [1]


def test_rule_15_frames_of_another_cluster_or_for_another_node_are_dropped_and_counted() -> None:
    node = Empty()
    node.hear(node.append())
    node.settle()
    node.sent.clear()
    before = node.node.frames_dropped
    vote = Vote(THIRD, node.id, 9, 9, 9)
    node.hear(node.append(), cluster_id="c2")
    node.hear(node.append(), receiver=THIRD)
    node.hear(vote)  # in another's name than the frame's
    node.settle()
    assert node.node.frames_dropped == before + 3
    assert node.sent == []


def test_rule_15_an_uninitialised_node_never_votes() -> None:
    node = Empty()
    # The frame is of a cluster that it then adopts; its log is still empty when the vote comes.
    node.hear(Vote(LEADER, node.id, 9, 9, 9), node.append())
    node.settle()
    assert not any(isinstance(message, VoteResp) and message.granted for message in node.sent)


def test_rule_15_a_node_that_joins_a_cluster_founds_none_meanwhile() -> None:
    node = Empty()
    node.hear(node.append())
    node.handle(BootstrapRequest(1, "c9", (node.member(),)))
    node.settle()
    node.handle(BootstrapRequest(2, "c9", (node.member(),)))
    node.settle()
    codes = [reply.answer.code for reply in node.replies if isinstance(reply.answer, Failure)]
    assert codes == [FailureCode.UNINITIALISED, FailureCode.CONFLICT]
    assert node.cluster_id == "c1"


def test_founding_is_answered_when_the_founding_entry_is_on_disk_and_the_same_again() -> None:
    node = Empty()
    request = BootstrapRequest(1, "c1", (node.member(),))
    node.handle(request)
    while node.cluster_id is None:
        submission = node.waiting.pop(0)
        node.handle(DiskDone(submission.submission, node.disk.perform(submission.ops)))
    assert node.replies == []  # who it is is on disk, the entry is not
    node.settle()
    assert node.replies == [Reply(1, Bootstrapped("c1", repeated=False))]
    node.handle(BootstrapRequest(2, "c1", (node.member(),)))
    assert node.replies[1:] == [Reply(2, Bootstrapped("c1", repeated=True))]
