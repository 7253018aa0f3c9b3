"""When a node that was told to end may stop serving (operator design, rule 15)."""

import asyncio
from dataclasses import replace

import pytest

from raftkv.node.events import Drained
from raftkv.node.status import ClusterStatus, Status
from raftkv.raft.messages import Member
from raftkv.server import drain as drain_module
from raftkv.server.drain import Hurry, Moment, drain, may_end, may_stop_listening
from tests.server.fakes import cluster, status
from tests.server.waiting import until

THREE = tuple(Member(n, f"n{n}", f"h{n}:1", "") for n in (1, 2, 3))


def moment(
    drained_seconds: float = 8.0,
    hurried_seconds: float | None = None,
    in_flight: int = 0,
    *,
    told_seconds: float | None = None,
    finishing_seconds: float | None = None,
    is_leader: bool = False,
    has_peers: bool = True,
) -> Moment:
    return Moment(
        told_seconds=drained_seconds if told_seconds is None else told_seconds,
        drained_seconds=drained_seconds,
        finishing_seconds=finishing_seconds,
        hurried_seconds=hurried_seconds,
        in_flight=in_flight,
        is_leader=is_leader,
        has_peers=has_peers,
    )


@pytest.mark.parametrize(
    ("now", "stops"),
    [
        (moment(7.9), False),  # endpoints may still name this node
        (moment(8.0), True),
        (moment(8.0, in_flight=64), True),  # clients that come back would never let it end
        (moment(8.0, is_leader=True), False),  # a successor is being found
        (moment(10.9, is_leader=True), False),
        (moment(11.0, is_leader=True), True),  # there is none
        (moment(8.0, is_leader=True, has_peers=False), True),  # there can be none
        (moment(8.0, told_seconds=0.0), True),  # drained by an administrator before
        (moment(0.1, 0.0), True),  # asked twice
        (moment(0.1, 0.0, is_leader=True), True),
        (moment(0.1, told_seconds=50.0), True),  # somebody undid the drain again and again
    ],
)
def test_operator_rule_15_when_a_draining_node_closes_its_listeners(
    now: Moment, stops: bool
) -> None:
    assert may_stop_listening(now, drain_seconds=8.0) is stops


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        (moment(8.1), False),  # it still listens
        (moment(8.1, finishing_seconds=0.1), True),
        (moment(8.0, finishing_seconds=0.05), False),  # somebody may just have connected
        (moment(20.0, in_flight=1, finishing_seconds=12.0), False),  # nobody is cut off
        (moment(49.9, in_flight=1, finishing_seconds=40.0), False),
        (moment(50.0, in_flight=1, finishing_seconds=40.0), True),  # Kubernetes kills at 60
        # An administrator's drain long ago leaves no less time.
        (moment(90.0, in_flight=1, told_seconds=1.0, finishing_seconds=1.0), False),
        (moment(0.2, 0.2, finishing_seconds=0.2), True),  # asked twice: at once ...
        (moment(0.2, 0.2, in_flight=1, finishing_seconds=0.2), False),
        (moment(2.1, 2.0, in_flight=1, finishing_seconds=2.0), True),  # ... or soon
    ],
)
def test_operator_rule_15_when_a_draining_node_may_end(now: Moment, ends: bool) -> None:
    assert may_end(now) is ends


@pytest.mark.parametrize("seconds", [0.0, 8.0, 40.0])
def test_operator_rule_15_the_drain_ends_before_the_pod_is_killed(seconds: float) -> None:
    worst = moment(55.0, in_flight=9, is_leader=True)
    assert may_stop_listening(worst, seconds)
    assert may_end(replace(worst, finishing_seconds=0.0))


