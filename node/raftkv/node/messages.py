"""What nodes say to each other beside the consensus messages, and the frames that carry it all.

Values only; `raftkv.node.outbox` gathers them, `raftkv.server.frames` makes bytes of them. The tags
are part of the protocol (docs/peer-protocol.md).
"""

from enum import IntEnum

import msgspec

from raftkv.raft.messages import Index, Message, NodeId, Term
from raftkv.storage.snapshots import SnapshotInfo

RequestId = int  # chosen by the shell, unique within the process


# ---- answers that travel between nodes too -------------------------------------------------


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
    QUOTA = 10  # not committed; the store holds as much as it may (only what frees room is taken)
    COMPACTED = 11  # a read at a revision that is gone; `Failure.revision` is the oldest left
    IDEMPOTENCY_FULL = 12  # not committed; as many idempotency records as there may be
    REFUSED = 13  # a membership change that is not allowed now; `Failure.reason` says why
    PRECONDITION = 14  # the configuration is another one than the caller meant


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The answer to a request that could not be fulfilled; ``detail`` is for a person."""

    code: FailureCode
    detail: str
    reason: str = ""  # of REFUSED: `raftkv.raft.errors.RefusalReason`, a stable word
    revision: int = 0  # of COMPACTED: the oldest revision that can be read


class ConfigChanged(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The membership change took effect with the configuration at this index."""

    config_index: int


class Transferred(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """``leader`` leads and has committed an entry of its own term."""

    leader: NodeId
    term: int


# ---- node to node, beside the consensus messages -------------------------------------------


class ForwardWrites(msgspec.Struct, frozen=True, array_like=True, tag=101):
    """A follower hands its clients' encoded commands to the leader, each under its own id.

    ``incarnation`` is drawn anew by every process, so that an answer meant for the sender's
    earlier life is not taken for one of its present requests.
    """

    incarnation: int
    writes: tuple[tuple[RequestId, bytes], ...]


class ForwardOrder(msgspec.Struct, frozen=True, array_like=True, tag=103):
    """A follower hands an order of a client to the leader (`raftkv.node.orders`).

    ``change`` is an encoded `ConfigChange`, only to be begun on the configuration of
    ``config_index``, if that is given; empty: hand leadership to ``target``, or whom you like.
    """

    incarnation: int
    id: RequestId
    change: bytes
    config_index: int | None
    target: NodeId | None


class ForwardReplies(msgspec.Struct, frozen=True, array_like=True, tag=102):
    """The leader's answers.

    Bytes are an encoded outcome. None: refused before it reached the log, by who no longer leads;
    the sender asks the next leader. A number: refused for good with this `FailureCode`.
    """

    incarnation: int
    replies: tuple[tuple[RequestId, bytes | int | None], ...]


class StateHash(msgspec.Struct, frozen=True, array_like=True, tag=105):
    """The sender's chain hash after ``index``, for comparing (`raftkv.node.hash_check`)."""

    index: Index
    chain_hash: bytes
    is_answer: bool


class ReportRequest(msgspec.Struct, frozen=True, array_like=True, tag=106):
    """Somebody looks at the cluster: the receiver is to say how it is (`raftkv.node.reports`)."""


class Report(msgspec.Struct, frozen=True, array_like=True, tag=107):
    """How the sender is, for showing. ``matches``: its followers' log positions, if it leads."""

    role: str  # as `raftkv.node.status.Status.role`
    term: Term
    last_index: Index
    durable_index: Index
    commit_index: Index
    applied_index: Index
    revision: int
    matches: tuple[tuple[NodeId, Index], ...] = ()


class SnapshotOffer(msgspec.Struct, frozen=True, array_like=True, tag=111):
    """The leader of ``term`` has a snapshot for a follower whose log it cannot continue."""

    transfer: int  # random: names this attempt
    term: Term
    session: Index
    info: SnapshotInfo


class SnapshotChunk(msgspec.Struct, frozen=True, array_like=True, tag=112):
    """The bytes of the offered file from ``offset`` on."""

    transfer: int
    offset: int
    data: bytes


class SnapshotAck(msgspec.Struct, frozen=True, array_like=True, tag=113):
    """So many bytes from the start of the file are written; all of it: verified and durable.

    None: the follower cannot take it now.
    """

    transfer: int
    received_bytes: int | None


SnapshotMessage = SnapshotOffer | SnapshotChunk | SnapshotAck


class OrderReply(msgspec.Struct, frozen=True, array_like=True, tag=104):
    """The leader's answer to a `ForwardOrder`.

    ``is_given_back``: it was not begun, and may be sent again; a `Failure` says why.
    """

    incarnation: int
    id: RequestId
    answer: ConfigChanged | Transferred | Failure | None
    is_given_back: bool


PeerMessage = (
    Message
    | ForwardWrites
    | ForwardReplies
    | ForwardOrder
    | OrderReply
    | StateHash
    | ReportRequest
    | Report
    | SnapshotMessage
)


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
    SNAPSHOT = 2  # chunks of snapshots and their acknowledgements
