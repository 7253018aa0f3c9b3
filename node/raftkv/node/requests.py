"""The requests that a node has not answered yet: admission, routing, deadlines, answers.

Owned by the node class, which tells it the time and shows it core and store once a turn. What may
be said of a write is decided by where it is (`raftkv.node.writes`); when a read may be served, by
`raftkv.node.reads`. Every request that was not cancelled is answered exactly once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from raftkv.kv.commands import LeaderCommand, decode_command, join_batch
from raftkv.kv.listing import find_lock
from raftkv.kv.outcomes import Replayed, decode_outcome, encode_outcome
from raftkv.kv.records import Lock
from raftkv.kv.store import AppliedEntry, Store
from raftkv.node import queries
from raftkv.node.admission import Admission
from raftkv.node.events import (
    Answer,
    CancelRequest,
    LockRequest,
    PeerDown,
    PeerUp,
    ReadRequest,
    Stale,
    WriteRequest,
)
from raftkv.node.lock_waits import LockWaits
from raftkv.node.messages import (
    Failure,
    FailureCode,
    ForwardReplies,
    ForwardWrites,
    PeerMessage,
    RequestId,
)
from raftkv.node.reads import Reads
from raftkv.node.settings import NodeSettings
from raftkv.node.upkeep import NO_CHORES, Chores, Upkeep
from raftkv.node.writes import Origin, PendingWrite, ReplyBook, Writes
from raftkv.raft import NodeId, ProposalDropped, RawNode, ReadDropped, Role
from raftkv.raft.messages import Index

# A forwarded write that the leader still holds is given back to its sender after this time.
_FOREIGN_DEADLINE_SECONDS = 5.0

# What this node proposes by itself, to leave the queue of a lock.
_OWN_DEADLINE_SECONDS = 5.0

_REFUSALS = {
    FailureCode.OVERLOADED: "too many requests are in flight on the leader",
    FailureCode.QUOTA: (
        "the store holds as much as it may: delete keys and compact, or raise the quota"
    ),
    FailureCode.IDEMPOTENCY_FULL: (
        "there are as many idempotency records as there may be: retry when some have expired"
    ),
}
_FULL = Failure(FailureCode.OVERLOADED, "too many requests are in flight on this node")
_LINK_BROKE = Failure(
    FailureCode.UNKNOWN, "the connection to the leader broke after the write was sent to it"
)
_SKIPPED = Failure(FailureCode.UNKNOWN, "a snapshot took the place of the log that held the write")
_LATE_WRITE = Failure(
    FailureCode.UNKNOWN, "the deadline passed while the write was on its way through the log"
)
_LATE_READ = Failure(FailureCode.DEADLINE, "the deadline passed before the read could be served")
_LAGGING = Failure(
    FailureCode.DEADLINE, "the deadline passed before this node had applied what the read needs"
)
_NO_LEADER = Failure(FailureCode.NO_LEADER, "no leader could be asked before the deadline")
_GARBLED = Failure(FailureCode.UNKNOWN, "the leader's answer cannot be understood by this node")
_NO_CLUSTER = Failure(FailureCode.UNINITIALISED, "this node belongs to no cluster yet")


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the answer to an expired request depends on."""

    has_cluster: bool
    knows_leader: bool

    @property
    def no_leader(self) -> Failure:
        """Why nobody could be asked."""
        return _NO_LEADER if self.has_cluster else _NO_CLUSTER


