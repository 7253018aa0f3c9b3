"""What must be on disk before what: a queue, not a comment.

Owned by `raftkv.raft.raft.Raft`. Holds the messages that assert durability until the disk makes
them true, and cuts the stream of changes into writes, at most one in flight (node design, rule
4): what gathers meanwhile is the next write, which is group commit without timers.

    a message ...                                        leaves ...
    of a term or vote that is not on disk                with the write that has it
    that acknowledges entries up to an index             once the log is durable up to there
    any other                                            at once

Invariant: every waiting message is of the node's current term (`forget` is called when it moves),
so the newest hard state is the one they need.
Source: paper fig. 2 ("updated on stable storage before responding"), thesis 3.8 and 10.2.1.
"""

from dataclasses import dataclass, field

from raftkv.raft.log import RaftLog
from raftkv.raft.messages import (
    AppendResp,
    Entry,
    HardState,
    Index,
    Message,
    NodeId,
    SnapshotBase,
    Term,
)


@dataclass(frozen=True, slots=True)
class Write:
    """One write for the host's disk; it may start at once, and no other will be handed out.

    The host writes ``hard_state`` (if not None) and ``entries`` in one atomic unit; an entry at
    an index that is on disk already replaces that entry and everything after it. When all of it
    is durable, the host calls ``RawNode.persisted(number)`` and sends ``messages``.

    ``snapshot`` (if not None) comes first: all of the log before this write is void, and the log
    goes on after ``snapshot.last`` with ``entries``. The write is done when the state machine is
    that of the snapshot, too. A crash between the snapshot and the rest is harmless.
    """

    number: int
    hard_state: HardState | None
    entries: tuple[Entry, ...]
    messages: list[Message]
    snapshot: SnapshotBase | None = None


@dataclass(slots=True)
class DurabilityQueue:
    """Waiting messages, and how far the hard state is on disk."""

    durable: HardState  # what a restart would surely read back
    _in_flight: Write | None = None
    _number: int = 0  # of the last write handed out
    _handed_out: HardState = field(init=False)  # newest that a write carried
    # Each with the index up to which the log must be durable; 0: only the hard state.
    _waiting: list[tuple[Index, Message]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._handed_out = self.durable

    def has(self, term: Term, vote: NodeId | None) -> bool:
        """Whether this term and vote are durable."""
        return self.durable.term == term and self.durable.vote == vote

    def wait(self, message: Message, durable_index: Index = 0) -> None:
        """Hold ``message`` until the current hard state and ``durable_index`` are on disk.

        Of several acknowledgements for the same leader only the highest is kept.
        """
        if isinstance(message, AppendResp) and message.rejected_index is None:
            for position, (index, other) in enumerate(self._waiting):
                if (
                    isinstance(other, AppendResp)
                    and other.rejected_index is None
                    and (other.receiver, other.session) == (message.receiver, message.session)
                ):
                    if index < durable_index:
                        self._waiting[position] = (durable_index, message)
                    return
        self._waiting.append((durable_index, message))

    def forget(self) -> None:
        """The term moved on: nobody waits for answers of the old one any more."""
        self._waiting.clear()

    def can_release(self, term: Term, vote: NodeId | None, durable_index: Index) -> bool:
        """Whether some waiting message may leave."""
        return (
            bool(self._waiting)
            and self.has(term, vote)
            and any(index <= durable_index for index, _ in self._waiting)
        )

    def release(self, term: Term, vote: NodeId | None, durable_index: Index) -> list[Message]:
        """Take out the messages that are true on disk."""
        if not self.can_release(term, vote, durable_index):
            return []
        released = [message for index, message in self._waiting if index <= durable_index]
        self._waiting = [waiting for waiting in self._waiting if waiting[0] > durable_index]
        return released

    def can_begin(self, term: Term, vote: NodeId | None, log: RaftLog) -> bool:
        """Whether there is something that must be written, and no write in flight."""
        return self._in_flight is None and (log.has_unwritten or not self.has(term, vote))

    def begin(self, hard_state: HardState, log: RaftLog) -> Write:
        """The next write, with the messages that it makes true. Only if `can_begin`.

        The commit index goes along when something else is written, but never causes a write: it
        is known to the leader anyway, and a restart only loses a little knowledge.
        """
        assert self._in_flight is None
        self._number += 1
        changed = hard_state != self._handed_out
        snapshot, entries = log.begin_write()
        write = Write(
            self._number,
            hard_state if changed else None,
            entries,
            [message for _, message in self._waiting],
            snapshot,
        )
        self._waiting.clear()
        self._handed_out = hard_state
        self._in_flight = write
        return write

    def done(self, number: int, log: RaftLog) -> None:
        """The write of that number is durable."""
        write = self._in_flight
        assert write is not None
        assert write.number == number, "completions come one by one, in order"
        self._in_flight = None
        if write.hard_state is not None:
            self.durable = write.hard_state
        log.write_done()
