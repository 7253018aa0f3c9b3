"""What goes into the node class and what comes out: values only (node design, rule 1).

`Node.handle(events, now)` takes all inputs of one loop turn and yields effects. The asyncio
shell (`raftkv.server.driver`) turns sockets, timers and disk lanes into events and performs the
effects; the simulation does the same in virtual time with the same class.
"""

from enum import IntEnum

import msgspec

from raftkv.kv.changes import Changes, ChangesAfter, LastChange, LastChanged
from raftkv.kv.outcomes import Item, Outcome
from raftkv.kv.ranges import Page, Range
from raftkv.node.messages import Channel, ConfigChanged, Failure, PeerFrame, RequestId, Transferred
from raftkv.raft.confchange import ConfigChange
from raftkv.raft.messages import Index, Member, NodeId
from raftkv.storage.disk import DiskError, DiskOps, DiskResult, Lane

# ---- requests, already parsed: meaning, not bytes ------------------------------------------


class Consistency(IntEnum):
    """What a read promises (API contract, 'Reads')."""

    LINEARIZABLE = 0
    LOCAL = 1
    BOUNDED = 2  # at most `ReadRequest.max_stale_seconds` old, else linearizable


class Get(msgspec.Struct, frozen=True):
    """Query: the item under ``key`` as of ``revision`` (0: now), or None."""

    key: bytes
    revision: int = 0


class GetLease(msgspec.Struct, frozen=True):
    """Query: a lease with its keys, or None. Answered with `LeaseFound`."""

    lease: int


class ListLeases(msgspec.Struct, frozen=True):
    """Query: the leases with ids after ``after``, in order. Answered with `LeasesFound`."""

    after: int = 0
    limit: int = 1000


class GetLock(msgspec.Struct, frozen=True):
    """Query: a lock that is held, or None. Answered with `LockFound`."""

    name: bytes


class ListLocks(msgspec.Struct, frozen=True):
    """Query: the held locks with names after ``after`` (b"": from the first), in order."""

    after: bytes = b""
    limit: int = 1000


Query = Get | Range | ChangesAfter | LastChange | GetLease | ListLeases | GetLock | ListLocks


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
    max_stale_seconds: float = 0.0  # for Consistency.BOUNDED


class CancelRequest(msgspec.Struct, frozen=True):
    """The client went away: forget the request, as far as it can be forgotten. No `Reply`."""

    id: RequestId


class BootstrapRequest(msgspec.Struct, frozen=True):
    """Found a cluster of ``members``. Answered by `Reply` with Bootstrapped or Failure."""

    id: RequestId
    cluster_id: str
    members: tuple[Member, ...]


class LockRequest(msgspec.Struct, frozen=True):
    """Take a lock, waiting in its queue (API contract, `POST /v1/locks/{name}`).

    ``command`` is an encoded `AcquireLock`, perhaps inside `Once`. Answered like a write, but a
    `LockQueued` only when ``wait_deadline`` has passed: the node has left the queue by then. A
    `CancelRequest` leaves the queue too, and gives back a lock that came too late.
    """

    id: RequestId
    command: bytes
    name: bytes
    wait_deadline: float
    deadline: float  # for the write itself


class ConfigChangeRequest(msgspec.Struct, frozen=True):
    """Change the membership, here or on the leader. Answered by ConfigChanged or Failure.

    The answer comes when the change is committed; a joint one when it was left.
    """

    id: RequestId
    change: ConfigChange
    config_index: int | None  # refuse with PRECONDITION unless this is the present one
    deadline: float


class TransferRequest(msgspec.Struct, frozen=True):
    """Hand leadership to ``target`` (None: the most caught-up voter), here or on the leader.

    Answered by Transferred once the new leader has committed, or Failure.
    """

    id: RequestId
    target: NodeId | None
    deadline: float


class SnapshotRequest(msgspec.Struct, frozen=True):
    """Take a snapshot of this node now. Answered by SnapshotTaken or Failure."""

    id: RequestId


class BackupRequest(msgspec.Struct, frozen=True):
    """Take a snapshot of this node now and open its file. Answered by BackupOpened or Failure."""

    id: RequestId


class BackupReadRequest(msgspec.Struct, frozen=True):
    """Read bytes of an opened file. Answered by BackupPiece."""

    id: RequestId
    handle: int  # `BackupOpened.handle`
    offset: int
    size: int


class BackupEndRequest(msgspec.Struct, frozen=True):
    """Close an opened file. No `Reply`."""

    handle: int  # `BackupOpened.handle`


class DrainRequest(msgspec.Struct, frozen=True):
    """Start (or undo) the drain (operator design, rule 15).

    The node is not ready, and leadership goes to another voter. ``avoid`` names members that
    should not be chosen if it can be helped. Answered by `Drained` as soon as the state is set.
    """

    id: RequestId
    draining: bool
    avoid: tuple[NodeId, ...] = ()


class Look(msgspec.Struct, frozen=True):
    """Somebody looks at the cluster: ask the members how they are. No `Reply`."""


