"""The values of the consensus core: what is in the log, and what peers say to each other.

Owns the shapes only; the rules that act on them live in `raftkv.raft.raft`. Every value is an
immutable msgspec Struct, because the same definition is then the wire and the disk encoding
(one C call per batch, see docs/adr/0003-values-are-msgspec-structs.md). One class per message
kind, after toydb: a message has no field that its kind does not need.

Conventions: an index is 1-based and 0 means "before the first entry"; a term of 0 means "none
yet"; ``None`` means "nobody". Ids are random 64-bit numbers made together with the disk, never
positions and never reused (reference: Raft thesis 3.8 and the amnesia bugs it warns of).
"""

from enum import IntEnum

import msgspec

# Plain ints: indexes need arithmetic, and a NewType would cost a call in the hot path.
Index = int
Term = int
NodeId = int


class EntryId(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """Names one entry for good (paper 5.3). Ordered as the up-to-date rule compares (5.4.1)."""

    term: Term
    index: Index


class EntryType(IntEnum):
    """What ``Entry.data`` holds."""

    NORMAL = 0  # a batch of state machine commands, opaque to the core
    CONFIG = 1  # an encoded ConfState that takes effect when appended
    NOOP = 2  # empty: a new leader's first entry (paper 8)


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One slot of the replicated log."""

    term: Term
    index: Index
    type: EntryType
    data: bytes

    @property
    def id(self) -> EntryId:
        """The (term, index) pair that names this entry."""
        return EntryId(self.term, self.index)


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One node of a configuration: who it is, and where it is found by name, never by IP."""

    id: NodeId
    name: str
    peer_url: str  # "host:port" of the peer listener
    client_url: str  # "http://host:port" that clients may be redirected to


class ConfState(msgspec.Struct, frozen=True, array_like=True):
    """A configuration: who votes, who learns, and the two halves of a joint change.

    Simple when ``voters_outgoing`` is empty; else joint: elections, commit and reads need a
    majority of ``voters`` and one of ``voters_outgoing`` (paper 6, thesis 4.3). All id tuples
    are sorted. ``members`` describes every id that any of the tuples names.
    """

    voters: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    voters_outgoing: tuple[NodeId, ...] = ()
    learners_next: tuple[NodeId, ...] = ()  # voters_outgoing that become learners on leaving
    auto_leave: bool = False  # the leader leaves the joint configuration by itself
    members: tuple[Member, ...] = ()
    # For each member the index of the entry that added it: the id of its replication session.
    # Messages of a session that is over are dropped (a node removed and added again must not
    # be believed for what it acknowledged before: reference/faults.md 2, rule 3).
    sessions: tuple[tuple[NodeId, Index], ...] = ()
    # Learners that the caller is to promote as soon as they have caught up.
    auto_promote: tuple[NodeId, ...] = ()
    # The ids that left last, oldest first: no other disk may use one (reference/faults.md 2,
    # rule 4). Bounded; ids are random, so one beyond the bound does not come back by chance.
    removed: tuple[NodeId, ...] = ()

    @property
    def ids(self) -> tuple[NodeId, ...]:
        """Every member, ascending."""
        return tuple(sorted({*self.voters, *self.voters_outgoing, *self.learners}))

    @property
    def is_joint(self) -> bool:
        """Whether two sets of voters must agree."""
        return bool(self.voters_outgoing)

    def has_voter(self, node_id: NodeId) -> bool:
        """Whether ``node_id`` votes, in either half."""
        return node_id in self.voters or node_id in self.voters_outgoing


class SnapshotBase(msgspec.Struct, frozen=True, array_like=True):
    """Where a snapshot stands: it replaces the log up to ``last``."""

    last: EntryId  # the last entry that went into it
    config_index: Index  # of the entry that holds ``conf``, at or below ``last``
    conf: ConfState  # in force at ``last``


_conf_state_encoder = msgspec.msgpack.Encoder()
_conf_state_decoder = msgspec.msgpack.Decoder(ConfState)


def encode_conf_state(conf: ConfState) -> bytes:
    """The ``data`` of a CONFIG entry."""
    return _conf_state_encoder.encode(conf)


def decode_conf_state(data: bytes) -> ConfState:
    """The configuration in a CONFIG entry. Raises ValueError if it is none."""
    return _conf_state_decoder.decode(data)


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What must be on disk before any answer that rests on it (paper fig. 2, persistent)."""

    term: Term = 0
    vote: NodeId | None = None
    commit: Index = 0  # a lower bound: saved along, never synced for its own sake


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """What every peer message names: who speaks, to whom, in which term."""

    sender: NodeId
    receiver: NodeId
    term: Term


class PreVote(_Message, frozen=True, tag=1):
    """'Would you vote for me?' ``term`` is the one the sender would campaign in (thesis 9.6)."""

    last_term: Term
    last_index: Index


class PreVoteResp(_Message, frozen=True, tag=2):
    """``term`` echoes the request's when granted, else it is the answerer's own."""

    granted: bool


class Vote(_Message, frozen=True, tag=3):
    """RequestVote (paper 5.2). ``transfer`` skips the leader-lease check (thesis 3.10, 4.2.3)."""

    last_term: Term
    last_index: Index
    transfer: bool = False


class VoteResp(_Message, frozen=True, tag=4):
    """Sent only after the vote is on disk."""

    granted: bool


class Append(_Message, frozen=True, tag=5):
    """AppendEntries (paper 5.3); empty ``entries`` probe or carry a commit index."""

    session: Index
    prev_term: Term
    prev_index: Index
    commit: Index
    entries: tuple[Entry, ...]


class AppendResp(_Message, frozen=True, tag=6):
    """Answer to Append; the positive one is sent only after the entries are on disk.

    Accepted (``rejected_index`` is None): the sender's log matches the leader's up to ``match``.
    Rejected: ``rejected_index`` is the Append's prev_index; (``hint_term``, ``hint_index``) is
    the sender's highest entry that may still match, so that the leader skips whole terms.
    """

    session: Index
    match: Index
    rejected_index: Index | None = None
    hint_term: Term = 0
    hint_index: Index = 0


class Heartbeat(_Message, frozen=True, tag=7):
    """'I lead.' Separate from Append so that it never waits behind bulk data.

    ``commit`` never exceeds what the receiver is known to hold. ``round`` numbers the leader's
    quorum rounds within its term: echoing it confirms leadership for the reads that began
    before the round was sent (thesis 6.4).
    """

    session: Index
    commit: Index
    round: int


class HeartbeatResp(_Message, frozen=True, tag=8):
    """Echo of Heartbeat. Asserts nothing about the log, hence never waits for the disk."""

    session: Index
    round: int


class TimeoutNow(_Message, frozen=True, tag=9):
    """Leadership transfer: 'campaign at once' (thesis 3.10)."""


class ReadIndex(_Message, frozen=True, tag=10):
    """A follower asks for a read index; ``context`` is never used twice, also not by a retry."""

    context: int


class ReadIndexResp(_Message, frozen=True, tag=11):
    """``index`` to wait for before reading; None: 'I cannot say', ask again with a new context."""

    context: int
    index: Index | None


class InstallSnapshot(_Message, frozen=True, tag=12):
    """'Your log begins after ``last`` now' (paper 7). It carries no data.

    Not a message of the wire: the state travels as a file of the hosts. The receiver's host steps
    this, with the leader's id and term from the stream, once the file is verified and durable.
    Answered by AppendResp.
    """

    session: Index
    last: EntryId
    config_index: Index
    conf: ConfState


# What peers send each other.
Message = (
    PreVote
    | PreVoteResp
    | Vote
    | VoteResp
    | Append
    | AppendResp
    | Heartbeat
    | HeartbeatResp
    | TimeoutNow
    | ReadIndex
    | ReadIndexResp
)

# What a core is given: messages of peers, and what a host says in a leader's name.
Input = Message | InstallSnapshot
