"""Stand-ins for the parts around the driver."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from raftkv.node.events import Effect, Event
from raftkv.node.status import ClusterStatus, State, Status
from raftkv.raft import Positions
from raftkv.raft.messages import Member
from raftkv.storage.disk import DiskOps, DiskResult
from raftkv.storage.kernel_sync import KernelSync

STATUS = Status(
    name="n1",
    member_id=1,
    cluster_id="c1",
    state=State.RUNNING,
    role="follower",
    term=1,
    leader=2,
    leader_name="n2",
    commit_index=0,
    applied_index=0,
    first_log_index=1,
    last_log_index=0,
    durable_index=0,
    revision=0,
    db_bytes=0,
    keys=0,
    pending_requests=0,
    is_voter=True,
    caught_up=True,
    seconds_since_leader=0.0,
    is_transferring=False,
    version="0",
)


def status(**changes: object) -> Status:
    """A follower's status with ``changes``."""
    return msgspec.structs.replace(STATUS, **changes)


def cluster(*members: Member) -> ClusterStatus:
    """A configuration in which all ``members`` vote."""
    ids = tuple(member.id for member in members)
    return ClusterStatus("c1", None, None, 1, 1, ids, (), (), (), None, "", 0)


@dataclass
class FakeIdentity:
    member_id: int = 1
    cluster_id: str | None = "c1"


@dataclass
class FakeNode:
    """Keeps what it was given; ``react`` says what each event leads to."""

    react: Callable[[Event], Sequence[Effect]] = lambda _: ()
    starting: Sequence[Effect] = ()
    identity: FakeIdentity | None = field(default_factory=FakeIdentity)
    turns: list[list[Event]] = field(default_factory=list)
    patient: Sequence[Event] = ()
    is_closed: bool = False

    def start(self, now: float) -> list[Effect]:
        return list(self.starting)

    def handle(self, events: Sequence[Event], now: float) -> list[Effect]:
        self.turns.append(list(events))
        return [effect for event in events for effect in self.react(event)]

    def may_wait(self, event: Event) -> bool:
        return event in self.patient

    def status(self, now: float) -> Status:
        return STATUS

    def cluster(self) -> ClusterStatus:
        return cluster()

    def positions(self) -> Positions | None:
        return None

    def close(self) -> None:
        self.is_closed = True

    def events(self, kind: type) -> list[Event]:
        return [event for turn in self.turns for event in turn if isinstance(event, kind)]


class FakeDisk:
    """Performs nothing, when the test lets it."""

    def __init__(self, perform: Callable[[DiskOps], list[DiskResult]] = lambda _: []) -> None:
        self.perform = perform

    def kernel_sync(self) -> KernelSync | None:
        return None


class Observed(list[float]):
    """A histogram that keeps what it was given."""

    def observe(self, amount: float) -> None:
        self.append(amount)


@dataclass
class FakeMetrics:
    wal_fsync_seconds: Observed = field(default_factory=Observed)
    wal_queue_seconds: Observed = field(default_factory=Observed)
    commit_seconds: Observed = field(default_factory=Observed)
    event_loop_lag_seconds: Observed = field(default_factory=Observed)
    refused: list[str] = field(default_factory=list)

    def count_peer_refused(self, reason: str) -> None:
        self.refused.append(reason)
