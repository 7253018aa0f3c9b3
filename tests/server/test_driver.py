"""The driver with a fake node: what reaches the node when, and what becomes of its effects."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from raftkv.kv.outcomes import Written
from raftkv.node.events import (
    Bootstrapped,
    BootstrapRequest,
    CancelRequest,
    Consistency,
    Continue,
    DiskDone,
    Drained,
    DrainRequest,
    Effect,
    Event,
    FrameReceived,
    Get,
    Look,
    ReadRequest,
    ReadResult,
    Reply,
    RoleChanged,
    Stop,
    SubmitDisk,
    TellCommit,
    TellCommitSoon,
    Tick,
    WriteRequest,
)
from raftkv.node.messages import Failure, FailureCode, PeerFrame
from raftkv.raft.messages import Heartbeat
from raftkv.server import driver as driver_module
from raftkv.server.addresses import Address
from raftkv.server.driver import Driver
from raftkv.server.frames import PREAMBLE, Hello, encode
from raftkv.storage.disk import DiskError, DiskOps, DiskResult, Fdatasync, FsyncDir, Lane
from tests.server.fakes import FakeDisk, FakeMetrics, FakeNode
from tests.server.waiting import until

BOTH_LOOPS = True

WRITTEN = Written(revision=1, version=1)
SYNC = SubmitDisk(1, (Fdatasync(3),))
LONG_TICK_SECONDS = 3600.0


class NoDelay:
    def uniform(self, a: float, b: float) -> float:
        return a


class Setting:
    """Makes drivers and closes them."""

    def __init__(self) -> None:
        self.drivers: list[Driver] = []
        self.metrics = FakeMetrics()
        self.roles: list[RoleChanged] = []

    def driver(
        self,
        node: FakeNode,
        disk: FakeDisk | None = None,
        *,
        tick_seconds: float = LONG_TICK_SECONDS,
        pending_requests_max: int = 100,
    ) -> Driver:
        made = Driver(
            node,
            disk or FakeDisk(),
            self.metrics,
            NoDelay(),
            tick_seconds=tick_seconds,
            pending_requests_max=pending_requests_max,
            on_role=self.roles.append,
        )
        self.drivers.append(made)
        return made


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    made = Setting()
    yield made
    for driver in made.drivers:
        await driver.close()


def answering(answer: object) -> Callable[[Event], Sequence[Effect]]:
    """A node that answers every request at once."""

    def react(event: Event) -> Sequence[Effect]:
        if isinstance(event, WriteRequest | ReadRequest | BootstrapRequest | DrainRequest):
            return [Reply(event.id, answer)]  # type: ignore[arg-type]
        return []

    return react


# ---- turns ----------------------------------------------------------------------------------


async def test_rule_04_all_inputs_of_a_loop_turn_are_handled_together(setting: Setting) -> None:
    node = FakeNode(react=answering(WRITTEN))
    driver = setting.driver(node)
    answers = await asyncio.gather(*(driver.write(b"%d" % n, 5.0) for n in range(20)))
    assert answers == [WRITTEN] * 20
    [turn] = node.turns
    assert [event.command for event in turn if isinstance(event, WriteRequest)] == [
        b"%d" % n for n in range(20)
    ]
    assert len({event.id for event in turn if isinstance(event, WriteRequest)}) == 20


async def test_rule_04_inputs_are_handled_while_the_disk_works(setting: Setting) -> None:
    release = threading.Event()

    def perform(_: DiskOps) -> list[DiskResult]:
        assert release.wait(10)
        return [None]

    node = FakeNode(react=answering(WRITTEN), starting=[SYNC])
    driver = setting.driver(node, FakeDisk(perform))
    await driver.start()
    assert await driver.write(b"", 5.0) == WRITTEN
    assert node.events(DiskDone) == []
    release.set()
    await until("the disk's answer", lambda: node.events(DiskDone) == [DiskDone(1, [None])])


async def test_continue_calls_the_node_again_without_an_event(setting: Setting) -> None:
    effects: dict[type, Sequence[Effect]] = {Tick: [Continue()]}
    node = FakeNode(react=lambda event: effects.get(type(event), ()))
    driver = setting.driver(node)
    driver.post(Tick())
    await until("two turns", lambda: len(node.turns) == 2)
    assert node.turns == [[Tick()], []]


async def test_an_event_from_which_nothing_follows_waits_for_the_next_one(setting: Setting) -> None:
    node = FakeNode(patient=[Look()])
    driver = setting.driver(node)
    driver.post(Look())
    await asyncio.sleep(0)  # a turn would be due by now
    await asyncio.sleep(0)
    assert node.turns == []
    driver.post(Tick())
    await until("a turn", lambda: node.turns)
    assert node.turns == [[Look(), Tick()]]


async def test_news_of_a_commit_are_told_once_after_the_last_that_came_soon(
    setting: Setting,
) -> None:
    effects: dict[type, Sequence[Effect]] = {Tick: [TellCommitSoon(0.01)]}
    node = FakeNode(react=lambda event: effects.get(type(event), ()))
    driver = setting.driver(node)
    for _ in range(3):
        driver.post(Tick())
        await asyncio.sleep(0)
    await until("told", lambda: node.events(TellCommit))
    await asyncio.sleep(0.03)
    assert node.events(TellCommit) == [TellCommit()]


async def test_a_timer_that_is_put_off_does_not_spin(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that keeps its timers in milliseconds fires one for less of them at once."""
    fired: list[float] = []
    on_timer = Driver._on_news_timer

    def count(self: Driver) -> None:
        fired.append(self._loop.time())
        on_timer(self)

    monkeypatch.setattr(Driver, "_on_news_timer", count)
    effects: dict[type, Sequence[Effect]] = {Tick: [TellCommitSoon(0.002)]}
    driver = setting.driver(FakeNode(react=lambda event: effects.get(type(event), ())))
    for _ in range(300):
        driver.post(Tick())
        await asyncio.sleep(0.0013)
    assert max(Counter(fired).values()) <= 2