class DrainingNode:
    """A driver, as far as the drain sees it."""

    def __init__(self) -> None:
        self.draining_since: float | None = None
        self.pending_count = 0
        self.stopped: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.role = "follower"
        self.caught_up = True
        self.members = THREE

    async def drain(self, *, draining: bool) -> Drained:
        assert draining
        assert self.draining_since is None
        self.draining_since = asyncio.get_running_loop().time()
        return Drained(draining=True)

    def status(self) -> Status:
        return status(role=self.role, caught_up=self.caught_up)

    def cluster(self) -> ClusterStatus:
        return cluster(*self.members)


class Listeners:
    """The HTTP listeners, as far as the drain sees them."""

    def __init__(self) -> None:
        self.owed = 0
        self.closed_at: float | None = None

    def in_flight(self) -> int:
        return self.owed

    def close(self) -> None:
        assert self.closed_at is None
        self.closed_at = asyncio.get_running_loop().time()


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> DrainingNode:
    monkeypatch.setattr(drain_module, "POLL_SECONDS", 0.001)
    return DrainingNode()


@pytest.fixture
async def listeners() -> Listeners:
    return Listeners()


async def some_polls() -> None:
    for _ in range(5):
        await asyncio.sleep(0.001)


async def test_operator_rule_15_the_sequence(node: DrainingNode, listeners: Listeners) -> None:
    """Not ready at once; the time and the leadership; closed listeners; the last answers."""
    node.role, node.pending_count, listeners.owed = "leader", 1, 1
    clock = asyncio.get_running_loop().time
    started_at = clock()
    draining = asyncio.ensure_future(drain(node, listeners, 0.05, Hurry()))
    await until("not ready", lambda: node.draining_since is not None)
    await until("the time has passed", lambda: clock() > started_at + 0.06)
    await some_polls()
    assert listeners.closed_at is None, "closed while it leads"
    node.role = "follower"
    await until("the listeners are closed", lambda: listeners.closed_at is not None)
    await until("more than the shortest time", lambda: clock() > (listeners.closed_at or 0) + 0.11)
    await some_polls()
    assert not draining.done(), "ended before it had answered"
    node.pending_count = 0
    await some_polls()
    assert not draining.done(), "ended before the answers had left"
    listeners.owed = 0
    async with asyncio.timeout(5):
        await draining


async def test_a_drain_that_an_administrator_began_counts(
    node: DrainingNode, listeners: Listeners
) -> None:
    node.draining_since = asyncio.get_running_loop().time() - 9
    async with asyncio.timeout(5):
        await drain(node, listeners, 8.0, Hurry())


async def test_a_drain_that_is_undone_while_the_process_ends_begins_again(
    node: DrainingNode, listeners: Listeners
) -> None:
    draining = asyncio.ensure_future(drain(node, listeners, 8.0, Hurry()))
    await until("not ready", lambda: node.draining_since is not None)
    node.draining_since = None
    await until("not ready again", lambda: node.draining_since is not None)
    draining.cancel()


async def test_a_node_that_never_was_ready_does_not_wait_to_be_forgotten(
    node: DrainingNode, listeners: Listeners
) -> None:
    node.caught_up = False
    async with asyncio.timeout(5):
        await drain(node, listeners, 30.0, Hurry())


async def test_a_second_signal_hurries(node: DrainingNode, listeners: Listeners) -> None:
    node.role = "leader"
    hurry = Hurry()
    draining = asyncio.ensure_future(drain(node, listeners, 8.0, hurry))
    await until("not ready", lambda: node.draining_since is not None)
    assert not draining.done()
    hurry.begin()
    since = hurry.since
    hurry.begin()
    assert hurry.since == since
    async with asyncio.timeout(5):
        await draining


async def test_a_node_that_stops_while_draining_ends_the_drain(
    node: DrainingNode, listeners: Listeners
) -> None:
    listeners.owed = 1
    draining = asyncio.ensure_future(drain(node, listeners, 8.0, Hurry()))
    await until("not ready", lambda: node.draining_since is not None)
    node.stopped.set_result("fsync failed")
    async with asyncio.timeout(5):
        await draining
