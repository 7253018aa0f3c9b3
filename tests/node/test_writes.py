"""Where a write is, and what may be said of it (node design, rule 18)."""

import itertools
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from raftkv.kv.commands import DeleteRange, Put, encode_command
from raftkv.node import writes as writes_module
from raftkv.node.messages import ForwardReplies
from raftkv.node.writes import REPLIES_BYTES_MAX, Origin, PendingWrite, ReplyBook, Writes
from raftkv.raft.messages import EntryId, NodeId

LEADER = 7


def _write(number: int, deadline: float = 5.0, origin: Origin | None = None) -> PendingWrite:
    command = encode_command(Put(b"k", b"v2"))
    assert len(command) == 12
    return PendingWrite(number, command, deadline, origin)


def _held(writes: Writes) -> list[int]:
    return [write.id for write in writes.held]


def test_a_batch_respects_both_limits_but_takes_at_least_one() -> None:
    writes = Writes()
    for number in range(5):
        writes.hold(_write(number))
    assert [w.id for w in writes.take_batch(2, 1000)] == [0, 1]
    assert [w.id for w in writes.take_batch(10, 29)] == [2, 3]
    assert [w.id for w in writes.take_batch(10, 1)] == [4]
    assert writes.held_bytes == 0


def test_a_batch_that_is_put_back_keeps_its_place() -> None:
    writes = Writes()
    for number in range(4):
        writes.hold(_write(number))
    writes.put_back(writes.take_batch(2, 1000))
    assert _held(writes) == [0, 1, 2, 3]
    assert writes.held_bytes == 48


def test_rule_26_what_may_touch_many_keys_has_a_batch_of_its_own() -> None:
    writes = Writes()
    heavy = encode_command(DeleteRange(b"a", None, 10_000))
    for number, command in enumerate((None, heavy, heavy, None, None)):
        write = _write(number)
        if command is not None:
            write.command = command
        writes.hold(write)
    batches = []
    while writes.held:
        batches.append([write.id for write in writes.take_batch(256, 1 << 20)])
    assert batches == [[0], [1], [2], [3, 4]]
    assert writes.held_bytes == 0


def test_rule_18_a_held_write_that_expires_is_certainly_not_committed() -> None:
    writes = Writes()
    writes.hold(_write(1, deadline=1.0))
    writes.hold(_write(2, deadline=3.0))
    assert [w.id for w in writes.expire_held(2.0)] == [1]
    assert _held(writes) == [2]
    assert writes.expire_sent(9.0) == []


def test_rule_18_a_forwarded_write_is_lost_with_the_link_to_its_leader_only() -> None:
    writes = Writes()
    writes.hold(_write(1))
    writes.hold(_write(2))
    writes.forward(LEADER, writes.take_batch(1, 1000), incarnation=9)
    writes.forward(LEADER + 1, writes.take_batch(1, 1000), incarnation=9)
    assert [w.id for w in writes.lose_peer(LEADER)] == [1]
    assert writes.answered(LEADER, 1) is None
    assert writes.answered(LEADER, 2) is None  # it was asked of another
    answered = writes.answered(LEADER + 1, 2)
    assert answered is not None
    assert answered.id == 2
    assert writes.forwarded_bytes == 0


def test_rule_18_an_overwritten_proposal_is_known_not_to_have_happened() -> None:
    writes = Writes()
    writes.hold(_write(1))
    writes.propose(EntryId(term=3, index=8), writes.take_batch(1, 1000))
    proposal, lost = writes.applied(8, term=4)
    assert proposal is None
    assert [w.id for w in lost] == [1]
    assert writes.applied(8, term=4) == (None, [])


def test_rule_18_what_is_applied_decides_between_two_proposals_for_one_index() -> None:
    """Cut from this node's log, an entry may still be on another's and come to be committed."""
    for applied_term, done_id, lost_id in ((3, 1, 2), (5, 2, 1)):
        writes = Writes()
        for number, term in ((1, 3), (2, 5)):
            writes.hold(_write(number, deadline=1.0))
            writes.propose(EntryId(term, index=10), writes.take_batch(1, 1000))
        assert len(writes) == 2
        assert {w.id for w in writes.expire_sent(2.0)} == {1, 2}
        proposal, lost = writes.applied(10, applied_term)
        assert proposal is not None
        assert [w.id for w in proposal.writes] == [done_id]
        assert [w.id for w in lost] == [lost_id]


def test_rule_18_a_snapshot_in_the_place_of_the_log_leaves_proposals_unknown() -> None:
    writes = Writes()
    for number, index in ((1, 8), (2, 9), (3, 10)):
        writes.hold(_write(number))
        writes.propose(EntryId(term=3, index=index), writes.take_batch(1, 1000))
    assert [w.id for w in writes.skip_to(9)] == [1, 2]
    assert list(writes.proposed) == [10]


def test_a_proposal_applied_in_its_own_term_is_ours() -> None:
    writes = Writes()
    writes.hold(_write(1))
    writes.propose(EntryId(term=3, index=8), writes.take_batch(1, 1000))
    proposal, lost = writes.applied(8, term=3)
    assert proposal is not None
    assert lost == []
    assert writes.settle(proposal.writes[0])


def test_a_cancelled_write_leaves_the_queue_or_runs_on_unanswered() -> None:
    writes = Writes()
    writes.hold(_write(1))
    writes.hold(_write(2))
    writes.cancel(1)
    assert _held(writes) == [2]
    writes.propose(EntryId(1, 1), writes.take_batch(1, 1000))
    writes.cancel(2)
    proposal, _ = writes.applied(1, 1)
    assert proposal is not None
    assert not writes.settle(proposal.writes[0])