# ---- events --------------------------------------------------------------------------------


class TellCommit(msgspec.Struct, frozen=True):
    """The time of the last `TellCommitSoon` is over."""


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
    | TellCommit
    | FrameReceived
    | PeerUp
    | PeerDown
    | DiskDone
    | WriteRequest
    | ReadRequest
    | CancelRequest
    | BootstrapRequest
    | LockRequest
    | ConfigChangeRequest
    | TransferRequest
    | SnapshotRequest
    | BackupRequest
    | BackupReadRequest
    | BackupEndRequest
    | DrainRequest
    | Look
)


# ---- answers -------------------------------------------------------------------------------


class ReadResult(msgspec.Struct, frozen=True):
    """``item`` is None when the key does not exist; ``revision`` is the store's, as served."""

    item: Item | None
    revision: int


class LeaseInfo(msgspec.Struct, frozen=True):
    """A lease as it is now."""

    lease: int
    ttl_ms: int
    remaining_ms: int  # of log time: it lives at least so long
    keys: tuple[bytes, ...]


class LeaseFound(msgspec.Struct, frozen=True):
    """Of `GetLease`; None: there is no such lease."""

    lease: LeaseInfo | None
    revision: int


class LeasesFound(msgspec.Struct, frozen=True):
    """Of `ListLeases`, without their keys; ``next_after`` is None at the end."""

    leases: tuple[LeaseInfo, ...]
    revision: int
    next_after: int | None


class LockInfo(msgspec.Struct, frozen=True):
    """A lock that is held."""

    name: bytes
    owner: bytes
    token: int  # also the id of its lease
    ttl_ms: int
    remaining_ms: int
    waiters: tuple[bytes, ...]  # their owners, the next one first


class LockFound(msgspec.Struct, frozen=True):
    """Of `GetLock`; None: nobody holds it."""

    lock: LockInfo | None
    revision: int


class LocksFound(msgspec.Struct, frozen=True):
    """Of `ListLocks`; ``next_after`` is None at the end."""

    locks: tuple[LockInfo, ...]
    revision: int
    next_after: bytes | None


Found = (
    ReadResult | Page | Changes | LastChanged | LeaseFound | LeasesFound | LockFound | LocksFound
)


class Stale(msgspec.Struct, frozen=True):
    """What a LOCAL or BOUNDED read found without asking anybody.

    ``age_seconds``: it shows at least all that was committed so long ago; None: nothing is known.
    """

    found: Found
    age_seconds: float | None


class SnapshotTaken(msgspec.Struct, frozen=True):
    """A durable snapshot of the state after ``index``."""

    name: str  # of the file
    index: int
    revision: int
    size_bytes: int


class BackupOpened(msgspec.Struct, frozen=True):
    """A snapshot whose file is open: it can be read to its end, whatever happens to its name."""

    snapshot: SnapshotTaken
    handle: int  # to ask for its pieces by; the node never gives it again


class BackupPiece(msgspec.Struct, frozen=True):
    """Bytes of the file."""

    data: bytes


class Bootstrapped(msgspec.Struct, frozen=True):
    """The node belongs to ``cluster_id``; ``repeated`` when it did before this call."""

    cluster_id: str
    repeated: bool


class Drained(msgspec.Struct, frozen=True):
    """The drain state is as requested."""

    draining: bool


Answer = (
    Outcome
    | Found
    | Stale
    | Bootstrapped
    | Drained
    | ConfigChanged
    | Transferred
    | SnapshotTaken
    | BackupOpened
    | BackupPiece
    | Failure
)


# ---- effects -------------------------------------------------------------------------------


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
    lane: Lane = Lane.WAL


class PeersChanged(msgspec.Struct, frozen=True):
    """Keep connections to exactly these members (this node is not among them)."""

    cluster_id: str
    members: tuple[Member, ...]


class RoleChanged(msgspec.Struct, frozen=True):
    """For the log, metrics and the console: this node's role, term or leader changed."""

    role: str
    term: int
    leader: NodeId | None


class Advanced(msgspec.Struct, frozen=True):
    """The store's revision grew to this: watches have something to read."""

    revision: int


class Diverged(msgspec.Struct, frozen=True):
    """For the log: this node and ``peer`` hold different states after the same ``index``."""

    peer: NodeId
    index: Index


class Stop(msgspec.Struct, frozen=True):
    """End the process now with a non-zero exit: going on would break a promise."""

    reason: str


class TellCommitSoon(msgspec.Struct, frozen=True):
    """Hand in a `TellCommit` after ``seconds``, counted from the last effect of this kind."""

    seconds: float


class Continue(msgspec.Struct, frozen=True):
    """Call `handle` again on the next loop turn, also without an event: work was sliced."""


Effect = (
    Reply
    | Send
    | SubmitDisk
    | PeersChanged
    | RoleChanged
    | Advanced
    | Diverged
    | Stop
    | TellCommitSoon
    | Continue
)