async def test_role_changes_are_told(setting: Setting) -> None:
    change = RoleChanged("leader", 3, 1)
    driver = setting.driver(FakeNode(react=lambda _: [change]))
    driver.post(Tick())
    await until("told", lambda: setting.roles == [change])


# ---- requests -------------------------------------------------------------------------------


async def test_requests_carry_their_deadline_and_meaning(setting: Setting) -> None:
    node = FakeNode(react=answering(ReadResult(None, 7)))
    driver = setting.driver(node)
    before = asyncio.get_running_loop().time()
    assert await driver.read(Get(b"k"), Consistency.LOCAL, 5, 2.0) == ReadResult(None, 7)
    [request] = node.turns[0]
    assert isinstance(request, ReadRequest)
    assert (request.query, request.consistency, request.min_revision) == (
        Get(b"k"),
        Consistency.LOCAL,
        5,
    )
    assert before + 2 <= request.deadline <= asyncio.get_running_loop().time() + 2


async def test_bootstrap_and_drain_are_answered(setting: Setting) -> None:
    answers: dict[type, object] = {
        BootstrapRequest: Bootstrapped("c1", repeated=False),
        DrainRequest: Drained(draining=True),
    }
    node = FakeNode(react=lambda event: answering(answers[type(event)])(event))
    driver = setting.driver(node)
    assert await driver.bootstrap("c1", ()) == Bootstrapped("c1", repeated=False)
    since = [driver.draining_since]
    for draining in (True, True, False):
        await driver.drain(draining=draining, avoid=(2,))
        since.append(driver.draining_since)
    assert since[0] is since[3] is None
    assert since[1] == since[2] is not None
    first = node.events(DrainRequest)[0]
    assert isinstance(first, DrainRequest)
    assert first.avoid == (2,)


async def test_rule_18_a_client_that_goes_away_cancels_its_request(setting: Setting) -> None:
    node = FakeNode()
    driver = setting.driver(node)
    waiting = asyncio.ensure_future(driver.write(b"", 5.0))
    await until("the request", lambda: node.turns)
    [request] = node.turns[0]
    assert isinstance(request, WriteRequest)
    waiting.cancel()
    await until("the cancellation", lambda: len(node.turns) == 2)
    assert node.turns[1] == [CancelRequest(request.id)]
    assert driver.pending_count == 0
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_answered_request_is_not_cancelled_any_more(setting: Setting) -> None:
    node = FakeNode(react=answering(WRITTEN))
    driver = setting.driver(node)
    waiting = asyncio.ensure_future(driver.write(b"", 5.0))
    await until("the answer", lambda: node.turns and driver.pending_count == 0)
    waiting.cancel()
    await asyncio.wait([waiting])
    driver.post(Tick())
    await until("another turn", lambda: len(node.turns) == 2)
    assert node.events(CancelRequest) == []


