"""What the driver needs of those it works for: the node class and the metrics.

`raftkv.server.driver_api` is its other side, what the HTTP layer needs of the driver.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from raftkv.node.events import Effect, Event
from raftkv.node.status import ClusterStatus, Status
from raftkv.raft import Positions
from raftkv.raft.messages import NodeId


class IdentityView(Protocol):
    """`raftkv.storage.identity.Identity`, as far as the driver needs it."""

    @property
    def member_id(self) -> NodeId:
        """Random, never 0."""
        ...

    @property
    def cluster_id(self) -> str | None:
        """None: belongs to no cluster."""
        ...


class DrivenNode(Protocol):
    """`raftkv.node.node.Node`, as far as the driver needs it."""

    @property
    def identity(self) -> IdentityView | None:
        """None until recovery is done."""
        ...

    def start(self, now: float) -> list[Effect]:
        """Begin recovery."""
        ...

    def handle(self, events: Sequence[Event], now: float) -> Iterable[Effect]:
        """Take all inputs of one turn; each effect is performed as it comes."""
        ...

    def may_wait(self, event: Event) -> bool:
        """Whether nothing follows from ``event``: no turn is needed for it alone."""
        ...

    def status(self, now: float) -> Status:
        """This node's own state."""
        ...

    def cluster(self) -> ClusterStatus:
        """The configuration and its members."""
        ...

    def positions(self) -> Positions | None:
        """How far the log is; None before recovery."""
        ...

    def close(self) -> None:
        """Close the state machine cleanly."""
        ...


class Observer(Protocol):
    """A histogram."""

    def observe(self, amount: float) -> None:
        """Add a value."""
        ...


class DriverMetrics(Protocol):
    """`raftkv.server.metrics.Metrics`, as far as the driver fills it."""

    @property
    def wal_fsync_seconds(self) -> Observer:
        """Time to make a batch durable."""
        ...

    @property
    def wal_queue_seconds(self) -> Observer:
        """How long entries waited for their write to begin."""
        ...

    @property
    def commit_seconds(self) -> Observer:
        """Time from an entry's proposal to its commit."""
        ...

    @property
    def event_loop_lag_seconds(self) -> Observer:
        """How late a timer ran."""
        ...

    def count_peer_refused(self, reason: str) -> None:
        """A peer connection was cut for this reason."""
        ...
