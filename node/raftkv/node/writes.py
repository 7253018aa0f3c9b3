"""Where every write is on its way through the log, and what may be said of it if the way breaks.

A write is in exactly one of three places:

    held       not yet given to anybody: whatever happens, it is *not committed*
    forwarded  its bytes left for the leader: if the connection breaks, it is *unknown*
    proposed   it is in an entry of this leader's log: *unknown* until that index is applied; then
               either it took effect, or another entry took its place and it is *not committed*

Owned by the node class; holds no clock and sends nothing. Source: node design, rule 18.
"""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from raftkv.kv.commands import EFFORT_MAX, effort_of
from raftkv.node.events import Answer
from raftkv.node.messages import ForwardReplies, ForwardWrites, RequestId
from raftkv.raft.messages import EntryId, Index, NodeId, Term

# Of the answers in one message; a single one may be longer. The outbox cuts frames between
# messages only, and who is sent a frame that is too long cuts the connection.
REPLIES_BYTES_MAX: Final = 1 << 20

_Reply = tuple[RequestId, bytes | int | None]


class Origin(msgspec.Struct, frozen=True):
    """The peer that forwarded a write, and the number the write has there."""

    peer: NodeId
    incarnation: int
    id: RequestId


class PendingWrite(msgspec.Struct, eq=False):
    """A write that was not answered yet. ``origin`` is None when the client is our own.

    ``then`` is for the node's own use: called in the place of an answer, perhaps twice, with what
    became of a write after it was called unknown.
    """

    id: RequestId
    command: bytes
    deadline: float
    origin: Origin | None = None
    cancelled: bool = False
    then: Callable[[Answer], None] | None = None
    is_held: bool = False  # `Writes` keeps it


class Proposal(msgspec.Struct, eq=False):
    """The writes of one entry, in the order of their commands in it, behind the leader's own."""

    term: Term
    writes: list[PendingWrite]
    own_count: int = 0  # commands of the leader, which come first
    size_bytes: int = 0
    # What this node proposed at the same index when it led before: cut from its log since, but
    # another node may hold it and get it committed. Only what is applied there decides.
    older: "Proposal | None" = None


