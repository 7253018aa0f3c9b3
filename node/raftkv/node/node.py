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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from raftkv.kv.commands import (
    count_commands,
    decode_command,
    decode_outcome,
    encode_outcome,
    join_batch,
)
from raftkv.kv.environment import EngineFactory, applied_index_fits
from raftkv.kv.store import AppliedEntry, Store, StoreError
from raftkv.node import queries, views
from raftkv.node.disk_tasks import DiskTasks
from raftkv.node.events import (
    Answer,
    Bootstrapped,
    BootstrapRequest,
    CancelRequest,
    Channel,
    Consistency,
    Continue,
    DiskDone,
    Drained,
    DrainRequest,
    Effect,
    Event,
    Failure,
    FailureCode,
    ForwardReplies,
    ForwardWrites,
    FrameReceived,
    PeerDown,
    PeerFrame,
    PeerMessage,
    PeersChanged,
    PeerUp,
    ReadRequest,
    Reply,
    RequestId,
    RoleChanged,
    Send,
    Stop,
    SubmitDisk,
    Tick,
    WriteRequest,
)
from raftkv.node.founding import check_founding, founding_configuration
from raftkv.node.hand_over import HandOver
from raftkv.node.reads import Reads
from raftkv.node.round_trips import RoundTrips
from raftkv.node.settings import NodeSettings
from raftkv.node.status import ClusterStatus, Status
from raftkv.node.writes import Origin, PendingWrite, ReplyBook, Writes
from raftkv.raft import (
    Append,
    AppendResp,
    ConfState,
    Entry,
    EntryType,
    NodeId,
    ProposalDropped,
    RawNode,
    ReadDropped,
    Ready,
    Role,
    Write,
)
from raftkv.storage.disk import DiskError
from raftkv.storage.errors import StorageError
from raftkv.storage.identity import Identity, adopt_cluster
from raftkv.storage.recovery import Recovered, open_storage
from raftkv.storage.wal import Wal

_BULK_MESSAGES = (Append, AppendResp, ForwardWrites, ForwardReplies)
# A forwarded write that the leader still holds is given back to its sender after this time.
_FOREIGN_DEADLINE_SECONDS = 5.0
_HAND_OVER_PAUSE_SECONDS = 1.0  # between two attempts to hand leadership on


def _is_command(data: bytes) -> bool:
    """Whether apply could decode this; in the log, anything else would stop every replica."""
    try:
        decode_command(data)
    except msgspec.DecodeError:
        return False
    return True


class Rng(Protocol):
    """The one injected source of randomness: ids, contexts, election timeouts."""

    def getrandbits(self, k: int, /) -> int:
        """An integer of ``k`` random bits."""
        ...

    def randrange(self, start: int, stop: int, /) -> int:
        """An integer from ``start`` up to, not including, ``stop``."""
        ...


