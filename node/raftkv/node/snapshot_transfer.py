"""Snapshot files on their way from a leader to a follower: in pieces, with a window, resumable.

Owned by `raftkv.node.snapshots`, one object for each transfer. Which snapshot is sent, and what
happens once it is there, is decided elsewhere.

    leader                              follower
      SnapshotOffer(transfer, info) ->    makes room, or finds what it has of the same file
      <- SnapshotAck(transfer, n)         n bytes are there: go on from here
      SnapshotChunk(n, ...)         ->    written in order
      <- SnapshotAck(transfer, m)         the window moves; silence for too long ends the transfer
      <- SnapshotAck(transfer, size)      complete, verified and durable

The window bounds what lies in queues and memory on both sides, and the follower's disk sets the
pace. After a broken connection the leader offers again and is told where to go on. Source: Raft
paper 7, thesis 5.1; node design, rules 10 and 17.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from raftkv.node.disk_tasks import DiskTasks, Refusal
from raftkv.node.messages import SnapshotAck, SnapshotChunk, SnapshotOffer
from raftkv.raft.messages import NodeId
from raftkv.storage.disk import DiskTask, Handle, Lane
from raftkv.storage.snapshots import (
    SnapshotInfo,
    SnapshotReceiver,
    close_snapshot,
    open_snapshot,
    read_chunk,
)

T = TypeVar("T")

CHUNK_BYTES: Final = 256 << 10
WINDOW_BYTES: Final = 8 * CHUNK_BYTES
CHUNKS_MAX: Final = 32  # that wait to be written: more than any window
# A follower may have to verify the whole file before its last acknowledgement.
SILENCE_SECONDS_MAX: Final = 30.0
REPEAT_SECONDS: Final = 2.0


class Outgoing:
    """A snapshot that is sent to ``peer``."""

    def __init__(
        self,
        disk: DiskTasks,
        send: Callable[[SnapshotChunk | SnapshotOffer], None],
        *,
        peer: NodeId,
        offer: SnapshotOffer,
        now: float,
    ) -> None:
        self.peer = peer
        self.offer = offer
        self.acked_bytes = 0
        self.is_ended = False
        self._disk = disk
        self._send = send
        self._sent_bytes = 0
        self._handle: Handle | None = None
        self._is_reading = False
        self._heard_at = now  # the follower last said something, and
        self._spoke_at = now  # this node last repeated itself, or had no reason to

    @property
    def is_complete(self) -> bool:
        """Whether the follower has all of it, verified."""
        return self.acked_bytes == self.offer.info.size_bytes

    def start(self, refused: Callable[[Refusal], None]) -> None:
        """Open the file and offer it."""

        def opened(handle: Handle) -> None:
            self._handle = handle
            if self.is_ended:
                self._close()
            else:
                self._send(self.offer)

        self._disk.start(
            open_snapshot(self.offer.info.name), opened, lane=Lane.BULK, refused=refused
        )

    def acknowledged(self, received_bytes: int, now: float) -> None:
        """The follower has so much; the first time it says where to begin."""
        self._heard_at = self._spoke_at = now
        self.acked_bytes = max(self.acked_bytes, min(received_bytes, self.offer.info.size_bytes))
        self._sent_bytes = max(self._sent_bytes, self.acked_bytes)
        self._pump()

    def tick(self, now: float) -> bool:
        """Repeat what may be lost; False if the follower has said nothing for too long."""
        if self._handle is not None and now - self._spoke_at > REPEAT_SECONDS:
            self._spoke_at = now
            self._sent_bytes = self.acked_bytes
            self._send(self.offer)
        return now - self._heard_at <= SILENCE_SECONDS_MAX

    def end(self) -> None:
        """Send no more, and let go of the file."""
        self.is_ended = True
        if not self._is_reading:
            self._close()

    def _pump(self) -> None:
        """Read and send the next piece, if the window has room."""
        if self.is_ended or self._is_reading or self._handle is None:
            return
        offset = self._sent_bytes
        if offset == self.offer.info.size_bytes or offset - self.acked_bytes >= WINDOW_BYTES:
            return
        self._is_reading = True

        def read(data: bytes) -> None:
            self._is_reading = False
            if self.is_ended:
                self._close()
                return
            if offset == self._sent_bytes:
                self._sent_bytes += len(data)
                self._send(SnapshotChunk(self.offer.transfer, offset, data))
            self._pump()

        self._disk.start(read_chunk(self._handle, offset, CHUNK_BYTES), read, lane=Lane.BULK)

    def _close(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._disk.start(close_snapshot(handle), lambda _: None, lane=Lane.BULK)


class Incoming:
    """A snapshot that is received from ``leader``. One disk task at a time."""

    def __init__(
        self,
        disk: DiskTasks,
        acknowledge: Callable[[NodeId, SnapshotAck], None],
        complete: Callable[["Incoming", SnapshotInfo], None],
        ended: Callable[[], None],
        *,
        leader: NodeId,
        offer: SnapshotOffer,
        keep_free_bytes: int,
    ) -> None:
        """Receive what ``leader`` offers.

        ``complete`` is called when the file is verified and durable, also when the transfer was
        given up (`is_given_up`) while that went on; ``ended``, in any case, when
        nothing of the transfer is under way any more.
        """
        self.leader = leader
        self.offer = offer
        self._disk = disk
        self._acknowledge = acknowledge
        self._complete = complete
        self._ended = ended
        self._receiver = SnapshotReceiver(offer.info, keep_free_bytes=keep_free_bytes)
        self._chunks: deque[SnapshotChunk] = deque()  # in order, from what was received on
        self._is_busy = False
        self.is_given_up = False

    def start(self) -> None:
        """Make room, and say where to begin."""
        self._run(self._receiver.begin(), lambda _: self._say(0))

    def renewed(self, leader: NodeId, offer: SnapshotOffer) -> bool:
        """Go on with the same file under a new offer; False if it is another file."""
        if self.is_given_up or not self._receiver.accepts(offer.info):
            return False
        self.leader, self.offer = leader, offer
        self._chunks.clear()
        if not self._is_busy:
            self._say(self._receiver.received_bytes)
        return True

    def take(self, chunk: SnapshotChunk) -> None:
        """Write a piece, after those before it."""
        if self.is_given_up or chunk.transfer != self.offer.transfer:
            return
        if len(self._chunks) >= CHUNKS_MAX:
            return  # beyond the window: the leader repeats it
        self._chunks.append(chunk)
        self._next()

    def give_up(self) -> None:
        """Forget what was received; ``ended`` follows."""
        self.is_given_up = True
        self._chunks.clear()
        self._next()

    def _next(self) -> None:
        """Begin the next task, if there is one."""
        if self._is_busy:
            return
        receiver = self._receiver
        if self.is_given_up:
            self._run(receiver.abandon(), lambda _: self._ended())
        elif receiver.received_bytes == self.offer.info.size_bytes:
            self._run(receiver.finish(), self._finished)
        elif self._chunks:
            chunk = self._chunks.popleft()
            if chunk.offset > receiver.received_bytes:
                # A piece was lost on the way: from here again.
                self._chunks.clear()
                self._say(receiver.received_bytes)
            else:
                self._run(receiver.write(chunk.offset, chunk.data), self._written)

    def _run(self, task: DiskTask[T], done: Callable[[T], None]) -> None:
        self._is_busy = True

        def ended(result: T) -> None:
            self._is_busy = False
            done(result)

        self._disk.start(task, ended, lane=Lane.BULK, refused=self._refused)

    def _written(self, received_bytes: int) -> None:
        if received_bytes < self.offer.info.size_bytes and not self.is_given_up:
            self._say(received_bytes)
        self._next()

    def _finished(self, info: SnapshotInfo) -> None:
        if not self.is_given_up:
            self._say(info.size_bytes)
        self._complete(self, info)
        self._ended()

    def _refused(self, _refusal: Refusal) -> None:
        self._is_busy = False
        self._acknowledge(self.leader, SnapshotAck(self.offer.transfer, None))
        self._ended()

    def _say(self, received_bytes: int) -> None:
        self._acknowledge(self.leader, SnapshotAck(self.offer.transfer, received_bytes))
