"""The whole node without asyncio: events in, effects out (node design, rule 1).

Owns the order in which things happen between consensus core, write-ahead log and state machine;
decides nothing that one of these can decide, and performs nothing. Called by the asyncio shell
(`raftkv.server.driver`) and by the simulation, once per loop turn with all inputs of that turn.

One turn (`handle`):

    1. every event is taken: messages are stepped, requests are queued, disk results noted
    2. held writes are proposed (leader) or forwarded (follower); waiting reads ask for an index
    3. the core's `Ready` is carried out: messages go out, at most one WAL write is started,
       committed entries are applied in one slice, confirmed reads are served

Only what asserts durability waits for the WAL write (rule 4): the core hands it out as messages
of that write, and they leave when the write is done. Anything that can break a promise ends in
a `Stop` effect; the process exits and recovery starts from what is on disk.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from raftkv.kv.environment import EngineFactory, applied_index_fits
from raftkv.kv.store import Store, StoreError
from raftkv.node import views
from raftkv.node.applying import Applying
from raftkv.node.commit_news import CommitNews
from raftkv.node.disk_tasks import DiskTasks
from raftkv.node.events import (
    Advanced,
    Answer,
    BackupEndRequest,
    BackupReadRequest,
    BackupRequest,
    BootstrapRequest,
    CancelRequest,
    ConfigChangeRequest,
    Continue,
    DiskDone,
    Drained,
    DrainRequest,
    Effect,
    Event,
    FrameReceived,
    LockRequest,
    Look,
    PeerDown,
    PeersChanged,
    PeerUp,
    ReadRequest,
    Reply,
    RoleChanged,
    SnapshotRequest,
    Stop,
    SubmitDisk,
    TellCommit,
    Tick,
    TransferRequest,
    WriteRequest,
)
from raftkv.node.hand_over import HandOver
from raftkv.node.hash_check import HashCheck
from raftkv.node.joining import Joining
from raftkv.node.messages import (
    Failure,
    FailureCode,
    PeerFrame,
    PeerMessage,
    RequestId,
    SnapshotOffer,
)
from raftkv.node.orders import Orders
from raftkv.node.outbox import Outbox
from raftkv.node.receiving import is_idle_answer, step_all
from raftkv.node.reports import Reports
from raftkv.node.requests import Outlook, Requests
from raftkv.node.round_trips import RoundTrips
from raftkv.node.settings import NodeSettings
from raftkv.node.snapshots import Snapshots
from raftkv.node.status import ClusterStatus, Status
from raftkv.node.wal_writes import WalWrites
from raftkv.raft import (
    Append,
    NodeId,
    Positions,
    RawNode,
    Ready,
    Write,
)
from raftkv.storage.disk import DiskError
from raftkv.storage.errors import StorageError
from raftkv.storage.identity import Identity
from raftkv.storage.recovery import Recovered, open_storage
from raftkv.storage.wal import Wal


class Rng(Protocol):
    """The one injected source of randomness: ids, contexts, election timeouts."""

    def getrandbits(self, k: int, /) -> int:
        """An integer of ``k`` random bits."""
        ...

    def randrange(self, start: int, stop: int, /) -> int:
        """An integer from ``start`` up to, not including, ``stop``."""
        ...


@dataclass(slots=True)
class Core:
    """What exists once recovery is done; the node is not started before."""

    identity: Identity
    wal: Wal
    raft: RawNode
    store: Store


class Node:
    """One node. All methods are to be called from one thread, ``now`` never goes back."""

    def __init__(self, settings: NodeSettings, engine_factory: EngineFactory, rng: Rng) -> None:
        self.settings = settings
        self.frames_dropped = 0  # addressed to another cluster, node or life
        self._engine_factory = engine_factory
        self._rng = rng
        self._now = 0.0
        self._effects: list[Effect] = []
        self._submissions: list[SubmitDisk] = []
        self._outbox = Outbox()
        self._disk = DiskTasks(self._submit)
        self._wal_writes = WalWrites(self._disk, self._clock)
        self.snapshots = Snapshots(
            settings,
            self._disk,
            self._wal_writes,
            engine_factory,
            rng,
            clock=self._clock,
            answer=self._reply,
            send=self._send,
        )
        # What has no underscore is for `views` to read; nobody else writes it.
        self.core: Core | None = None
        incarnation = rng.getrandbits(48)
        self.requests = Requests(
            settings,
            incarnation=incarnation,
            first_context=rng.getrandbits(48),
            answer=self._reply,
            send=self._send,
        )
        self.orders = Orders(
            incarnation=incarnation,
            election_ticks=settings.election_ticks,
            answer=self._reply,
            send=self._send,
        )
        self.hash_check = HashCheck(self._send, self._emit)
        self.reports = Reports(self._send)
        self._joining = Joining(self._disk, self._reply)
        self.hand_over = HandOver()
        self.round_trips = RoundTrips()
        self._commit_news = CommitNews(settings.commit_news_seconds, self._emit)
        self.applying = Applying(settings.slice_commands_max, self.requests, self.snapshots)
        self._told_revision = 0  # by `Advanced`
        self._is_tick_taken = False  # in this turn
        self.leader_seen_at: float | None = None
        self.is_stopped = False
        self._handlers: dict[type, Callable[..., None]] = {
            Tick: self._on_tick,
            TellCommit: self._on_tell_commit,
            FrameReceived: self._on_frame,
            PeerUp: self._on_peer_up,
            PeerDown: self._on_peer_down,
            DiskDone: self._on_disk_done,
            WriteRequest: self.requests.on_write,
            LockRequest: self.requests.on_lock,
            ReadRequest: self.requests.on_read,
            CancelRequest: self._on_cancel,
            ConfigChangeRequest: self.orders.on_change,
            TransferRequest: self.orders.on_transfer,
            BootstrapRequest: self._on_bootstrap,
            DrainRequest: self._on_drain,
            SnapshotRequest: self._on_snapshot_request,
            BackupRequest: self._on_snapshot_request,
            BackupReadRequest: self.snapshots.backups.on_read,
            BackupEndRequest: self.snapshots.backups.on_end,
            Look: self._on_look,
        }

    # ---- the host's interface ---------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        """Whether recovery is done: before, requests are only gathered."""
        return self.core is not None

    @property
    def identity(self) -> Identity | None:
        """Who this node is; None until recovery is done."""
        return None if self.core is None else self.core.identity

    def start(self, now: float) -> list[Effect]:
        """Begin recovery. To be called once, before anything else."""
        self._now = now
        self._disk.start(
            open_storage(self._rng, segment_bytes=self.settings.segment_bytes), self._on_recovered
        )
        return self._take_effects()

    def handle(self, events: Sequence[Event], now: float) -> Iterator[Effect]:
        """Take all inputs of one loop turn; the caller performs each effect as it comes, and all.

        What the other nodes and the disk can begin with comes before committed entries are
        applied here: their work is done beside each other. After a `Stop` nothing is done any
        more.
        """
        if self.is_stopped:
            return
        self._now = now
        try:
            for event in events:
                self._handlers[type(event)](event)
            if self.core is not None:
                if self._is_tick_taken:
                    self._is_tick_taken = False
                    self._watch_disk(self.core)
                if not self.is_stopped:
                    is_told = self._offer(self.core)
                    if self.applying.has_any and (self._submissions or self._outbox):
                        yield from self._take_effects()
                    is_writing = self._wal_writes.started_at is not None
                    if not self.applying.puts_off(self.core.raft.role, is_writing=is_writing):
                        self._settle(self.core, is_told=is_told)
        except (DiskError, StorageError, StoreError) as error:
            self._stop(str(error))
        yield from self._take_effects()

    def may_wait(self, event: Event) -> bool:
        """Whether ``event`` may be handed in with the next one, as nothing follows from it.

        So for the second follower's answer, when the first one's was enough: a turn of the loop
        costs as much as a write. The next tick is never far.
        """
        if type(event) is not FrameReceived or self.core is None:
            return False
        return is_idle_answer(self.core, event.frame)

    def status(self, now: float) -> Status:
        """This node's own state."""
        return views.status(self, now)

    def cluster(self) -> ClusterStatus:
        """The configuration and its members, as far as this node knows."""
        return views.cluster(self, self._now)

    def positions(self) -> Positions | None:
        """How far the log is, for measuring; cheap, to be called every turn."""
        return None if self.core is None else self.core.raft.positions()

    def close(self) -> None:
        """Close the state machine so that the next start finds it clean. Last call.

        Raises nothing the caller could act on: what fails here is rebuilt at the next start.
        """
        if self.core is not None and not self.is_stopped:
            self.is_stopped = True
            with contextlib.suppress(StoreError):
                self._engine_factory.close_clean(self.core.store.engine)

    # ---- recovery and founding --------------------------------------------------------------

    def _on_recovered(self, recovered: Recovered) -> None:
        store = Store(self._engine_factory.open())
        last_index = recovered.base.index + len(recovered.entries)
        if applied_index_fits(recovered.base.index, store.applied_index, last_index):
            self._begin(recovered, store)
        elif recovered.snapshot is None:
            # Rule 8: the engine contradicts the log, and the log is the truth.
            self._begin(recovered, Store(self._engine_factory.rebuild()))
        else:
            self.snapshots.build(
                recovered.snapshot, lambda engine: self._begin(recovered, Store(engine))
            )

    def _begin(self, recovered: Recovered, store: Store) -> None:
        """Log and state machine are there and fit together."""
        raft = RawNode(
            self.settings.raft_config(recovered.identity.member_id),
            hard_state=recovered.hard_state,
            base=recovered.base,
            base_conf=recovered.base_conf,
            base_config_index=recovered.base_config_index,
            entries=recovered.entries,
            applied=store.applied_index,
            rng=self._rng,
        )
        self.core = Core(recovered.identity, recovered.wal, raft, store)
        self._told_revision = store.revision
        self.snapshots.newest = recovered.snapshot
        founding = recovered.identity.founding
        if founding is not None and raft.last_index == 0:
            # Killed between the identity and the founding entry: go on with the same list.
            raft.bootstrap(founding)
        if raft.contacts:
            self._peers_changed(self.core)

    def _on_bootstrap(self, request: BootstrapRequest) -> None:
        self._joining.bootstrap(self.core, request, self._peers_changed)

    # ---- events -----------------------------------------------------------------------------

    def _on_tick(self, _: Tick) -> None:
        core = self.core
        if core is None:
            self._expire_requests()
            return
        core.raft.tick()
        self.requests.tick(self._now, is_draining=self.hand_over.is_draining)
        self.orders.tick(core.raft)
        self.hash_check.tick(core.store, core.raft.leader_id, core.raft.id)
        if core.raft.leader_id is not None:
            self.leader_seen_at = self._now
        self._expire_requests()
        self._is_tick_taken = True
        if core.identity.cluster_id is not None:
            self.snapshots.tick(core)
        if self.hand_over.is_draining:
            self._hand_over(core)

    def _on_tell_commit(self, _: TellCommit) -> None:
        for message in self._commit_news.take_all():
            self._send(message.receiver, message)

    def _on_frame(self, event: FrameReceived) -> None:
        core, frame = self.core, event.frame
        if core is None:
            return
        identity = core.identity
        if frame.receiver != identity.member_id:
            self.frames_dropped += 1
        elif identity.cluster_id == frame.cluster_id:
            self._step_all(core, frame)
        elif (
            identity.cluster_id is None
            and not self._joining.is_under_way
            and any(isinstance(message, Append | SnapshotOffer) for message in frame.messages)
        ):
            self._joining.adopt(core, frame, self._step_all)
        else:
            self.frames_dropped += 1

    def _step_all(self, core: Core, frame: PeerFrame) -> None:
        step_all(self, core, frame, self._now)

    def _on_peer_up(self, event: PeerUp) -> None:
        self.requests.on_peer_up(event)
        self.orders.on_peer_up(event.peer)

    def _on_peer_down(self, event: PeerDown) -> None:
        self.requests.on_peer_down(event)
        self.orders.on_peer_down(event.peer)
        if self.core is not None:
            self.snapshots.on_peer_down(self.core, event.peer)

    def _on_cancel(self, request: CancelRequest) -> None:
        self.requests.on_cancel(request)
        self.orders.on_cancel(request.id)

    def _on_snapshot_request(self, request: SnapshotRequest | BackupRequest) -> None:
        if self.core is None:
            self._reply(request.id, Failure(FailureCode.UNINITIALISED, "the node is starting"))
        else:
            self.snapshots.on_request(self.core, request)

    def _on_disk_done(self, event: DiskDone) -> None:
        self._disk.complete(event)

    def _on_look(self, _: Look) -> None:
        if self.core is not None:
            self.reports.look(self.core.raft, self._now)

    def _on_drain(self, request: DrainRequest) -> None:
        self.hand_over.drain(request.avoid, draining=request.draining)
        if request.draining and self.core is not None:
            self._hand_over(self.core)
        self._reply(request.id, Drained(request.draining))

    # ---- one turn ---------------------------------------------------------------------------

    def _offer(self, core: Core) -> bool:
        """Give the core what came, and begin what follows; whether the core was told of that."""
        requests, raft = self.requests, core.raft
        self.orders.turn(raft)
        requests.offer_writes(raft, core.store, self._now)
        requests.offer_reads(raft, self._now)
        # In most turns nothing happens: then the core is asked once.
        if not raft.has_ready():
            return False
        ready = raft.ready()
        self._carry_out(core, ready)
        return bool(ready.snapshots_wanted)

    def _settle(self, core: Core, *, is_told: bool) -> None:
        """Apply what is committed, and answer who waited for it.

        ``is_told``: the core had an input since its last `Ready`, so there may be another.
        """
        requests, raft = self.requests, core.raft
        is_told = is_told or self.applying.has_any
        self.applying.slice(core)
        if core.store.revision > self._told_revision:
            self._told_revision = core.store.revision
            self._effects.append(Advanced(self._told_revision))
        are_reads_left = requests.serve_reads(core.store, self._now)
        requests.flush_replies()
        # The round that was just confirmed makes room for the next one.
        is_told = requests.offer_reads(raft, self._now) or is_told
        if self.applying.has_any or are_reads_left or (is_told and raft.has_ready()):
            self._effects.append(Continue())

    def _carry_out(self, core: Core, ready: Ready) -> None:
        if ready.soft_state is not None:
            self._role_changed(core)
        if ready.contacts is not None:
            self._peers_changed(core)
        for message in ready.messages:
            if type(message) is Append and not message.entries:
                self._commit_news.hold(message)
            else:
                self._send(message.receiver, message)
        if ready.write is not None:
            self._start_write(core, ready.write)
        for wanted in ready.snapshots_wanted:
            self.snapshots.wanted(core, wanted)
        self.applying.add(ready.committed_entries)
        for read_state in ready.read_states:
            self.requests.reads.confirm(read_state.context, read_state.index)
        for context in ready.reads_dropped:
            self.requests.reads.drop_round(context)

    def _start_write(self, core: Core, write: Write) -> None:
        def durable(_: None = None) -> None:
            core.raft.persisted(write.number)
            for message in write.messages:
                self._send(message.receiver, message)
            self._joining.durable(core)

        if write.snapshot is not None:
            # What it replaces is not applied any more: the state comes whole.
            self.applying.clear()
            self.requests.skip_to(write.snapshot.last.index)

            def installed() -> None:
                self.requests.installed(core.store)
                durable()

            self.snapshots.install(core, write, installed)
            return
        self._wal_writes.run(lambda: core.wal.append(write.hard_state, write.entries), durable)

    # ---- deadlines, disk stalls, drain ------------------------------------------------------

    def _expire_requests(self) -> None:
        core = self.core
        if not (self.requests.has_deadlines or self.orders.has_deadlines):
            return
        outlook = Outlook(
            # Before recovery it is not known; then there is no leader to be asked either way.
            has_cluster=core is None or core.identity.cluster_id is not None,
            knows_leader=core is not None and core.raft.leader_id is not None,
        )
        self.requests.expire(self._now, outlook)
        self.orders.expire(self._now, outlook.no_leader)

    def _watch_disk(self, core: Core) -> None:
        """The stall ladder of rule 12, once all inputs of a turn with a tick were taken.

        Not before: after a pause of the whole process, the tick may come ahead of the completion.
        """
        if self._wal_writes.started_at is None:
            return
        stalled_seconds = self._now - self._wal_writes.started_at
        if stalled_seconds > self.settings.disk_stall_exit_seconds:
            self._stop(f"the disk has not finished a write for {stalled_seconds:.0f} s")
        elif stalled_seconds > self.settings.disk_stall_transfer_seconds:
            self._hand_over(core)

    def _hand_over(self, core: Core) -> None:
        self.hand_over.run(core.raft, self._now, self.settings.election_ticks)

    # ---- small things -----------------------------------------------------------------------

    def _clock(self) -> float:
        return self._now

    def _submit(self, submission: SubmitDisk) -> None:
        self._submissions.append(submission)

    def _reply(self, request_id: RequestId, answer: Answer) -> None:
        self._effects.append(Reply(request_id, answer))

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _send(self, receiver: NodeId, message: PeerMessage) -> None:
        news = self._commit_news.take(receiver)
        # An Append with entries tells of the same commit.
        if news is not None and type(message) is not Append:
            self._put(receiver, news)
        self._put(receiver, message)

    def _put(self, receiver: NodeId, message: PeerMessage) -> None:
        self.round_trips.sent(message, self._now)
        self._outbox.add(receiver, message)

    def _role_changed(self, core: Core) -> None:
        raft = core.raft
        if raft.leader_id is not None:
            self.leader_seen_at = self._now
        self.reports.role_changed(raft, self._now)
        self._effects.append(RoleChanged(str(raft.role), raft.term, raft.leader_id))

    def _peers_changed(self, core: Core) -> None:
        cluster_id = core.identity.cluster_id
        if cluster_id is not None:
            self._effects.append(PeersChanged(cluster_id, core.raft.contacts))

    def _stop(self, reason: str) -> None:
        if not self.is_stopped:
            self.is_stopped = True
            self._effects.append(Stop(reason))

    def _take_effects(self) -> list[Effect]:
        core = self.core
        if core is not None:
            self._effects += self._outbox.take(core.identity.cluster_id, core.identity.member_id)
        # Followers write beside this node (thesis 10.2.1): they are told before the disk is, as
        # whoever performs the effects may write to the page cache then and there.
        self._effects += self._submissions
        self._submissions.clear()
        effects, self._effects = self._effects, []
        return effects