@dataclass(slots=True)
class Counters:
    """What happened since the process started, for metrics."""

    leader_changes: int = 0
    proposals_committed: int = 0
    proposals_failed: int = 0
    frames_dropped: int = 0  # addressed to another cluster, node or life
    entries_applied: int = 0


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
        self.counters = Counters()
        self.incarnation = rng.getrandbits(48)
        self._engine_factory = engine_factory
        self._rng = rng
        self._now = 0.0
        self._effects: list[Effect] = []
        self._outbox: dict[tuple[NodeId, Channel], list[PeerMessage]] = {}
        self._disk = DiskTasks(self._submit)
        # What has no underscore is for `views` to read; nobody else writes it.
        self.core: Core | None = None
        self.writes = Writes()
        self.reads = Reads(rng.getrandbits(48), retry_ticks=settings.election_ticks)
        self._reply_book = ReplyBook()
        self._connected: set[NodeId] = set()
        # Set while the identity file is being rewritten: the cluster is not known before it is.
        self._is_adopting = False
        self._bootstraps: list[BootstrapRequest] = []  # waiting for the founding entry's fsync
        self.hand_over = HandOver()
        self.round_trips = RoundTrips()
        self._unapplied: list[Entry] = []  # committed, handed out by the core, not applied yet
        self._write_started_at: float | None = None  # of the WAL write in flight
        self.leader_seen_at: float | None = None
        self.is_caught_up = False
        self.is_stopped = False
        self._handlers: dict[type, Callable[..., None]] = {
            Tick: self._on_tick,
            FrameReceived: self._on_frame,
            PeerUp: self._on_peer_up,
            PeerDown: self._on_peer_down,
            DiskDone: self._on_disk_done,
            WriteRequest: self._on_write,
            ReadRequest: self._on_read,
            CancelRequest: self._on_cancel,
            BootstrapRequest: self._on_bootstrap,
            DrainRequest: self._on_drain,
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

    def handle(self, events: Sequence[Event], now: float) -> list[Effect]:
        """Take all inputs of one loop turn; the caller performs the effects in order.

        After a `Stop` nothing is done any more.
        """
        self._now = now
        try:
            for event in events:
                self._handlers[type(event)](event)
            if self.core is not None and not self.is_stopped:
                self._turn(self.core)
        except (DiskError, StorageError, StoreError) as error:
            self._stop(str(error))
        return self._take_effects()

    def status(self, now: float) -> Status:
        """This node's own state."""
        return views.status(self, now)

    def cluster(self) -> ClusterStatus:
        """The configuration and its members, as far as this node knows."""
        return views.cluster(self)

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
        if not applied_index_fits(recovered.base.index, store.applied_index, last_index):
            # Rule 8: the engine contradicts the log, and the log is the truth.
            store = Store(self._engine_factory.rebuild())
        raft = RawNode(
            self.settings.raft_config(recovered.identity.member_id),
            hard_state=recovered.hard_state,
            base=recovered.base,
            base_conf=recovered.base_conf,
            entries=recovered.entries,
            applied=store.applied_index,
            rng=self._rng,
        )
        self.core = Core(recovered.identity, recovered.wal, raft, store)
        founding = recovered.identity.founding
        if founding is not None and raft.last_index == 0:
            # Killed between the identity and the founding entry: go on with the same list.
            raft.bootstrap(founding)
        if raft.conf_state.members:
            self._peers_changed(self.core, raft.conf_state)

    def _on_bootstrap(self, request: BootstrapRequest) -> None:
        core = self.core
        if core is None or self._is_adopting:
            self._reply(request.id, Failure(FailureCode.UNINITIALISED, "the node is starting"))
            return
        verdict = check_founding(core.identity, request.cluster_id, request.members)
        if verdict is not None:
            self._reply(request.id, verdict)
            return
        conf = founding_configuration(request.members)
        self._is_adopting = True
        self._bootstraps.append(request)

        def adopted(identity: Identity) -> None:
            self._is_adopting = False
            core.identity = identity
            core.raft.bootstrap(conf)
            self._peers_changed(core, conf)

        self._disk.start(adopt_cluster(core.identity, request.cluster_id, conf), adopted)

    def _adopt(self, core: Core, frame: PeerFrame) -> None:
        """Join the cluster that addresses this node by its own random id (rule 15)."""
        self._is_adopting = True

        def adopted(identity: Identity) -> None:
            self._is_adopting = False
            core.identity = identity
            self._step_all(core, frame)

        self._disk.start(adopt_cluster(core.identity, frame.cluster_id, None), adopted)

    # ---- events -----------------------------------------------------------------------------

    def _on_tick(self, _: Tick) -> None:
        core = self.core
        if core is None:
            self._expire()
            return
        core.raft.tick()
        self.reads.tick()
        if core.raft.leader_id is not None:
            self.leader_seen_at = self._now
        self._expire()
        self._watch_disk(core)
        if self.hand_over.is_draining:
            self.hand_over.run(core.raft, self._now)

    def _on_frame(self, event: FrameReceived) -> None:
        core, frame = self.core, event.frame
        if core is None:
            return
        identity = core.identity
        if frame.receiver != identity.member_id:
            self.counters.frames_dropped += 1
        elif identity.cluster_id == frame.cluster_id:
            self._step_all(core, frame)
        elif (
            identity.cluster_id is None
            and not self._is_adopting
            and any(isinstance(message, Append) for message in frame.messages)
        ):
            self._adopt(core, frame)
        else:
            self.counters.frames_dropped += 1

    def _step_all(self, core: Core, frame: PeerFrame) -> None:
        for message in frame.messages:
            if isinstance(message, ForwardWrites):
                self._on_forward(core, frame.sender, message)
            elif isinstance(message, ForwardReplies):
                self._on_forward_replies(message)
            elif message.sender == frame.sender:
                self.round_trips.received(message, self._now)
                core.raft.step(message)
            else:
                self.counters.frames_dropped += 1

    def _on_forward(self, core: Core, sender: NodeId, message: ForwardWrites) -> None:
        is_leader = core.raft.role is Role.LEADER
        for request_id, command in message.writes:
            origin = Origin(sender, message.incarnation, request_id)
            if is_leader and not self._is_full() and _is_command(command):
                deadline = self._now + _FOREIGN_DEADLINE_SECONDS
                self.writes.hold(PendingWrite(request_id, command, deadline, origin))
            else:
                self._reply_book.add(origin, None)

    def _on_forward_replies(self, message: ForwardReplies) -> None:
        if message.incarnation != self.incarnation:
            return
        for request_id, outcome in message.replies:
            write = self.writes.answered(request_id)
            if write is None:
                continue
            if outcome is None:
                self._hold_again(write)
            else:
                self._settle(write, decode_outcome(outcome))

    def _on_peer_up(self, event: PeerUp) -> None:
        self._connected.add(event.peer)

    def _on_peer_down(self, event: PeerDown) -> None:
        self._connected.discard(event.peer)
        for write in self.writes.lose_peer(event.peer):
            self._settle(
                write,
                Failure(
                    FailureCode.UNKNOWN,
                    "the connection to the leader broke after the write was sent to it",
                ),
            )

    def _on_disk_done(self, event: DiskDone) -> None:
        self._disk.complete(event)

    def _on_write(self, request: WriteRequest) -> None:
        if self._is_full():
            detail = "too many requests are in flight on this node"
            self._reply(request.id, Failure(FailureCode.OVERLOADED, detail))
            return
        self.writes.hold(PendingWrite(request.id, request.command, request.deadline))

    def _on_read(self, request: ReadRequest) -> None:
        if len(self.reads.waiting) >= self.settings.pending_requests_max:
            detail = "too many requests are in flight on this node"
            self._reply(request.id, Failure(FailureCode.OVERLOADED, detail))
            return
        self.reads.add(request)

    def _on_cancel(self, request: CancelRequest) -> None:
        self.writes.cancel(request.id)
        self.reads.cancel(request.id)

    def _on_drain(self, request: DrainRequest) -> None:
        self.hand_over.drain(request.avoid, draining=request.draining)
        if request.draining and self.core is not None:
            self.hand_over.run(self.core.raft, self._now)
        self._reply(request.id, Drained(request.draining))

    # ---- one turn ---------------------------------------------------------------------------

    def _turn(self, core: Core) -> None:
        self._offer_writes(core)
        self._offer_reads(core)
        self._carry_out(core, core.raft.ready())
        self._apply_slice(core)
        self._serve_reads(core)
        self._reply_book.flush(self._send)
        # The round that was just confirmed makes room for the next one.
        self._offer_reads(core)
        if self._unapplied or core.raft.has_ready():
            self._effects.append(Continue())

    def _offer_writes(self, core: Core) -> None:
        """Give held writes to the log: this leader's own, or by the link to the leader."""
        if not self.writes.held:
            return
        raft = core.raft
        if raft.role is Role.LEADER:
            while self.writes.held and self._propose_batch(core):
                pass
            return
        for write in self.writes.drop_foreign_held():
            self._answer_foreign(write, None)
        leader = raft.leader_id
        if leader is None or leader not in self._connected:
            return
        while self.writes.held:
            batch = self._take_batch()
            self._send(leader, self.writes.forward(leader, batch, self.incarnation))

    def _propose_batch(self, core: Core) -> bool:
        """Propose one entry of held writes; False when the core takes none now."""
        batch = self._take_batch()
        try:
            entry = core.raft.propose(join_batch([write.command for write in batch]))
        except ProposalDropped:
            # Transferring, founding or full: they stay held, and their deadlines run.
            self.writes.put_back(batch)
            return False
        self.writes.propose(entry, batch)
        return True

    def _take_batch(self) -> list[PendingWrite]:
        return self.writes.take_batch(
            self.settings.batch_commands_max, self.settings.batch_bytes_max
        )

    def _offer_reads(self, core: Core) -> None:
        if not self.reads.wants_round() or core.raft.leader_id is None:
            return
        context = self.reads.begin_round()
        try:
            core.raft.read_index(context)
        except ReadDropped:
            self.reads.abandon_round(context)

    def _carry_out(self, core: Core, ready: Ready) -> None:
        if ready.soft_state is not None:
            self._role_changed(core)
        if ready.conf_state is not None:
            self._peers_changed(core, ready.conf_state)
        for message in ready.messages:
            self._send(message.receiver, message)
        if ready.write is not None:
            self._start_write(core, ready.write)
        self._unapplied += ready.committed_entries
        for read_state in ready.read_states:
            self.reads.confirm(read_state.context, read_state.index)
        for context in ready.reads_dropped:
            self.reads.abandon_round(context)

    def _apply_slice(self, core: Core) -> None:
        """Apply the next committed entries, as many as fit into one slice of the loop (rule 26)."""
        if not self._unapplied:
            return
        commands, end = 0, 0
        while end < len(self._unapplied) and commands < self.settings.slice_commands_max:
            entry = self._unapplied[end]
            commands += count_commands(entry.data) if entry.type is EntryType.NORMAL else 1
            end += 1
        applied = core.store.apply(self._unapplied[:end])
        del self._unapplied[:end]
        self.counters.entries_applied += len(applied)
        for entry_applied in applied:
            self._settle_entry(entry_applied)
        core.raft.applied(core.store.applied_index)

    def _start_write(self, core: Core, write: Write) -> None:
        self._write_started_at = self._now

        def durable(_: None) -> None:
            self._write_started_at = None
            core.raft.persisted(write.number)
            for message in write.messages:
                self._send(message.receiver, message)
            if self._bootstraps and core.raft.durable_index >= 1:
                for request in self._bootstraps:
                    self._reply(request.id, Bootstrapped(request.cluster_id, repeated=False))
                self._bootstraps.clear()

        self._disk.start(core.wal.append(write.hard_state, write.entries), durable)

    def _settle_entry(self, entry: AppliedEntry) -> None:
        """Answer the writes that were proposed at this index, whichever entry came to be there."""
        proposal, is_ours = self.writes.applied(entry.index, entry.term)
        if proposal is None:
            return
        if not is_ours or entry.outcomes is None:
            for write in proposal.writes:
                self._hold_again(write)
            return
        self.counters.proposals_committed += len(proposal.writes)
        for write, outcome in zip(proposal.writes, entry.outcomes, strict=True):
            if write.origin is None:
                self._settle(write, outcome)
            else:
                self._reply_book.add(write.origin, encode_outcome(outcome))

    def _serve_reads(self, core: Core) -> None:
        store = core.store
        if not self.is_caught_up and self.reads.barrier_index is not None:
            self.is_caught_up = store.applied_index >= self.reads.barrier_index
        ready = self.reads.take_ready(store.applied_index, store.revision)
        for request in ready:
            self._effects.append(Reply(request.id, queries.answer(store, request.query)))

    # ---- deadlines, disk stalls, drain ------------------------------------------------------

    def _expire(self) -> None:
        now = self._now
        for write in self.writes.expire_held(now):
            if write.origin is None:
                self._settle(write, self._no_leader())
            else:
                self._answer_foreign(write, None)
        for write in self.writes.expire_sent(now):
            detail = "the deadline passed while the write was on its way through the log"
            self._settle(write, Failure(FailureCode.UNKNOWN, detail))
            write.cancelled = True
        for request in self.reads.expire(now):
            if request.consistency is Consistency.LINEARIZABLE and not self._knows_leader():
                self._reply(request.id, self._no_leader())
            else:
                detail = "the deadline passed before the read could be served"
                self._reply(request.id, Failure(FailureCode.DEADLINE, detail))

    def _no_leader(self) -> Failure:
        if self.core is not None and self.core.identity.cluster_id is None:
            detail = "this node belongs to no cluster yet"
            return Failure(FailureCode.UNINITIALISED, detail)
        return Failure(FailureCode.NO_LEADER, "no leader could be asked before the deadline")

    def _knows_leader(self) -> bool:
        return self.core is not None and self.core.raft.leader_id is not None

    def _watch_disk(self, core: Core) -> None:
        """The stall ladder of rule 12."""
        if self._write_started_at is None:
            return
        stalled_seconds = self._now - self._write_started_at
        if stalled_seconds > self.settings.disk_stall_exit_seconds:
            self._stop(f"the disk has not finished a write for {stalled_seconds:.0f} s")
        elif stalled_seconds > self.settings.disk_stall_transfer_seconds:
            self.hand_over.run(core.raft, self._now)

    # ---- small things -----------------------------------------------------------------------

    def _is_full(self) -> bool:
        writes = self.writes
        return (
            len(writes.held) + len(writes.forwarded) >= self.settings.pending_requests_max
            or writes.held_bytes >= self.settings.pending_bytes_max
        )

    def _hold_again(self, write: PendingWrite) -> None:
        """The write is known not to have happened: try again, or tell its sender so."""
        if write.origin is not None:
            self._answer_foreign(write, None)
        elif not write.cancelled:
            self.writes.hold(write)

    def _submit(self, submission: SubmitDisk) -> None:
        self._effects.append(submission)

    def _settle(self, write: PendingWrite, answer: Answer) -> None:
        if isinstance(answer, Failure):
            self.counters.proposals_failed += 1
        if self.writes.settle(write):
            self._effects.append(Reply(write.id, answer))

    def _answer_foreign(self, write: PendingWrite, outcome: bytes | None) -> None:
        if write.origin is not None:
            self._reply_book.add(write.origin, outcome)

    def _reply(self, request_id: RequestId, answer: Answer) -> None:
        self._effects.append(Reply(request_id, answer))

    def _send(self, receiver: NodeId, message: PeerMessage) -> None:
        self.round_trips.sent(message, self._now)
        channel = Channel.BULK if isinstance(message, _BULK_MESSAGES) else Channel.CONTROL
        self._outbox.setdefault((receiver, channel), []).append(message)

    def _role_changed(self, core: Core) -> None:
        raft = core.raft
        if raft.leader_id is not None:
            self.counters.leader_changes += 1
            self.leader_seen_at = self._now
        self._effects.append(RoleChanged(str(raft.role), raft.term, raft.leader_id))

    def _peers_changed(self, core: Core, conf: ConfState) -> None:
        cluster_id = core.identity.cluster_id
        if cluster_id is not None:
            others = tuple(m for m in conf.members if m.id != core.identity.member_id)
            self._effects.append(PeersChanged(cluster_id, others))

    def _stop(self, reason: str) -> None:
        if not self.is_stopped:
            self.is_stopped = True
            self._effects.append(Stop(reason))

    def _take_effects(self) -> list[Effect]:
        if self._outbox:
            core = self.core
            if core is not None and core.identity.cluster_id is not None:
                cluster_id, sender = core.identity.cluster_id, core.identity.member_id
                self._effects.extend(
                    Send(channel, PeerFrame(cluster_id, sender, receiver, tuple(messages)))
                    for (receiver, channel), messages in self._outbox.items()
                )
            self._outbox.clear()
        effects, self._effects = self._effects, []
        return effects