class Requests:
    """See the module docstring."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        incarnation: int,
        first_context: int,
        answer: Callable[[RequestId, Answer], None],
        send: Callable[[NodeId, PeerMessage], None],
    ) -> None:
        self.writes = Writes()
        self.upkeep = Upkeep(settings)
        self.locks = LockWaits(answer, self._write_own)
        self.replayed_count = 0  # answers to requests that had been done before (rule 22)
        self.reads = Reads(first_context, retry_ticks=settings.election_ticks)
        # Whether the store has reached what was committed when a leader was first asked.
        self.is_caught_up = False
        self._settings = settings
        self._incarnation = incarnation
        self._answer = answer
        self._send = send
        self._admission = Admission(settings)
        self._last_own_id = 0
        self._reply_book = ReplyBook()
        self._connected: set[NodeId] = set()
        self._now = 0.0  # of the turn
        # Gave a write back since the last tick: asking it again at once would only keep both
        # busy until this node hears who leads.
        self._declined_by: NodeId | None = None

    def __len__(self) -> int:
        """How many requests are pending."""
        return len(self.writes) + len(self.reads) + len(self.locks)

    @property
    def has_deadlines(self) -> bool:
        """Whether anything waits that `expire` could end."""
        return self.writes.has_any or self.reads.has_any

    # ---- events -----------------------------------------------------------------------------

    def on_write(self, request: WriteRequest) -> None:
        """A client wants to write."""
        if self._is_full():
            self._answer(request.id, _FULL)
        else:
            self.writes.hold(PendingWrite(request.id, request.command, request.deadline))

    def on_lock(self, request: LockRequest) -> None:
        """A client wants a lock, and to wait for it."""
        if self._is_full() or len(self.locks) >= self._settings.pending_requests_max:
            self._answer(request.id, _FULL)
            return
        then = self.locks.ask(request)
        self.writes.hold(PendingWrite(request.id, request.command, request.deadline, then=then))

    def on_read(self, request: ReadRequest) -> None:
        """A client wants to read."""
        if len(self.reads) >= self._settings.pending_requests_max:
            self._answer(request.id, _FULL)
        else:
            self.reads.add(request)

    def on_cancel(self, request: CancelRequest) -> None:
        """A client went away."""
        is_dropped = self.writes.cancel(request.id)
        self.locks.cancel(request.id, is_dropped=is_dropped)
        self.reads.cancel(request.id)

    def on_peer_up(self, event: PeerUp) -> None:
        """Writes may be forwarded to this peer."""
        self._connected.add(event.peer)

    def on_peer_down(self, event: PeerDown) -> None:
        """What was forwarded to this peer and not answered is unknown (rule 18)."""
        self._connected.discard(event.peer)
        for write in self.writes.lose_peer(event.peer):
            self._settle(write, _LINK_BROKE)

    def on_forward(
        self, sender: NodeId, message: ForwardWrites, now: float, *, is_leader: bool
    ) -> None:
        """A peer takes this node for the leader and hands it the writes of its clients."""
        for request_id, command in message.writes:
            origin = Origin(sender, message.incarnation, request_id)
            if not is_leader:
                self._reply_book.add(origin, None)
            elif not _is_command(command):
                self._reply_book.add(origin, FailureCode.INVALID)
            elif self._is_full():
                # A number and not None, which would make the sender ask again at once.
                self._reply_book.add(origin, FailureCode.OVERLOADED)
            else:
                deadline = now + _FOREIGN_DEADLINE_SECONDS
                self.writes.hold(PendingWrite(request_id, command, deadline, origin))

    def on_forward_replies(self, sender: NodeId, message: ForwardReplies) -> None:
        """The leader answers writes that were forwarded to it."""
        if message.incarnation != self._incarnation:
            return
        for request_id, reply in message.replies:
            write = self.writes.answered(sender, request_id)
            if write is None:
                continue
            if reply is None:
                self._declined_by = sender
                self._hold_again(write)
            else:
                self._settle(write, _decode_reply(reply))

    def tick(self, now: float, *, is_draining: bool = False) -> None:
        """A tick passed: what was put off may be tried again.

        While the node drains nobody waits here for a lock: the wait would outlast the node, and
        leave a place in the queue for which nobody asks.
        """
        self._declined_by = None
        self._now = now
        self.locks.expire(inf if is_draining else now)
        self.upkeep.tick()
        self.reads.tick()

    def expire(self, now: float, outlook: Outlook) -> None:
        """Answer what waited until its deadline."""
        for write in self.writes.expire_held(now):
            if write.origin is None:
                self._settle(write, outlook.no_leader)
            else:
                self._reply_book.add(write.origin, None)
        for write in self.writes.expire_sent(now):
            self._settle(write, _LATE_WRITE)
            write.cancelled = True
        for request in self.reads.expire_unasked(now):
            self._answer(request.id, _LATE_READ if outlook.knows_leader else outlook.no_leader)
        for request in self.reads.expire_lagging(now):
            self._answer(request.id, _LAGGING)

    # ---- once a turn ------------------------------------------------------------------------

    def offer_writes(self, raft: RawNode, store: Store, now: float) -> None:
        """Give held writes to the log: this leader's own, or by the link to the leader."""
        self._now = now
        if raft.role is Role.LEADER:
            has_batch = bool(self.writes.held)
            chores = self.upkeep.chores(raft, store, now, has_batch=has_batch)
            if not has_batch and chores.is_empty:
                return
            while self._propose_batch(raft, store, chores) and self.writes.held:
                chores = NO_CHORES
            return
        self.upkeep.rest()
        if not self.writes.held:
            return
        for write in self.writes.drop_foreign_held():
            self._hold_again(write)
        leader = raft.leader_id
        if leader not in self._connected or leader == self._declined_by:
            return
        assert leader is not None, "only peers are connected"
        # What is beyond the bound stays held, which is to say: certainly not committed.
        bytes_max = self._settings.forwarded_bytes_max
        while self.writes.held and self.writes.forwarded_bytes < bytes_max:
            batch = self._take_batch()
            self._send(leader, self.writes.forward(leader, batch, self._incarnation))

    def offer_reads(self, raft: RawNode, now: float) -> bool:
        """Ask for a read index on behalf of all reads that wait; whether the core was asked."""
        if not self.reads.wants_round() or raft.leader_id is None:
            return False
        context = self.reads.begin_round(now)
        try:
            raft.read_index(context)
        except ReadDropped:
            self.reads.abandon_round(context)
        return True

    def settle_entry(self, entry: AppliedEntry) -> None:
        """Answer the writes that were proposed at this index, whichever entry came to be there."""
        if entry.grants:
            self.locks.granted(entry.grants)
        proposal, lost = self.writes.applied(entry.index, entry.term)
        for write in lost:
            self._hold_again(write)
        if proposal is None:
            return
        assert entry.outcomes is not None, "an entry of this name was proposed with commands"
        outcomes = entry.outcomes[proposal.own_count :] if proposal.own_count else entry.outcomes
        for write, outcome in zip(proposal.writes, outcomes, strict=True):
            if write.origin is None:
                self._settle(write, outcome)
            else:
                self._reply_book.add(write.origin, encode_outcome(outcome))

    def skip_to(self, index: Index) -> None:
        """A snapshot of ``index`` takes the place of what is not applied (rule 18)."""
        for write in self.writes.skip_to(index):
            if write.origin is None:
                self._settle(write, _SKIPPED)
            else:
                self._reply_book.add(write.origin, FailureCode.UNKNOWN)

    def installed(self, store: Store) -> None:
        """The store is another, made from a snapshot: see what it did for those who wait."""

        def find(name: bytes) -> Lock | None:
            held = find_lock(store.engine, name)
            return None if held is None else held.lock

        self.locks.look_again(store.revision, find)

    def serve_reads(self, store: Store, now: float) -> bool:
        """Answer reads for which the store is new enough, as many as a turn has time for.

        Whether there are more.
        """
        if not self.is_caught_up and self.reads.barrier_index is not None:
            self.is_caught_up = store.applied_index >= self.reads.barrier_index
        ready = self.reads.take_ready(store.applied_index, store.revision)
        if ready:
            found = queries.answer_some(store, [request.query for request in ready])
            for request, answer in zip(ready, found, strict=False):
                self._answer(request.id, answer)
            self.reads.put_back(ready[len(found) :])
        ready = self.reads.take_unconfirmed(store.revision, now)
        if ready:
            found = queries.answer_some(store, [request.query for request in ready])
            for request, answer in zip(ready, found, strict=False):
                if isinstance(answer, Failure):
                    self._answer(request.id, answer)
                else:
                    self._answer(request.id, Stale(answer, self.reads.age_seconds(now)))
            self.reads.put_back_unconfirmed(ready[len(found) :])
        return self.reads.has_unserved

    def flush_replies(self) -> None:
        """Send the answers to forwarded writes, to each asking process."""
        self._reply_book.flush(self._send)

    # ---- parts ------------------------------------------------------------------------------

    def _propose_batch(self, raft: RawNode, store: Store, chores: Chores) -> bool:
        """Propose one entry: the chores, then held writes; False when the core takes none now."""
        batch = self._admit(store, self._take_batch()) if self.writes.held else []
        commands = [write.command for write in batch]
        size_bytes = sum(map(len, commands))
        if not chores.is_empty:
            commands[:0] = chores.commands
        if not commands:
            return True
        try:
            entry = raft.propose(join_batch(commands))
        except ProposalDropped:
            # Transferring, founding or full: they stay held, and their deadlines run.
            self.writes.put_back(batch)
            self.upkeep.dropped(chores)
            return False
        self.writes.propose(entry, batch, len(chores.commands), size_bytes)
        self.upkeep.proposed(chores, entry.index)
        return True

    def _admit(self, store: Store, batch: list[PendingWrite]) -> list[PendingWrite]:
        """Those of the batch that there is room for; the others are refused."""
        # No batch is longer, but one of a single command.
        most_bytes = max(self._settings.batch_bytes_max, len(batch[0].command))
        if self._admission.is_open(store, self.writes.proposed_bytes + most_bytes):
            return batch
        admitted: list[PendingWrite] = []
        proposed_bytes = self.writes.proposed_bytes
        for write in batch:
            size_bytes = len(write.command)
            code = self._admission.refuse(store, proposed_bytes + size_bytes, write.command)
            if code is None:
                admitted.append(write)
                proposed_bytes += size_bytes
            elif write.origin is None:
                self._settle(write, _refusal(code))
            else:
                self._reply_book.add(write.origin, code)
        return admitted

    def _write_own(self, command: bytes, then: Callable[[Answer], None]) -> None:
        """Propose a command of this node's own, wherever the leader is."""
        self._last_own_id -= 1  # clients' are above 0
        deadline = self._now + _OWN_DEADLINE_SECONDS
        self.writes.hold(PendingWrite(self._last_own_id, command, deadline, then=then))

    def _take_batch(self) -> list[PendingWrite]:
        return self.writes.take_batch(
            self._settings.batch_commands_max, self._settings.batch_bytes_max
        )

    def _is_full(self) -> bool:
        writes = self.writes
        return (
            writes.held_count + len(writes.forwarded) >= self._settings.pending_requests_max
            or writes.held_bytes >= self._settings.pending_bytes_max
        )

    def _hold_again(self, write: PendingWrite) -> None:
        """The write is known not to have happened: try again, or tell its sender so."""
        if write.origin is not None:
            self._reply_book.add(write.origin, None)
        elif not write.cancelled:
            self.writes.hold(write)
        elif write.then is not None:
            write.then(_NO_LEADER)

    def _settle(self, write: PendingWrite, answer: Answer) -> None:
        is_awaited = self.writes.settle(write)
        if type(answer) is Replayed:
            self.replayed_count += 1
        if write.then is not None:
            write.then(answer)
        elif is_awaited:
            self._answer(write.id, answer)


def _decode_reply(reply: bytes | int) -> Answer:
    """What the leader's reply says. One that makes no sense here leaves the outcome unknown."""
    try:
        if isinstance(reply, int):
            return _refusal(FailureCode(reply))
        return decode_outcome(reply)
    except ValueError:
        return _GARBLED


def _refusal(code: FailureCode) -> Failure:
    return Failure(code, _REFUSALS.get(code, "refused by the leader"))


def _is_command(data: bytes) -> bool:
    """Whether a peer's client may ask for this, and apply could decode it.

    In the log, what cannot be decoded would stop every replica.
    """
    try:
        return not isinstance(decode_command(data), LeaderCommand)
    except ValueError:
        return False
