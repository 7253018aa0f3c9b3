"""What comes in from peers, handed to whom it concerns.

Part of the node class (`raftkv.node.node`), apart for its length: knows which part of a node takes
which message, and what need not be taken at once.
"""

from typing import TYPE_CHECKING

from raftkv.node.messages import (
    ForwardOrder,
    ForwardReplies,
    ForwardWrites,
    OrderReply,
    PeerFrame,
    Report,
    ReportRequest,
    SnapshotChunk,
    SnapshotOffer,
    StateHash,
)
from raftkv.raft import AppendResp, Message, Role, TimeoutNow

if TYPE_CHECKING:
    from raftkv.node.node import Core, Node


def step_all(node: "Node", core: "Core", frame: PeerFrame, now: float) -> None:
    """Hand each message of a frame, which is for this node, to whom it concerns."""
    for message in frame.messages:
        if isinstance(message, Message):
            if message.sender == frame.sender:
                _step(node, core, message, now)
            else:
                node.frames_dropped += 1
        elif isinstance(message, ForwardWrites):
            is_leader = core.raft.role is Role.LEADER
            node.requests.on_forward(frame.sender, message, now, is_leader=is_leader)
        elif isinstance(message, ForwardReplies):
            node.requests.on_forward_replies(frame.sender, message)
        elif isinstance(message, StateHash):
            node.hash_check.received(core.store, frame.sender, message)
        elif isinstance(message, ReportRequest | Report):
            node.reports.received(frame.sender, message, core.raft, core.store, now)
        elif isinstance(message, ForwardOrder):
            node.orders.on_forward(frame.sender, message, core.raft, now)
        elif isinstance(message, OrderReply):
            node.orders.on_reply(frame.sender, message)
        elif isinstance(message, SnapshotOffer):
            node.snapshots.on_offer(core, frame.sender, message)
        elif isinstance(message, SnapshotChunk):
            node.snapshots.on_chunk(message)
        else:
            node.snapshots.on_ack(core, frame.sender, message)


def _step(node: "Node", core: "Core", message: Message, now: float) -> None:
    if isinstance(message, TimeoutNow) and not node.hand_over.takes_leadership:
        return  # the sender asks another one, or stays
    node.round_trips.received(message, now)
    core.raft.step(message)


def is_idle_answer(core: "Core", frame: PeerFrame) -> bool:
    """Whether ``frame`` is an acknowledgement from which nothing follows on this leader."""
    messages = frame.messages
    return (
        len(messages) == 1
        and isinstance(message := messages[0], AppendResp)
        and message.rejected_index is None
        and core.raft.expects_nothing_of(message.sender)
    )