async def test_faults_row_42_requests_beyond_the_bound_are_refused_at_once(
    setting: Setting,
) -> None:
    node = FakeNode()
    driver = setting.driver(node, pending_requests_max=3)
    waiting = [asyncio.ensure_future(driver.write(b"", 5.0)) for _ in range(3)]
    await until("three requests", lambda: driver.pending_count == 3)
    refused = await driver.read(Get(b"k"), Consistency.LOCAL, 0, 5.0)
    assert isinstance(refused, Failure)
    assert refused.code == FailureCode.OVERLOADED
    assert len(node.events(ReadRequest)) == 0
    for each in waiting:
        each.cancel()
    await until("none", lambda: driver.pending_count == 0)


async def test_an_overloaded_node_can_be_drained(setting: Setting) -> None:
    """Of all nodes: refused, it would stay ready and lead until it is killed."""
    node = FakeNode(
        react=lambda event: (
            [Reply(event.id, Drained(event.draining))] if isinstance(event, DrainRequest) else []
        )
    )
    driver = setting.driver(node, pending_requests_max=1)
    waiting = asyncio.ensure_future(driver.write(b"", 5.0))
    await until("a request", lambda: driver.pending_count == 1)
    assert await driver.drain(draining=True) == Drained(draining=True)
    waiting.cancel()
    await until("none", lambda: driver.pending_count == 0)


# ---- the disk -------------------------------------------------------------------------------


async def test_submissions_are_performed_in_order_by_one_thread(setting: Setting) -> None:
    seen: list[tuple[int, DiskOps]] = []

    def perform(ops: DiskOps) -> list[DiskResult]:
        seen.append((threading.get_ident(), ops))
        return [len(seen)]

    submissions = [SubmitDisk(n, (FsyncDir(str(n)),)) for n in range(1, 51)]
    node = FakeNode(starting=submissions)
    driver = setting.driver(node, FakeDisk(perform))
    await driver.start()
    await until("all done", lambda: len(node.events(DiskDone)) == 50)
    assert [ops for _, ops in seen] == [submission.ops for submission in submissions]
    assert len({thread for thread, _ in seen}) == 1
    assert seen[0][0] != threading.get_ident()
    assert node.events(DiskDone) == [DiskDone(n, [n]) for n in range(1, 51)]


async def test_a_failed_operation_is_the_nodes_business(setting: Setting) -> None:
    error = DiskError(Fdatasync(3), 5, "input/output error")

    def perform(_: DiskOps) -> list[DiskResult]:
        raise error

    node = FakeNode(starting=[SYNC])
    driver = setting.driver(node, FakeDisk(perform))
    await driver.start()
    await until("told", lambda: node.events(DiskDone) == [DiskDone(1, error)])
    assert not driver.stopped.done()


async def test_only_durable_writes_are_measured(setting: Setting) -> None:
    node = FakeNode(starting=[SubmitDisk(1, (FsyncDir("."),)), SubmitDisk(2, (Fdatasync(3),))])
    driver = setting.driver(node)
    await driver.start()
    await until("both done", lambda: len(node.events(DiskDone)) == 2)
    assert len(setting.metrics.wal_fsync_seconds) == 1


