"""Frames: one for each peer and channel, and none that a peer would refuse."""

from raftkv.node.messages import Channel, ForwardReplies, ForwardWrites, PeerMessage
from raftkv.node.outbox import FRAME_BYTES_MAX, Outbox
from raftkv.node.writes import Origin, ReplyBook
from raftkv.raft import Append, Entry, EntryType, Heartbeat
from raftkv.server.frames import BODY_BYTES_MAX, encode

ME, PEER = 1, 2


def _append(data_bytes: int) -> Append:
    entry = Entry(1, 1, EntryType.NORMAL, bytes(data_bytes))
    return Append(ME, PEER, 1, 1, 0, 0, 0, (entry,))


def test_messages_share_a_frame_for_each_peer_and_channel() -> None:
    outbox = Outbox()
    heartbeat: PeerMessage = Heartbeat(ME, PEER, 1, 1, 0, 0)
    outbox.add(PEER, _append(1))
    outbox.add(PEER, heartbeat)
    outbox.add(PEER, _append(2))
    outbox.add(PEER + 1, heartbeat)
    sends = outbox.take("c1", ME)
    assert [(s.frame.receiver, s.channel, len(s.frame.messages)) for s in sends] == [
        (PEER, Channel.BULK, 2),
        (PEER, Channel.CONTROL, 1),
        (PEER + 1, Channel.CONTROL, 1),
    ]
    assert outbox.take("c1", ME) == []


def test_no_frame_is_longer_than_a_peer_takes() -> None:
    outbox = Outbox()
    commands = [ForwardWrites(1, ((n, bytes(FRAME_BYTES_MAX // 3)),)) for n in range(7)]
    huge = _append(2 * FRAME_BYTES_MAX)
    messages: list[PeerMessage] = [*commands, huge, huge]
    for message in messages:
        outbox.add(PEER, message)
    frames = [send.frame.messages for send in outbox.take("c1", ME)]
    assert [len(frame) for frame in frames] == [3, 3, 1, 1, 1]
    assert [message for frame in frames for message in frame] == messages


def test_a_hundred_large_answers_are_frames_that_a_peer_takes() -> None:
    """One that is too long would cut the link, and leave all that was forwarded on it unknown."""
    outbox, book = Outbox(), ReplyBook()
    for number in range(100):
        book.add(Origin(PEER, 9, number), bytes(1 << 20))
    book.flush(outbox.add)
    sends = outbox.take("c1", ME)
    sizes = [sum(map(len, encode(send.frame))) for send in sends]
    assert max(sizes) < FRAME_BYTES_MAX + 1000
    assert max(sizes) < BODY_BYTES_MAX
    answered = [
        number
        for send in sends
        for message in send.frame.messages
        if isinstance(message, ForwardReplies)
        for number, _ in message.replies
    ]
    assert answered == list(range(100))


def test_a_node_of_no_cluster_says_nothing() -> None:
    outbox = Outbox()
    outbox.add(PEER, _append(1))
    assert outbox.take(None, ME) == []
    assert outbox.take("c1", ME) == []
