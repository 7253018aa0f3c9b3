"""What goes into the node class and what comes out: values only (node design, rule 1).

`Node.handle(events, now)` takes all inputs of one loop turn and returns effects. The asyncio
shell (`raftkv.server.driver`) turns sockets, timers and disk threads into events and performs the
effects; the simulation does the same in virtual time with the same class.
"""

from enum import IntEnum

import msgspec

from raftkv.kv.commands import Item, Outcome
from raftkv.kv.ranges import Page, Range
from raftkv.raft.messages import Member, Message, NodeId
from raftkv.storage.disk import DiskError, DiskOps, DiskResult

RequestId = int  # chosen by the shell, unique within the process


# ---- node to node, beside the consensus messages -------------------------------------------


class ForwardWrites(msgspec.Struct, frozen=True, array_like=True, tag=101):
    """A follower hands its clients' encoded commands to the leader, each under its own id.

    ``incarnation`` is drawn anew by every process, so that an answer meant for the sender's
    earlier life is not taken for one of its present requests.
    """

    incarnation: int
    writes: tuple[tuple[RequestId, bytes], ...]


class ForwardReplies(msgspec.Struct, frozen=True, array_like=True, tag=102):
    """The leader's answers. None: refused before it reached the log (no longer the leader)."""

    incarnation: int
    replies: tuple[tuple[RequestId, bytes | None], ...]


PeerMessage = Message | ForwardWrites | ForwardReplies


class PeerFrame(msgspec.Struct, frozen=True, array_like=True):
    """One unit of peer traffic: names the cluster and both ends (rule 15)."""

    cluster_id: str
    sender: NodeId
    receiver: NodeId
    messages: tuple[PeerMessage, ...]


class Channel(IntEnum):
    """Which socket a frame takes, so that heartbeats never wait behind data (rule 17)."""

    BULK = 0  # appends, forwarded writes and their answers
    CONTROL = 1  # heartbeats, votes, reads, transfer


# ---- requests, already parsed: meaning, not bytes ------------------------------------------


class Consistency(IntEnum):
    """What a read promises (API contract, 'Reads')."""

    LINEARIZABLE = 0
    LOCAL = 1


class Get(msgspec.Struct, frozen=True):
    """Query: the item under ``key`` as of ``revision`` (0: now), or None."""

    key: bytes
    revision: int = 0


Query = Get | Range


class WriteRequest(msgspec.Struct, frozen=True):
    """Apply an encoded command through the log. Answered by `Reply` with an Outcome or Failure."""

    id: RequestId
    command: bytes
    deadline: float  # seconds of the node's monotonic clock


class ReadRequest(msgspec.Struct, frozen=True):
    """Answer ``query``. Answered by `Reply` with ReadResult or Page, or Failure."""

    id: RequestId
    query: Query
    consistency: Consistency
    min_revision: int  # wait until the store has this revision; 0: do not
    deadline: float


class CancelRequest(msgspec.Struct, frozen=True):
    """The client went away: forget the request, as far as it can be forgotten. No `Reply`."""

    id: RequestId


class BootstrapRequest(msgspec.Struct, frozen=True):
    """Found a cluster of ``members``. Answered by `Reply` with Bootstrapped or Failure."""

    id: RequestId
    cluster_id: str
    members: tuple[Member, ...]


class DrainRequest(msgspec.Struct, frozen=True):
    """Start (or undo) the drain (operator design, rule 15).

    The node is not ready, and leadership goes to another voter. ``avoid`` names members that
    should not be chosen if it can be helped. Answered by `Drained` as soon as the state is set.
    """

    id: RequestId
    draining: bool
    avoid: tuple[NodeId, ...] = ()


# ---- events --------------------------------------------------------------------------------


class Tick(msgspec.Struct, frozen=True):
    """One tick interval passed. A late tick is still one tick (rule 17)."""


class FrameReceived(msgspec.Struct, frozen=True):
    """A peer's frame, decoded."""

    frame: PeerFrame


class PeerUp(msgspec.Struct, frozen=True):
    """The outgoing connections to this peer are established: it may be sent to."""

    peer: NodeId


class PeerDown(msgspec.Struct, frozen=True):
    """The outgoing connection to this peer broke: what was sent and unanswered is unknown."""

    peer: NodeId


class DiskDone(msgspec.Struct, frozen=True):
    """A submission finished: all results, or the first error."""

    submission: int
    results: list[DiskResult] | DiskError


Event = (
    Tick
    | FrameReceived
    | PeerUp
    | PeerDown
    | DiskDone
    | WriteRequest
    | ReadRequest
    | CancelRequest
    | BootstrapRequest
    | DrainRequest
)


# ---- effects -------------------------------------------------------------------------------


class FailureCode(IntEnum):
    """Why a request was not answered as asked. As HTTP: `raftkv.server.http.problems`."""

    NO_LEADER = 1  # not committed; the deadline passed without a leader to ask
    UNKNOWN = 2  # the write may have reached the log and may or may not take effect
    DEADLINE = 3  # a read that could not be answered in time: nothing was changed
    OVERLOADED = 4  # not committed; too much is in flight
    UNINITIALISED = 5  # not committed; this node belongs to no cluster yet
    CONFLICT = 6  # a bootstrap that contradicts what the node already is
    INVALID = 7  # a bootstrap list without this node, or otherwise wrong
    STOPPED = 8  # not committed; the node is stopping
    FUTURE_REVISION = 9  # a read at a revision that the store has not reached


class Failure(msgspec.Struct, frozen=True):
    """The answer to a request that could not be fulfilled; ``detail`` is for a person."""

    code: FailureCode
    detail: str


class ReadResult(msgspec.Struct, frozen=True):
    """``item`` is None when the key does not exist; ``revision`` is the store's, as served."""

    item: Item | None
    revision: int


class Bootstrapped(msgspec.Struct, frozen=True):
    """The node belongs to ``cluster_id``; ``repeated`` when it did before this call."""

    cluster_id: str
    repeated: bool


class Drained(msgspec.Struct, frozen=True):
    """The drain state is as requested."""

    draining: bool


Answer = Outcome | ReadResult | Page | Bootstrapped | Drained | Failure


class Reply(msgspec.Struct, frozen=True):
    """Answer a request. Exactly one for every request that was not cancelled."""

    id: RequestId
    answer: Answer


class Send(msgspec.Struct, frozen=True):
    """Send a frame; dropped silently when the peer is not connected or its queue is full."""

    channel: Channel
    frame: PeerFrame


class SubmitDisk(msgspec.Struct, frozen=True):
    """Perform operations in order off the loop and answer with `DiskDone`."""

    submission: int
    ops: DiskOps


class PeersChanged(msgspec.Struct, frozen=True):
    """Keep connections to exactly these members (this node is not among them)."""

    cluster_id: str
    members: tuple[Member, ...]


class RoleChanged(msgspec.Struct, frozen=True):
    """For the log, metrics and the console: this node's role, term or leader changed."""

    role: str
    term: int
    leader: NodeId | None


class Stop(msgspec.Struct, frozen=True):
    """End the process now with a non-zero exit: going on would break a promise."""

    reason: str


class Continue(msgspec.Struct, frozen=True):
    """Call `handle` again on the next loop turn, also without an event: work was sliced."""


Effect = Reply | Send | SubmitDisk | PeersChanged | RoleChanged | Stop | Continue