class Writes:
    """All pending writes of one node."""

    def __init__(self) -> None:
        # With those that were cancelled since it was last looked through: to take each out by
        # itself would be a walk for each, and clients that leave do so by the thousand.
        self._held: list[PendingWrite] = []
        self._gone_count = 0  # of them
        self.held_bytes = 0
        self.forwarded: dict[RequestId, tuple[NodeId, PendingWrite]] = {}
        self.forwarded_bytes = 0
        self.proposed: dict[Index, Proposal] = {}
        self.proposed_bytes = 0
        # A local write by its id, wherever it is: only for cancelling.
        self._local: dict[RequestId, PendingWrite] = {}

    def __len__(self) -> int:
        """How many writes are pending, including those of peers that were proposed here."""
        proposed = sum(len(proposal.writes) for proposal in self._proposals())
        return self.held_count + len(self.forwarded) + proposed

    @property
    def has_any(self) -> bool:
        """Whether any write is pending."""
        return bool(self.held_count or self.forwarded or self.proposed)

    @property
    def held(self) -> list[PendingWrite]:
        """The held writes, oldest first. Once a turn; to count them there is `held_count`."""
        if self._gone_count:
            self._held = [write for write in self._held if write.is_held]
            self._gone_count = 0
        return self._held

    @property
    def held_count(self) -> int:
        """How many writes are held."""
        return len(self._held) - self._gone_count

    def hold(self, write: PendingWrite) -> None:
        """Take a new write, or one that is known not to have happened."""
        write.is_held = True
        self._held.append(write)
        self.held_bytes += len(write.command)
        if write.origin is None:
            self._local[write.id] = write

    def take_batch(self, commands_max: int, bytes_max: int) -> list[PendingWrite]:
        """Remove the oldest held writes, at least one, up to both limits and `EFFORT_MAX`."""
        size = 0
        effort = 0
        count = 0
        held = self.held
        for write in held[:commands_max]:
            size += len(write.command)
            effort += effort_of(write.command)
            if count and (size > bytes_max or effort > EFFORT_MAX):
                size -= len(write.command)
                break
            write.is_held = False
            count += 1
        batch = held[:count]
        del held[:count]
        self.held_bytes -= size
        return batch

    def put_back(self, batch: list[PendingWrite]) -> None:
        """Undo `take_batch`."""
        for write in batch:
            write.is_held = True
        self._held[:0] = batch
        self.held_bytes += sum(len(write.command) for write in batch)

    def propose(
        self, entry: EntryId, batch: list[PendingWrite], own_count: int = 0, size_bytes: int = 0
    ) -> None:
        """The batch, of ``size_bytes``, became ``entry``, behind ``own_count`` of this leader."""
        older = self.proposed.get(entry.index)
        self.proposed_bytes += size_bytes
        self.proposed[entry.index] = Proposal(entry.term, batch, own_count, size_bytes, older)

    def forward(self, leader: NodeId, batch: list[PendingWrite], incarnation: int) -> ForwardWrites:
        """The message that hands the batch to the leader; from now on its loss is 'unknown'."""
        for write in batch:
            self.forwarded[write.id] = (leader, write)
            self.forwarded_bytes += len(write.command)
        return ForwardWrites(incarnation, tuple((write.id, write.command) for write in batch))

    def applied(self, index: Index, term: Term) -> tuple[Proposal | None, list[PendingWrite]]:
        """Some entry of ``term`` was applied at ``index``.

        The proposal that it was, if it was one of this node; and the writes that this node
        proposed there in other terms, which are now known not to have happened.
        """
        ours: Proposal | None = None
        lost: list[PendingWrite] = []
        proposal = self.proposed.pop(index, None)
        while proposal is not None:
            self.proposed_bytes -= proposal.size_bytes
            if proposal.term == term:
                ours = proposal
            else:
                lost += proposal.writes
            proposal = proposal.older
        return ours, lost

    def skip_to(self, index: Index) -> list[PendingWrite]:
        """A snapshot of ``index`` takes the place of the log.

        Returns the writes that were proposed up to there: what became of them is not told.
        """
        skipped: list[PendingWrite] = []
        for at in [at for at in self.proposed if at <= index]:
            proposal: Proposal | None = self.proposed.pop(at)
            while proposal is not None:
                self.proposed_bytes -= proposal.size_bytes
                skipped += proposal.writes
                proposal = proposal.older
        return skipped

    def settle(self, write: PendingWrite) -> bool:
        """Forget a local write that is about to be answered; False if nobody waits for it."""
        self._local.pop(write.id, None)
        return not write.cancelled

    def answered(self, leader: NodeId, reply_id: RequestId) -> PendingWrite | None:
        """A forwarded write that ``leader`` answered; None if it was given up before."""
        asked, write = self.forwarded.get(reply_id, (None, None))
        if write is None or asked != leader:
            return None
        self._not_forwarded(write)
        return write

    def lose_peer(self, peer: NodeId) -> list[PendingWrite]:
        """The writes forwarded to ``peer`` whose fate is unknown, now that the link broke."""
        lost = [write for leader, write in self.forwarded.values() if leader == peer]
        for write in lost:
            self._not_forwarded(write)
        return lost

    def cancel(self, request: RequestId) -> bool:
        """The client went away: drop the write if it is held, else let it run unanswered.

        Returns whether it was dropped.
        """
        write = self._local.pop(request, None)
        if write is None:
            return False
        write.cancelled = True
        if not write.is_held:
            return False
        write.is_held = False
        self._gone_count += 1
        self.held_bytes -= len(write.command)
        return True

    def drop_foreign_held(self) -> list[PendingWrite]:
        """Remove the held writes of peers: only a leader may hold those."""
        foreign = [write for write in self.held if write.origin is not None]
        self._let_go(foreign)
        return foreign

    def expire_held(self, now: float) -> list[PendingWrite]:
        """Remove the held writes whose deadline passed: certainly not committed."""
        expired = [write for write in self.held if write.deadline <= now]
        self._let_go(expired)
        return expired

    def expire_sent(self, now: float) -> list[PendingWrite]:
        """Give up on forwarded and proposed local writes whose deadline passed: unknown.

        A proposed one stays where it is, cancelled, because positions in its entry count.
        """
        expired = [write for _, write in self.forwarded.values() if write.deadline <= now]
        for write in expired:
            self._not_forwarded(write)
        expired += [
            write
            for write in self._proposed_local()
            if write.deadline <= now and not write.cancelled
        ]
        return expired

    def _let_go(self, writes: list[PendingWrite]) -> None:
        """Take these out of the held ones."""
        for write in writes:
            write.is_held = False
            self.held_bytes -= len(write.command)
        if writes:
            self._held = [write for write in self._held if write.is_held]

    def _not_forwarded(self, write: PendingWrite) -> None:
        del self.forwarded[write.id]
        self.forwarded_bytes -= len(write.command)

    def _proposals(self) -> Iterator[Proposal]:
        for newest in self.proposed.values():
            proposal: Proposal | None = newest
            while proposal is not None:
                yield proposal
                proposal = proposal.older

    def _proposed_local(self) -> Iterator[PendingWrite]:
        for proposal in self._proposals():
            for write in proposal.writes:
                if write.origin is None:
                    yield write


class ReplyBook:
    """Gathers the answers to forwarded writes of one turn, for each asking process."""

    def __init__(self) -> None:
        self._replies: dict[tuple[NodeId, int], list[_Reply]] = {}

    def add(self, origin: Origin, outcome: bytes | int | None) -> None:
        """Answer one write as `ForwardReplies` says."""
        self._replies.setdefault((origin.peer, origin.incarnation), []).append((origin.id, outcome))

    def flush(self, send: Callable[[NodeId, ForwardReplies], None]) -> None:
        """Hand out all messages, one for each asking process unless it is too long; start anew."""
        for (peer, incarnation), replies in self._replies.items():
            for part in _parts(replies):
                send(peer, ForwardReplies(incarnation, tuple(part)))
        self._replies.clear()


def _parts(replies: list[_Reply]) -> Iterator[list[_Reply]]:
    begin = 0
    part_bytes = 0
    for position, (_, outcome) in enumerate(replies):
        if not isinstance(outcome, bytes):
            continue
        part_bytes += len(outcome)
        if part_bytes > REPLIES_BYTES_MAX and position > begin:
            yield replies[begin:position]
            begin, part_bytes = position, len(outcome)
    yield replies[begin:]