def test_thousands_of_clients_that_leave_cost_a_few_steps_each() -> None:
    """A node without a leader may lose all its clients at once, and must not stand still for it."""
    count = 16384
    looks = itertools.count(1)

    class Watched(PendingWrite, eq=False):
        @override
        def __getattribute__(self, name: str) -> object:
            assert next(looks) <= 30 * count
            return super().__getattribute__(name)

        @override
        def __eq__(self, other: object) -> bool:
            assert next(looks) <= 30 * count
            return self is other

        __hash__ = PendingWrite.__hash__

    writes = Writes()
    for number in range(count):
        writes.hold(Watched(number, b"x" * 10, deadline=5.0))
    for number in reversed(range(1, count)):
        assert writes.cancel(number)
        assert writes.held_count == number
    assert _held(writes) == [0]
    assert writes.held_bytes == 10


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["hold", "hold", "cancel", "cancel", "take", "put back", "expire"]),
            st.integers(0, 20),
        ),
        max_size=60,
    )
)
def test_held_writes_keep_their_order_whoever_leaves(steps: list[tuple[str, int]]) -> None:
    writes = Writes()
    expected: dict[int, int] = {}  # the deadlines, by id
    for number, (step, choice) in enumerate(steps):
        oldest = list(expected)[:choice]
        match step:
            case "hold":
                writes.hold(_write(number, deadline=choice))
                expected[number] = choice
            case "cancel":
                assert writes.cancel(choice) == (choice in expected)
                expected.pop(choice, None)
            case "expire":
                expired = [i for i, deadline in expected.items() if deadline <= choice]
                assert [write.id for write in writes.expire_held(choice)] == expired
                expected = {i: at for i, at in expected.items() if i not in expired}
            case _:
                batch = writes.take_batch(choice, 1000)
                assert [write.id for write in batch] == oldest
                if step == "put back":
                    writes.put_back(batch)
                else:
                    expected = {i: at for i, at in expected.items() if i not in oldest}
        assert writes.held_count == len(writes) == len(expected)
        assert writes.held_bytes == 12 * len(expected)
        assert writes.has_any == bool(expected)
    assert _held(writes) == list(expected)


def test_a_proposed_write_expires_but_keeps_its_position_in_the_entry() -> None:
    writes = Writes()
    writes.hold(_write(1, deadline=1.0))
    writes.hold(_write(2, deadline=9.0))
    writes.propose(EntryId(1, 1), writes.take_batch(2, 1000))
    (expired,) = writes.expire_sent(2.0)
    assert expired.id == 1
    proposal, _ = writes.applied(1, 1)
    assert proposal is not None
    assert [w.id for w in proposal.writes] == [1, 2]


def test_only_a_leader_holds_the_writes_of_peers() -> None:
    writes = Writes()
    writes.hold(_write(1))
    writes.hold(_write(1, origin=Origin(peer=5, incarnation=6, id=1)))
    (foreign,) = writes.drop_foreign_held()
    assert foreign.origin == Origin(5, 6, 1)
    assert _held(writes) == [1]
    assert writes.held_bytes == 12


def test_answers_are_gathered_for_each_asking_process() -> None:
    book = ReplyBook()
    book.add(Origin(peer=5, incarnation=6, id=1), b"a")
    book.add(Origin(peer=5, incarnation=6, id=2), None)
    book.add(Origin(peer=5, incarnation=7, id=1), b"b")
    sent = []
    book.flush(lambda peer, replies: sent.append((peer, replies.incarnation, replies.replies)))
    assert sent == [(5, 6, ((1, b"a"), (2, None))), (5, 7, ((1, b"b"),))]
    book.flush(lambda peer, replies: sent.append((peer, replies.incarnation, replies.replies)))
    assert len(sent) == 2


def test_one_message_carries_about_a_mebibyte_of_answers() -> None:
    """Each write may ask for the item it replaces, of a mebibyte: one for all would be cut off."""
    book = ReplyBook()
    half = bytes(REPLIES_BYTES_MAX // 2)
    for number, outcome in enumerate([half, None, half, b"x", 4, bytes(3 * len(half)), b"y", None]):
        book.add(Origin(peer=5, incarnation=6, id=number), outcome)
        book.add(Origin(peer=7, incarnation=8, id=number), b"small")
    sent: dict[NodeId, list[ForwardReplies]] = {5: [], 7: []}
    book.flush(lambda peer, replies: sent[peer].append(replies))
    ids = [[number for number, _ in message.replies] for message in sent[5]]
    assert ids == [[0, 1, 2], [3, 4], [5], [6, 7]]
    assert {message.incarnation for message in sent[5]} == {6}
    assert sent[5][0].replies == ((0, half), (1, None), (2, half))
    assert [len(message.replies) for message in sent[7]] == [8]


@given(st.lists(st.none() | st.integers(0, 14) | st.binary(max_size=10), max_size=40))
def test_no_answer_is_lost_or_moved_between_messages(outcomes: list[bytes | int | None]) -> None:
    book = ReplyBook()
    for number, outcome in enumerate(outcomes):
        book.add(Origin(peer=5, incarnation=6, id=number), outcome)
    sent: list[ForwardReplies] = []
    with patch.object(writes_module, "REPLIES_BYTES_MAX", 10):
        book.flush(lambda _, replies: sent.append(replies))
    assert [reply for message in sent for reply in message.replies] == list(enumerate(outcomes))
    sizes = [
        sum(len(reply) for _, reply in message.replies if isinstance(reply, bytes))
        for message in sent
    ]
    assert all(size <= 10 for size in sizes)
    assert all(one + next_one > 10 for one, next_one in itertools.pairwise(sizes))
    assert all(message.replies for message in sent)
