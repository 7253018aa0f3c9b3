"""What the HTTP layer may ask of the node: implemented by `raftkv.server.driver.Driver`.

The layer above never sees the node class, a socket or a disk. All calls are made on the event
loop's thread. A cancelled call tells the node that the client has gone.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from raftkv.kv.outcomes import Outcome
from raftkv.node.events import (
    Answer,
    BackupOpened,
    BackupPiece,
    Bootstrapped,
    Consistency,
    Drained,
    Found,
    Query,
    SnapshotTaken,
    Stale,
)
from raftkv.node.messages import ConfigChanged, Failure, RequestId, Transferred
from raftkv.node.status import ClusterStatus, Status
from raftkv.raft.confchange import ConfigChange
from raftkv.raft.messages import Member, NodeId

#: Takes the answer to a request once; None: the node stopped before it gave one.
Done = Callable[[Answer | None], None]

#: Consistency, least revision, seconds until the deadline, and of age for a bounded read.
HowToRead = tuple[Consistency, int, float, float]


class DriverApi(Protocol):
    """A running node, as its HTTP listeners see it."""

    #: Called with the store's revision whenever it has grown; whoever serves watches sets it.
    on_revision: Callable[[int], None]

    def write(self, command: bytes, timeout_seconds: float) -> Awaitable[Outcome | Failure]:
        """Apply an encoded command through the log, here or on the leader."""
        ...

    def read(
        self,
        query: Query,
        consistency: Consistency,
        min_revision: int,
        timeout_seconds: float,
        max_stale_seconds: float = 0.0,
    ) -> Awaitable[Found | Stale | Failure]:
        """Answer a query at the promised consistency; `Stale` only when less was asked for."""
        ...

    def begin_write(self, command: bytes, timeout_seconds: float, done: Done) -> RequestId:
        """As `write`, for who does not wait: ``done`` is called with the answer, never from here.

        Returns what `forget` takes.
        """
        ...

    def begin_read(self, query: Query, how: HowToRead, done: Done) -> RequestId:
        """As `read`, for who does not wait; see `begin_write`."""
        ...

    def forget(self, request_id: RequestId) -> None:
        """The client of a `begin_write` or `begin_read` went away: its ``done`` is not called."""
        ...

    def lock(
        self, command: bytes, name: bytes, wait_seconds: float, timeout_seconds: float
    ) -> Awaitable[Outcome | Failure]:
        """Acquire a lock, waiting for it (`LockRequest`)."""
        ...

    def change_config(
        self, change: ConfigChange, config_index: int | None, timeout_seconds: float
    ) -> Awaitable[ConfigChanged | Failure]:
        """Change the membership (`ConfigChangeRequest`)."""
        ...

    def transfer(
        self, target: NodeId | None, timeout_seconds: float
    ) -> Awaitable[Transferred | Failure]:
        """Hand leadership on (`TransferRequest`)."""
        ...

    def snapshot(self) -> Awaitable[SnapshotTaken | Failure]:
        """Take a snapshot now."""
        ...

    def backup(self) -> Awaitable[BackupOpened | Failure]:
        """Take a snapshot now and open its file, to be read with `backup_piece`.

        The caller ends with `backup_end`; a file that is not read for a minute is closed.
        """
        ...

    def backup_piece(self, handle: int, offset: int, size: int) -> Awaitable[BackupPiece | Failure]:
        """Bytes of an opened file; fewer than ``size`` at its end or by the node's limit."""
        ...

    def backup_end(self, handle: int) -> None:
        """Close an opened file."""
        ...

    def bootstrap(
        self, cluster_id: str, members: tuple[Member, ...]
    ) -> Awaitable[Bootstrapped | Failure]:
        """Found a cluster on this node."""
        ...

    def drain(
        self, *, draining: bool, avoid: tuple[NodeId, ...] = ()
    ) -> Awaitable[Drained | Failure]:
        """Start or undo the drain."""
        ...

    def status(self) -> Status:
        """This node, now."""
        ...

    def cluster(self) -> ClusterStatus:
        """The configuration and its members, now."""
        ...

    def look(self) -> None:
        """Somebody looks at the cluster: `cluster` is to know soon how the members are."""
        ...

    def client_url_of(self, member: NodeId) -> str | None:
        """The advertised client URL of a member, for redirects; None if it is not known."""
        ...

    def is_stuck(self) -> str | None:
        """Why `/livez` must fail (loop or disk operation stuck for 30 s), or None."""
        ...