async def test_faults_row_26_a_disk_that_hangs_makes_the_node_stuck(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def perform(_: DiskOps) -> list[DiskResult]:
        assert release.wait(10)
        return []

    driver = setting.driver(FakeNode(starting=[SYNC]), FakeDisk(perform))
    await driver.start()
    assert driver.is_stuck() is None
    monkeypatch.setattr(driver_module, "STUCK_SECONDS", 0.01)
    await until("stuck", lambda: "disk" in (driver.is_stuck() or ""))
    release.set()
    await until("not stuck", lambda: driver.is_stuck() is None)


async def test_rule_26_the_log_does_not_wait_behind_a_snapshot(setting: Setting) -> None:
    release = threading.Event()
    threads = set[int]()

    def perform(ops: DiskOps) -> list[DiskResult]:
        threads.add(threading.get_ident())
        if isinstance(ops[0], FsyncDir):
            assert release.wait(10)
        return []

    submissions = [
        SubmitDisk(1, (FsyncDir("snapshots"), Fdatasync(9)), Lane.BULK),
        SubmitDisk(2, (FsyncDir("again"),), Lane.BULK),
        *(SubmitDisk(number, (Fdatasync(3),)) for number in (3, 4, 5)),
    ]
    node = FakeNode(starting=submissions)
    driver = setting.driver(node, FakeDisk(perform))
    await driver.start()
    await until("the log is written", lambda: len(node.events(DiskDone)) == 3)
    assert node.events(DiskDone) == [DiskDone(number, []) for number in (3, 4, 5)]
    await until("the snapshot waits in a thread of its own", lambda: len(threads) == 2)
    release.set()
    await until("all done", lambda: len(node.events(DiskDone)) == 5)
    # The time of a snapshot says nothing about the log.
    assert len(setting.metrics.wal_fsync_seconds) == 3


async def test_faults_row_26_a_snapshot_may_take_longer_than_the_log(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def perform(_: DiskOps) -> list[DiskResult]:
        assert release.wait(10)
        return []

    node = FakeNode(starting=[SubmitDisk(1, (FsyncDir("."),), Lane.BULK)])
    driver = setting.driver(node, FakeDisk(perform))
    await driver.start()
    monkeypatch.setattr(driver_module, "STUCK_SECONDS", 0.0)
    assert driver.is_stuck() is None
    monkeypatch.setattr(driver_module, "BULK_STUCK_SECONDS", 0.01)
    await until("stuck", lambda: "disk" in (driver.is_stuck() or ""))
    release.set()
    await until("not stuck", lambda: driver.is_stuck() is None)


# ---- ticks ----------------------------------------------------------------------------------


async def test_ticks_come_at_their_interval(setting: Setting) -> None:
    node = FakeNode()
    driver = setting.driver(node, tick_seconds=0.005)
    started_at = asyncio.get_running_loop().time()
    await driver.start()
    await until("twenty ticks", lambda: len(node.events(Tick)) >= 20)
    elapsed = asyncio.get_running_loop().time() - started_at
    assert elapsed >= 20 * 0.005 - 0.002
    assert len(setting.metrics.event_loop_lag_seconds) >= 20


async def test_rule_17_a_late_tick_counts_once(setting: Setting) -> None:
    node = FakeNode()
    driver = setting.driver(node, tick_seconds=0.05)
    await driver.start()
    threading.Event().wait(0.5)  # the loop stands still for ten ticks
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(node.events(Tick)) == 1
    assert max(setting.metrics.event_loop_lag_seconds) > 0.4


async def test_rule_17_what_peers_had_sent_comes_before_a_late_tick(setting: Setting) -> None:
    """Else a process that stood still would hold an election beside a living leader."""
    ours, theirs = socket.socketpair()
    frame = PeerFrame("c1", 2, 1, (Heartbeat(2, 1, 1, 0, 0, 1),))
    seen: list[str] = []

    def react(event: Event) -> Sequence[Effect]:
        if isinstance(event, FrameReceived):
            seen.append("heartbeat")
        elif isinstance(event, Tick):
            seen.append("tick")
            theirs.send(b"x")
        return ()

    driver = setting.driver(FakeNode(react=react), tick_seconds=0.02)
    address = await driver.transport.listen(Address("127.0.0.1", 0), lambda _: None)
    with socket.create_connection((address.host, address.port)) as peer:
        peer.sendall(PREAMBLE + b"".join(encode(Hello("c1", 2, 1, 1))))
        await until("greeted", lambda: driver.transport._latest)

        def stand_still() -> None:
            """For several ticks, in the phase of the loop that is worst: amid its sockets."""
            ours.recv(1)
            peer.sendall(b"".join(encode(frame)))
            threading.Event().wait(0.1)

        asyncio.get_running_loop().add_reader(ours, stand_still)
        await driver.start()
        await until("ten rounds", lambda: len(seen) >= 20)
        asyncio.get_running_loop().remove_reader(ours)
    assert seen[:20] == ["tick", "heartbeat"] * 10
    await driver.close()
    ours.close()
    theirs.close()


# ---- the end --------------------------------------------------------------------------------


async def test_rule_05_stop_ends_everything_and_says_why(setting: Setting) -> None:
    node = FakeNode(react=lambda event: [Stop("fsync failed")] if event == Tick() else [])
    driver = setting.driver(node)
    write = asyncio.ensure_future(driver.write(b"", 5.0))
    read = asyncio.ensure_future(driver.read(Get(b"k"), Consistency.LOCAL, 0, 5.0))
    await until("both wait", lambda: driver.pending_count == 2)
    driver.post(Tick())
    assert await driver.stopped == "fsync failed"
    lost, refused = await write, await read
    assert isinstance(lost, Failure)
    assert isinstance(refused, Failure)
    assert (lost.code, refused.code) == (FailureCode.UNKNOWN, FailureCode.STOPPED)
    turns = len(node.turns)
    driver.post(Tick())
    late = await driver.write(b"", 5.0)
    assert isinstance(late, Failure)
    assert late.code == FailureCode.STOPPED
    assert len(node.turns) == turns
    await driver.close()
    assert not node.is_closed


async def test_what_is_forgotten_while_the_driver_ends_is_not_answered(setting: Setting) -> None:
    driver = setting.driver(FakeNode())
    answers: list[object] = []

    def take(answer: object) -> None:
        answers.append(answer)
        driver.forget(second)

    how = (Consistency.LINEARIZABLE, 0, 5.0, 0.0)
    driver.begin_read(Get(b"a"), how, take)
    second = driver.begin_read(Get(b"b"), how, answers.append)
    driver.refuse_requests()
    assert answers == [None]
    assert driver.pending_count == 0


async def test_an_exception_in_the_node_stops_it_for_good(setting: Setting) -> None:
    def react(_: Event) -> Sequence[Effect]:
        raise AssertionError("match went back")

    driver = setting.driver(FakeNode(react=react))
    driver.post(Tick())
    assert await driver.stopped == "internal error: AssertionError: match went back"


async def test_close_does_not_wait_for_a_disk_that_hangs(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "DISK_SECONDS_MAX", 0.05)
    release = threading.Event()

    def perform(_: DiskOps) -> list[DiskResult]:
        assert release.wait(10)
        return []

    node = FakeNode(starting=[SYNC])
    driver = setting.driver(node, FakeDisk(perform))
    await driver.start()
    async with asyncio.timeout(5):
        assert not await driver.close()
    assert not node.is_closed, "half a write is no clean end"
    release.set()


async def test_close_lets_the_disk_finish_before_it_closes_the_node(setting: Setting) -> None:
    release = threading.Event()
    done: list[str] = []

    def perform(_: DiskOps) -> list[DiskResult]:
        assert release.wait(10)
        done.append("disk")
        return []

    def react(event: Event) -> Sequence[Effect]:
        if isinstance(event, DiskDone) and event.submission == 1:
            return [SubmitDisk(2, ())]
        return []

    node = FakeNode(starting=[SYNC], react=react)
    driver = setting.driver(node, FakeDisk(perform))
    await driver.start()
    closing = asyncio.ensure_future(driver.close())
    await asyncio.sleep(0)
    driver.post(Tick())
    was_closed = node.is_closed
    release.set()
    await closing
    assert not was_closed
    assert done == ["disk", "disk"]
    assert node.is_closed
    assert node.events(Tick) == []


async def test_start_returns_when_the_node_knows_who_it_is(setting: Setting) -> None:
    node = FakeNode(identity=None, starting=[SYNC])
    driver = setting.driver(node)
    starting = asyncio.ensure_future(driver.start())
    await until("recovery goes on", lambda: node.events(DiskDone))
    before = driver.member_id
    assert not starting.done()
    node.identity = FakeNode().identity
    driver.post(Tick())
    await starting
    assert (before, driver.member_id, driver.cluster_id) == (None, 1, "c1")
