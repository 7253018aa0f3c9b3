"""What a turn has to say to peers, gathered into frames: one for each peer and channel.

Owned by the node class, which hands the frames out at the end of the turn. A frame is bounded: one
that a peer refuses for its length would cut the connection, and all that is under way on it.
"""

from collections.abc import Iterator
from typing import Final

from raftkv.node.events import Send
from raftkv.node.messages import (
    Channel,
    ForwardOrder,
    ForwardReplies,
    ForwardWrites,
    OrderReply,
    PeerFrame,
    PeerMessage,
    SnapshotAck,
    SnapshotChunk,
    SnapshotOffer,
)
from raftkv.raft import Append, AppendResp, NodeId

_BULK_MESSAGES: Final = (
    Append,
    AppendResp,
    ForwardWrites,
    ForwardReplies,
    ForwardOrder,
    OrderReply,
)
_SNAPSHOT_MESSAGES: Final = (SnapshotOffer, SnapshotChunk, SnapshotAck)

# Of the data in one frame. A single message may be longer, as a single entry may be; peers take
# frames of 64 MiB.
FRAME_BYTES_MAX: Final = 8 << 20


class Outbox:
    """The messages of one turn."""

    def __init__(self) -> None:
        self._messages: dict[tuple[NodeId, Channel], list[PeerMessage]] = {}

    def __len__(self) -> int:
        """How many frames there are at least."""
        return len(self._messages)

    def add(self, receiver: NodeId, message: PeerMessage) -> None:
        """Put a message in."""
        if isinstance(message, _BULK_MESSAGES):
            channel = Channel.BULK
        elif isinstance(message, _SNAPSHOT_MESSAGES):
            channel = Channel.SNAPSHOT
        else:
            channel = Channel.CONTROL
        self._messages.setdefault((receiver, channel), []).append(message)

    def take(self, cluster_id: str | None, sender: NodeId) -> list[Send]:
        """Take all out. A node of no cluster has nothing to say."""
        sends: list[Send] = []
        if cluster_id is not None:
            for (receiver, channel), messages in self._messages.items():
                sends += [
                    Send(channel, PeerFrame(cluster_id, sender, receiver, part))
                    for part in _parts(messages)
                ]
        self._messages.clear()
        return sends


def _parts(messages: list[PeerMessage]) -> Iterator[tuple[PeerMessage, ...]]:
    if len(messages) == 1:
        yield tuple(messages)
        return
    part: list[PeerMessage] = []
    part_bytes = 0
    for message in messages:
        message_bytes = _data_bytes(message)
        if part and part_bytes + message_bytes > FRAME_BYTES_MAX:
            yield tuple(part)
            part, part_bytes = [], 0
        part.append(message)
        part_bytes += message_bytes
    yield tuple(part)


def _data_bytes(message: PeerMessage) -> int:
    """The bytes of what a message carries, leaving out what is always small."""
    match message:
        case Append(entries=entries):
            return sum(len(entry.data) for entry in entries)
        case ForwardWrites(writes=writes):
            return sum(len(command) for _, command in writes)
        case ForwardReplies(replies=replies):
            return sum(len(reply) for _, reply in replies if isinstance(reply, bytes))
        case SnapshotChunk(data=data):
            return len(data)
        case _:
            return 0
