"""When a node that was told to end may stop serving (operator design, rule 15)."""

import asyncio

import pytest

from raftkv.node.events import Drained
from raftkv.node.status import ClusterStatus, Status
from raftkv.raft.messages import Member
from raftkv.server import drain as drain_module
from raftkv.server.drain import Hurry, Moment, drain, may_end
from tests.server.fakes import cluster, status
from tests.server.waiting import until

THREE = tuple(Member(n, f"n{n}", f"h{n}:1", "") for n in (1, 2, 3))


def moment(
    drained_seconds: float = 8.0,
    hurried_seconds: float | None = None,
    in_flight: int = 0,
    *,
    is_leader: bool = False,
    has_peers: bool = True,
) -> Moment:
    return Moment(drained_seconds, hurried_seconds, in_flight, is_leader, has_peers)


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        (moment(7.9), False),  # endpoints may still name this node
        (moment(8.0), True),
        (moment(20.0, in_flight=1), False),  # nobody's request is cut off
        (moment(49.9, in_flight=1), False),
        (moment(50.0, in_flight=1), True),  # Kubernetes would kill at 60
        (moment(8.0, is_leader=True), False),  # a successor is being found
        (moment(10.9, is_leader=True), False),
        (moment(11.0, is_leader=True), True),  # there is none
        (moment(8.0, is_leader=True, has_peers=False), True),  # there can be none
        (moment(0.1, 0.0), True),  # asked twice: at once if nothing is in flight ...
        (moment(0.1, 0.0, in_flight=1), False),
        (moment(2.1, 2.0, in_flight=1), True),  # ... and soon if something is
        (moment(0.1, 0.0, is_leader=True), True),
    ],
)
def test_operator_rule_15_when_a_draining_node_may_end(now: Moment, ends: bool) -> None:
    assert may_end(now, drain_seconds=8.0) is ends


@pytest.mark.parametrize("seconds", [0.0, 8.0, 40.0])
def test_operator_rule_15_the_drain_ends_before_the_pod_is_killed(seconds: float) -> None:
    assert may_end(moment(55.0, in_flight=9, is_leader=True), seconds)


class DrainingNode:
    """A driver, as far as the drain sees it."""

    def __init__(self) -> None:
        self.draining_since: float | None = None
        self.pending_count = 0
        self.stopped: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.role = "follower"
        self.members = THREE

    async def drain(self, *, draining: bool) -> Drained:
        assert draining
        if self.draining_since is None:
            self.draining_since = asyncio.get_running_loop().time()
        return Drained(draining=True)

    def status(self) -> Status:
        return status(role=self.role)

    def cluster(self) -> ClusterStatus:
        return cluster(*self.members)


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> DrainingNode:
    monkeypatch.setattr(drain_module, "POLL_SECONDS", 0.001)
    return DrainingNode()


async def test_operator_rule_15_the_sequence(node: DrainingNode) -> None:
    """Not ready at once; then the time, the last answers and the leadership, in any order."""
    node.role, node.pending_count = "leader", 1
    owed = [1]
    clock = asyncio.get_running_loop().time
    started_at = clock()
    draining = asyncio.ensure_future(drain(node, lambda: owed[0], 0.05, Hurry()))
    await until("not ready", lambda: node.draining_since is not None)
    await until("the time has passed", lambda: clock() > started_at + 0.06)
    for step in ("pending", "owed", "role"):
        for _ in range(5):
            await asyncio.sleep(0.001)
        assert not draining.done(), f"ended before {step}"
        if step == "pending":
            node.pending_count = 0
        elif step == "owed":
            owed[0] = 0
        else:
            node.role = "follower"
    async with asyncio.timeout(5):
        await draining


async def test_a_drain_that_an_administrator_began_counts(node: DrainingNode) -> None:
    node.draining_since = asyncio.get_running_loop().time() - 9
    async with asyncio.timeout(5):
        await drain(node, lambda: 0, 8.0, Hurry())


async def test_a_second_signal_hurries(node: DrainingNode) -> None:
    node.role = "leader"
    hurry = Hurry()
    draining = asyncio.ensure_future(drain(node, lambda: 0, 8.0, hurry))
    await until("not ready", lambda: node.draining_since is not None)
    assert not draining.done()
    hurry.begin()
    since = hurry.since
    hurry.begin()
    assert hurry.since == since
    async with asyncio.timeout(5):
        await draining


async def test_a_node_that_stops_while_draining_ends_the_drain(node: DrainingNode) -> None:
    draining = asyncio.ensure_future(drain(node, lambda: 1, 8.0, Hurry()))
    await until("not ready", lambda: node.draining_since is not None)
    node.stopped.set_result("fsync failed")
    async with asyncio.timeout(5):
        await draining
