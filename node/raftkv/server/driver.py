"""The asyncio shell of a node: turns sockets, timers and the disk into events, and acts.

Owns *when* the node class is called and how its effects are carried out; decides nothing itself
(node design, rule 1). All inputs that came since the last turn are given to the node together,
once per turn of the event loop, also while the disk works (rule 4): that is what makes requests
share log entries, disk writes and quorum rounds without any timer.

    sockets, timers, disk lanes, HTTP handlers --post()--> events --Node.handle()--> effects
    effects --> transport, disk lanes, futures of the HTTP handlers

Everything runs on the event loop's thread. An exception out of the node means that its state can
no longer be trusted: the driver stops for good, and the process ends.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from raftkv.kv.outcomes import Outcome
from raftkv.node.events import (
    Advanced,
    Answer,
    BackupEndRequest,
    BackupOpened,
    BackupPiece,
    BackupReadRequest,
    BackupRequest,
    Bootstrapped,
    BootstrapRequest,
    CancelRequest,
    ConfigChangeRequest,
    Consistency,
    Continue,
    DiskDone,
    Diverged,
    Drained,
    DrainRequest,
    Event,
    Found,
    LockRequest,
    Look,
    PeersChanged,
    Query,
    ReadRequest,
    Reply,
    RoleChanged,
    Send,
    SnapshotRequest,
    SnapshotTaken,
    Stale,
    Stop,
    SubmitDisk,
    TellCommit,
    TellCommitSoon,
    Tick,
    TransferRequest,
    WriteRequest,
)
from raftkv.node.messages import ConfigChanged, Failure, FailureCode, RequestId, Transferred
from raftkv.node.status import ClusterStatus, Status
from raftkv.raft.confchange import ConfigChange
from raftkv.raft.messages import Member, NodeId
from raftkv.server.disk_lanes import BlockingDisk, DiskLanes
from raftkv.server.driven import DrivenNode, DriverMetrics
from raftkv.server.driver_api import Done, HowToRead
from raftkv.server.log_times import LogTimes
from raftkv.server.transport import PeerTransport
from raftkv.server.transport import Rng as TransportRng
from raftkv.storage.disk import Lane

_LOG: Final = logging.getLogger(__name__)

# A probe of liveness fails when the disk has not answered for so long (API contract, /livez).
STUCK_SECONDS: Final = 30.0
# The same for one operation on a snapshot, which is as long as the state is large.
BULK_STUCK_SECONDS: Final = 900.0
# How long the end of the process waits for the disk; with a drain before, less than Kubernetes'.
DISK_SECONDS_MAX: Final = 5.0


class Driver:
    """Runs one node; `raftkv.server.driver_api.DriverApi` for the HTTP layer.

    After `start`, whoever owns it awaits `stopped` and ends the process when it has a reason.
    """

    def __init__(
        self,
        node: DrivenNode,
        disk: BlockingDisk,
        metrics: DriverMetrics,
        rng: TransportRng,
        *,
        tick_seconds: float,
        pending_requests_max: int,
        on_role: Callable[[RoleChanged], None] = lambda _: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._node = node
        self._metrics = metrics
        self._tick_seconds = tick_seconds
        self._pending_requests_max = pending_requests_max
        self._log_times = LogTimes(
            metrics.wal_queue_seconds.observe, metrics.commit_seconds.observe
        )
        self._disk = DiskLanes(disk, self.post, metrics.wal_fsync_seconds.observe)
        self.transport = PeerTransport(
            self, rng, lambda reason: metrics.count_peer_refused(reason.value)
        )
        # Inputs since the last turn, and whether the next turn is already scheduled.
        self._events: list[Event] = []
        self._is_turn_scheduled = False
        # Who takes the answers to requests.
        self._pending: dict[RequestId, Done] = {}
        self._last_request_id = 0
        self._tick_due_at = 0.0
        self._tick_timer: asyncio.TimerHandle | None = None
        self._news_timer: asyncio.TimerHandle | None = None
        self._news_due_at = 0.0
        self._is_closing = False
        #: Loop time at which the drain under way began.
        self.draining_since: float | None = None
        #: Resolved with the reason when the node can no longer go on.
        self.stopped: asyncio.Future[str] = self._loop.create_future()
        #: Told the store's revision whenever it has grown; watches set it.
        self.on_revision: Callable[[int], None] = lambda _: None
        # Called after each turn while somebody waits for the node to come to a state.
        self._watcher: Callable[[], None] | None = None
        self._perform: dict[type, Callable[[Any], None]] = {
            Reply: self._on_reply,
            Send: self._on_send,
            SubmitDisk: self._disk.submit,
            PeersChanged: self._on_peers_changed,
            RoleChanged: on_role,
            Advanced: self._on_advanced,
            Diverged: self._on_diverged,
            Stop: self._on_stop,
            Continue: self._on_continue,
            TellCommitSoon: self._on_tell_commit_soon,
        }

    # ---- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover and begin to tick; returns when the node knows who it is, or has stopped."""
        who = "the kernel" if self._disk.start() else "a thread"
        _LOG.debug("%s waits for the disk", who)
        for effect in self._node.start(self._loop.time()):
            self._perform[type(effect)](effect)
        self._tick_due_at = self._loop.time() + self._tick_seconds
        self._tick_timer = self._loop.call_at(self._tick_due_at, self._on_tick_timer)
        await self._until(lambda: self._node.identity is not None)

    def refuse_requests(self) -> None:
        """Take nothing in any more. To be followed by `close`.

        What is still pending is answered STOPPED, or UNKNOWN if it is a write.
        """
        self._is_closing = True
        self._fail_pending()

    async def close(self) -> bool:
        """Refuse requests, let the disk finish, and close the node cleanly.

        Returns whether the disk is at rest. One that does not finish is left as it is: the next
        start recovers, as after a crash.
        """
        self.refuse_requests()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        await self.transport.close()
        try:
            async with asyncio.timeout(DISK_SECONDS_MAX):
                await self._until(lambda: self._disk.is_idle and not self._is_turn_scheduled)
        except TimeoutError:
            _LOG.warning("the disk has not finished for %g s: not waiting", DISK_SECONDS_MAX)
            return False
        self._disk.close()
        if not self.stopped.done():
            self._node.close()
        return True

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a turn after which ``condition`` holds, or for the node to stop."""
        reached = self._loop.create_future()

        def check() -> None:
            if not reached.done() and (condition() or self.stopped.done()):
                reached.set_result(None)

        self._watcher = check
        check()
        try:
            await reached
        finally:
            self._watcher = None

    # ---- the HTTP layer's interface ---------------------------------------------------------

    async def write(self, command: bytes, timeout_seconds: float) -> Outcome | Failure:
        """See `DriverApi`."""
        deadline = self._loop.time() + timeout_seconds
        answer: Outcome | Failure
        answer = await self._ask(WriteRequest(self._next_id(), command, deadline))
        return answer

    async def read(
        self,
        query: Query,
        consistency: Consistency,
        min_revision: int,
        timeout_seconds: float,
        max_stale_seconds: float = 0.0,
    ) -> Found | Stale | Failure:
        """See `DriverApi`."""
        deadline = self._loop.time() + timeout_seconds
        request = ReadRequest(
            self._next_id(), query, consistency, min_revision, deadline, max_stale_seconds
        )
        answer: Found | Stale | Failure = await self._ask(request)
        return answer

    def begin_write(self, command: bytes, timeout_seconds: float, done: Done) -> RequestId:
        """See `DriverApi`."""
        failure = self._refusal()
        if failure is not None:
            self._loop.call_soon(done, failure)
            return 0
        self._last_request_id = request_id = self._last_request_id + 1
        self._pending[request_id] = done
        deadline = self._loop.time() + timeout_seconds
        self.post(WriteRequest(request_id, command, deadline))
        return request_id

    def begin_read(self, query: Query, how: HowToRead, done: Done) -> RequestId:
        """See `DriverApi`."""
        failure = self._refusal()
        if failure is not None:
            self._loop.call_soon(done, failure)
            return 0
        consistency, min_revision, timeout_seconds, max_stale_seconds = how
        self._last_request_id = request_id = self._last_request_id + 1
        self._pending[request_id] = done
        deadline = self._loop.time() + timeout_seconds
        self.post(
            ReadRequest(request_id, query, consistency, min_revision, deadline, max_stale_seconds)
        )
        return request_id

    def forget(self, request_id: RequestId) -> None:
        """See `DriverApi`."""
        if self._pending.pop(request_id, None) is not None:
            self.post(CancelRequest(request_id))

    async def lock(
        self, command: bytes, name: bytes, wait_seconds: float, timeout_seconds: float
    ) -> Outcome | Failure:
        """See `DriverApi`."""
        now = self._loop.time()
        answer: Outcome | Failure = await self._ask(
            LockRequest(self._next_id(), command, name, now + wait_seconds, now + timeout_seconds)
        )
        return answer

    async def change_config(
        self, change: ConfigChange, config_index: int | None, timeout_seconds: float
    ) -> ConfigChanged | Failure:
        """See `DriverApi`."""
        deadline = self._loop.time() + timeout_seconds
        answer: ConfigChanged | Failure = await self._ask(
            ConfigChangeRequest(self._next_id(), change, config_index, deadline)
        )
        return answer

    async def transfer(
        self, target: NodeId | None, timeout_seconds: float
    ) -> Transferred | Failure:
        """See `DriverApi`."""
        deadline = self._loop.time() + timeout_seconds
        answer: Transferred | Failure = await self._ask(
            TransferRequest(self._next_id(), target, deadline)
        )
        return answer

    async def snapshot(self) -> SnapshotTaken | Failure:
        """See `DriverApi`."""
        answer: SnapshotTaken | Failure = await self._ask(SnapshotRequest(self._next_id()))
        return answer

    async def backup(self) -> BackupOpened | Failure:
        """See `DriverApi`."""
        answer: BackupOpened | Failure = await self._ask(BackupRequest(self._next_id()))
        return answer

    async def backup_piece(self, handle: int, offset: int, size: int) -> BackupPiece | Failure:
        """See `DriverApi`."""
        answer: BackupPiece | Failure
        answer = await self._ask(BackupReadRequest(self._next_id(), handle, offset, size))
        return answer

    def backup_end(self, handle: int) -> None:
        """See `DriverApi`."""
        self.post(BackupEndRequest(handle))

    async def bootstrap(
        self, cluster_id: str, members: tuple[Member, ...]
    ) -> Bootstrapped | Failure:
        """See `DriverApi`."""
        answer: Bootstrapped | Failure
        answer = await self._ask(BootstrapRequest(self._next_id(), cluster_id, members))
        return answer

    async def drain(self, *, draining: bool, avoid: tuple[NodeId, ...] = ()) -> Drained | Failure:
        """See `DriverApi`."""
        if not draining:
            self.draining_since = None
        elif self.draining_since is None:
            self.draining_since = self._loop.time()
        answer: Drained | Failure
        answer = await self._ask(DrainRequest(self._next_id(), draining, avoid))
        return answer

    def status(self) -> Status:
        """See `DriverApi`."""
        return self._node.status(self._loop.time())

    def cluster(self) -> ClusterStatus:
        """See `DriverApi`."""
        return self._node.cluster()

    def look(self) -> None:
        """See `DriverApi`."""
        self.post(Look())

    def client_url_of(self, member: NodeId) -> str | None:
        """See `DriverApi`."""
        urls = (other.client_url for other in self.cluster().members if other.id == member)
        return next(urls, None)

    def is_stuck(self) -> str | None:
        """See `DriverApi`.

        A loop that hangs cannot answer at all; what is seen here is a disk that does not answer
        and a tick that was lost.
        """
        for lane, seconds_max in ((Lane.WAL, STUCK_SECONDS), (Lane.BULK, BULK_STUCK_SECONDS)):
            disk_seconds = self._disk.oldest_age_seconds(lane)
            if disk_seconds > seconds_max:
                return f"a disk operation has not finished for {disk_seconds:.0f} s"
        late_seconds = self._loop.time() - self._tick_due_at
        if self._tick_timer is not None and late_seconds > STUCK_SECONDS:
            return f"the clock has not ticked for {late_seconds:.0f} s"
        return None

    @property
    def pending_count(self) -> int:
        """Requests that wait for the node's answer."""
        return len(self._pending)

    # ---- the transport's interface ----------------------------------------------------------

    @property
    def member_id(self) -> NodeId | None:
        """See `NodeView`."""
        identity = self._node.identity
        return None if identity is None else identity.member_id

    @property
    def cluster_id(self) -> str | None:
        """See `NodeView`."""
        identity = self._node.identity
        return None if identity is None else identity.cluster_id

    def post(self, event: Event) -> None:
        """Give the node an input; it is handled with all others of this turn of the loop."""
        if self.stopped.done() or (self._is_closing and type(event) is not DiskDone):
            return
        self._events.append(event)
        if not (self._is_turn_scheduled or self._node.may_wait(event)):
            self._schedule_turn()

    # ---- one turn ---------------------------------------------------------------------------

    def _schedule_turn(self) -> None:
        if not self._is_turn_scheduled:
            self._is_turn_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turn_scheduled = False
        if self.stopped.done():
            return
        events, self._events = self._events, []
        try:
            for effect in self._node.handle(events, self._loop.time()):
                self._perform[type(effect)](effect)
        except Exception as error:  # noqa: BLE001 - the one place that ends the process
            # Whatever it is: half a turn was done, and going on could break a promise.
            _LOG.critical("the node failed in a way that is a bug", exc_info=True)
            self._stop(f"internal error: {type(error).__name__}: {error}")
        else:
            self._log_times.turn(self._node.positions())
        if self._watcher is not None:
            self._watcher()

    def _on_reply(self, reply: Reply) -> None:
        done = self._pending.pop(reply.id, None)
        if done is not None:
            done(reply.answer)

    def _on_send(self, send: Send) -> None:
        self.transport.send(send.channel, send.frame)

    def _on_peers_changed(self, change: PeersChanged) -> None:
        self.transport.set_peers(change.cluster_id, change.members)

    def _on_advanced(self, advanced: Advanced) -> None:
        self.on_revision(advanced.revision)

    def _on_diverged(self, found: Diverged) -> None:
        _LOG.critical(
            "this node and member %016x hold different states after entry %d: one of them is wrong",
            found.peer,
            found.index,
        )

    def _on_continue(self, _: Continue) -> None:
        self._schedule_turn()

    def _on_tell_commit_soon(self, soon: TellCommitSoon) -> None:
        # Under load this is asked for with every write: a timer that runs is left to run.
        self._news_due_at = self._loop.time() + soon.seconds
        if self._news_timer is None:
            self._news_timer = self._loop.call_at(self._news_due_at, self._on_news_timer)

    def _on_news_timer(self) -> None:
        self._news_timer = None
        # uvloop's timers count whole milliseconds: for less, one would fire over and over.
        if self._loop.time() < self._news_due_at - 0.0005:
            self._news_timer = self._loop.call_at(self._news_due_at, self._on_news_timer)
        else:
            self.post(TellCommit())

    def _on_stop(self, stop: Stop) -> None:
        self._stop(stop.reason)

    def _stop(self, reason: str) -> None:
        if not self.stopped.done():
            self.stopped.set_result(reason)
            self._fail_pending()

    # ---- ticks ------------------------------------------------------------------------------

    def _on_tick_timer(self) -> None:
        now = self._loop.time()
        self._metrics.event_loop_lag_seconds.observe(max(0.0, now - self._tick_due_at))
        # A late tick counts once: time in which this process did not run is no evidence that
        # a leader was silent. A tick late by less than an interval keeps to the grid.
        next_due_at = self._tick_due_at + self._tick_seconds
        self._tick_due_at = next_due_at if next_due_at > now else now + self._tick_seconds
        self._tick_timer = self._loop.call_at(self._tick_due_at, self._on_tick_timer)
        # After a stall there are heartbeats in the sockets, and they come before the tick that
        # may start an election (rule 17). Timers may run before sockets are polled (libuv), and
        # callbacks queued now before those of the sockets (asyncio): the second hop is behind a
        # full pass over all sockets in both.
        self._loop.call_soon(self._loop.call_soon, self.post, Tick())

    # ---- requests ---------------------------------------------------------------------------

    def _next_id(self) -> RequestId:
        self._last_request_id += 1
        return self._last_request_id

    async def _ask(
        self,
        request: WriteRequest
        | ReadRequest
        | LockRequest
        | BootstrapRequest
        | ConfigChangeRequest
        | TransferRequest
        | SnapshotRequest
        | BackupRequest
        | BackupReadRequest
        | DrainRequest,
    ) -> Any:  # noqa: ANN401 - the type of the answer follows the type of the request
        """The node's answer to ``request``; when cancelled, the node is told to forget it."""
        is_of_client = isinstance(request, WriteRequest | ReadRequest | LockRequest)
        failure = self._refusal(is_of_client=is_of_client)
        if failure is not None:
            return failure
        future: asyncio.Future[Answer | None] = self._loop.create_future()
        self._pending[request.id] = partial(_resolve, future)
        self.post(request)
        try:
            answer = await future
        except asyncio.CancelledError:
            self.forget(request.id)
            raise
        if answer is not None:
            return answer
        if isinstance(request, WriteRequest | LockRequest | ConfigChangeRequest | TransferRequest):
            detail = "the node stopped while the request was on its way"
            return Failure(FailureCode.UNKNOWN, detail)
        return Failure(FailureCode.STOPPED, "the node is stopping")

    def _refusal(self, *, is_of_client: bool = True) -> Failure | None:
        """Why no request is taken in now."""
        if is_of_client and len(self._pending) >= self._pending_requests_max:
            return Failure(FailureCode.OVERLOADED, "too many requests are in flight on this node")
        if self._is_closing or self.stopped.done():
            return Failure(FailureCode.STOPPED, "the node is stopping")
        return None

    def _fail_pending(self) -> None:
        """Wake everybody who waits for an answer that will not come."""
        for request_id in list(self._pending):
            done = self._pending.pop(request_id, None)
            if done is not None:  # else it was forgotten by one before it
                done(None)


def _resolve(future: asyncio.Future[Answer | None], answer: Answer | None) -> None:
    if not future.done():
        future.set_result(answer)
