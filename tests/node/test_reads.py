"""Linearizable reads share rounds, and a round begins after its reads (node design, rule 16)."""

from raftkv.node.events import Consistency, Get, ReadRequest
from raftkv.node.reads import Reads


def _reads() -> Reads:
    reads = Reads(first_context=100, retry_ticks=3)
    reads.barrier_wanted = False  # the node's own read at start is tested apart
    return reads


def _read(
    number: int,
    consistency: Consistency = Consistency.LINEARIZABLE,
    min_revision: int = 0,
    deadline: float = 5.0,
) -> ReadRequest:
    return ReadRequest(number, Get(b"k"), consistency, min_revision, deadline)


def _ids(requests: list[ReadRequest]) -> list[int]:
    return [request.id for request in requests]


def test_rule_16_a_read_that_arrives_during_a_round_waits_for_the_next() -> None:
    reads = _reads()
    reads.add(_read(1))
    context = reads.begin_round()
    reads.add(_read(2))
    assert not reads.wants_round()
    reads.confirm(context, index=10)
    assert _ids(reads.take_ready(applied=10, revision=1)) == [1]
    assert reads.wants_round()


def test_rule_16_a_confirmed_read_waits_until_its_index_is_applied() -> None:
    reads = _reads()
    reads.add(_read(1))
    reads.confirm(reads.begin_round(), index=10)
    assert reads.take_ready(applied=9, revision=1) == []
    assert _ids(reads.take_ready(applied=10, revision=1)) == [1]


def test_rule_16_a_retry_has_a_new_context_and_the_old_answer_is_ignored() -> None:
    reads = _reads()
    reads.add(_read(1))
    first = reads.begin_round()
    for _ in range(3):
        reads.tick()
    assert reads.wants_round()
    second = reads.begin_round()
    assert second != first
    reads.confirm(first, index=10)
    assert reads.take_ready(applied=10, revision=1) == []
    reads.confirm(second, index=10)
    assert _ids(reads.take_ready(applied=10, revision=1)) == [1]


def test_a_round_that_is_abandoned_gives_its_reads_back_in_order() -> None:
    reads = _reads()
    reads.add(_read(1))
    context = reads.begin_round()
    reads.add(_read(2))
    reads.abandon_round(context + 50)  # another one: no effect
    assert not reads.wants_round()
    reads.abandon_round(context)
    assert _ids(reads.waiting) == [1, 2]


def test_min_revision_holds_a_local_and_a_linearizable_read() -> None:
    reads = _reads()
    reads.add(_read(1, Consistency.LOCAL, min_revision=5))
    reads.add(_read(2, min_revision=5))
    reads.confirm(reads.begin_round(), index=1)
    assert reads.take_ready(applied=1, revision=4) == []
    assert sorted(_ids(reads.take_ready(applied=2, revision=5))) == [1, 2]


def test_expired_and_cancelled_reads_leave_wherever_they_wait() -> None:
    reads = _reads()
    for number, deadline in ((1, 1.0), (2, 9.0), (3, 9.0)):
        reads.add(_read(number, deadline=deadline))
    context = reads.begin_round()
    reads.add(_read(4, deadline=1.0))
    assert sorted(_ids(reads.expire(2.0))) == [1, 4]
    reads.cancel(3)
    reads.confirm(context, index=1)
    assert _ids(reads.take_ready(applied=1, revision=1)) == [2]
    assert len(reads) == 0


def test_the_barrier_asks_for_a_round_of_its_own_until_it_is_confirmed() -> None:
    reads = Reads(first_context=1, retry_ticks=3)
    assert reads.wants_round()
    reads.abandon_round(reads.begin_round())
    assert reads.wants_round()
    reads.confirm(reads.begin_round(), index=33)
    assert reads.barrier_index == 33
    assert not reads.wants_round()


def test_a_round_that_the_core_drops_is_asked_again_after_a_tick() -> None:
    """At once, this node and one that no longer leads would keep each other busy."""
    reads = _reads()
    reads.add(_read(1))
    context = reads.begin_round()
    reads.drop_round(context + 50)  # another one: no effect
    reads.drop_round(context)
    assert _ids(reads.waiting) == [1]
    assert not reads.wants_round()
    reads.tick()
    assert reads.wants_round()
