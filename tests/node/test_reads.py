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
    max_stale_seconds: float = 0.0,
) -> ReadRequest:
    query = Get(b"k")
    return ReadRequest(number, query, consistency, min_revision, deadline, max_stale_seconds)


def _ids(requests: list[ReadRequest]) -> list[int]:
    return [request.id for request in requests]


def test_rule_16_a_read_that_arrives_during_a_round_waits_for_the_next() -> None:
    reads = _reads()
    reads.add(_read(1))
    context = reads.begin_round(0.0)
    reads.add(_read(2))
    assert not reads.wants_round()
    reads.confirm(context, index=10)
    assert _ids(reads.take_ready(applied=10, revision=1)) == [1]
    assert reads.wants_round()


def test_rule_16_a_confirmed_read_waits_until_its_index_is_applied() -> None:
    reads = _reads()
    reads.add(_read(1))
    reads.confirm(reads.begin_round(0.0), index=10)
    assert reads.take_ready(applied=9, revision=1) == []
    assert _ids(reads.take_ready(applied=10, revision=1)) == [1]


def test_rule_16_a_retry_has_a_new_context_and_the_old_answer_is_ignored() -> None:
    reads = _reads()
    reads.add(_read(1))
    first = reads.begin_round(0.0)
    for _ in range(3):
        reads.tick()
    assert reads.wants_round()
    second = reads.begin_round(0.0)
    assert second != first
    reads.confirm(first, index=10)
    assert reads.take_ready(applied=10, revision=1) == []
    reads.confirm(second, index=10)
    assert _ids(reads.take_ready(applied=10, revision=1)) == [1]


def test_a_round_that_is_abandoned_gives_its_reads_back_in_order() -> None:
    reads = _reads()
    reads.add(_read(1))
    context = reads.begin_round(0.0)
    reads.add(_read(2))
    reads.abandon_round(context + 50)  # another one: no effect
    assert not reads.wants_round()
    reads.abandon_round(context)
    assert _ids(reads.waiting) == [1, 2]


def test_min_revision_holds_a_local_and_a_linearizable_read() -> None:
    reads = _reads()
    reads.add(_read(1, Consistency.LOCAL, min_revision=5))
    reads.add(_read(2, min_revision=5))
    reads.confirm(reads.begin_round(0.0), index=1)
    assert reads.take_ready(applied=1, revision=4) == []
    assert reads.take_unconfirmed(revision=4, now=0.0) == []
    assert _ids(reads.take_ready(applied=2, revision=5)) == [2]
    assert _ids(reads.take_unconfirmed(revision=5, now=0.0)) == [1]


def test_expired_and_cancelled_reads_leave_wherever_they_wait() -> None:
    reads = _reads()
    for number, deadline in ((1, 1.0), (2, 9.0), (3, 9.0)):
        reads.add(_read(number, deadline=deadline))
    context = reads.begin_round(0.0)
    reads.add(_read(4, deadline=1.0))
    assert sorted(_ids(reads.expire_unasked(2.0))) == [1, 4]
    reads.cancel(3)
    reads.confirm(context, index=1)
    assert _ids(reads.take_ready(applied=1, revision=1)) == [2]
    assert len(reads) == 0


def test_the_barrier_asks_for_a_round_of_its_own_until_it_is_confirmed() -> None:
    reads = Reads(first_context=1, retry_ticks=3)
    assert reads.wants_round()
    reads.abandon_round(reads.begin_round(0.0))
    assert reads.wants_round()
    reads.confirm(reads.begin_round(0.0), index=33)
    assert reads.barrier_index == 33
    assert not reads.wants_round()


def test_a_round_that_the_core_drops_is_asked_again_after_a_tick() -> None:
    """At once, this node and one that no longer leads would keep each other busy."""
    reads = _reads()
    reads.add(_read(1))
    context = reads.begin_round(0.0)
    reads.drop_round(context + 50)  # another one: no effect
    reads.drop_round(context)
    assert _ids(reads.waiting) == [1]
    assert not reads.wants_round()
    reads.tick()
    assert reads.wants_round()


def test_rule_16_an_age_counts_from_the_beginning_of_a_round_that_is_applied() -> None:
    reads = _reads()
    assert reads.age_seconds(1.0) is None
    reads.add(_read(1))
    context = reads.begin_round(2.0)
    reads.confirm(context, index=10)
    reads.take_ready(applied=9, revision=1)
    assert reads.age_seconds(3.0) is None
    reads.take_ready(applied=10, revision=1)
    assert reads.age_seconds(3.5) == 1.5


def test_rule_16_a_bounded_read_beyond_its_bound_becomes_linearizable() -> None:
    reads = _reads()
    reads.add(_read(1, Consistency.BOUNDED, max_stale_seconds=5.0))
    assert reads.take_unconfirmed(revision=1, now=0.0) == []  # nothing is known yet
    reads.confirm(reads.begin_round(1.0), index=10)
    assert _ids(reads.take_ready(applied=10, revision=1)) == [1]

    reads.add(_read(2, Consistency.BOUNDED, max_stale_seconds=5.0))
    assert _ids(reads.take_unconfirmed(revision=1, now=6.0)) == [2]
    reads.add(_read(3, Consistency.BOUNDED, max_stale_seconds=5.0))
    assert reads.take_unconfirmed(revision=1, now=6.1) == []
    assert _ids(reads.waiting) == [3]


def test_a_bounded_read_waits_for_its_revision_as_long_as_its_bound_holds() -> None:
    reads = _reads()
    reads.confirm(reads.begin_round(0.0), index=1)
    reads.take_ready(applied=1, revision=1)
    reads.add(_read(1, Consistency.BOUNDED, min_revision=7, max_stale_seconds=5.0))
    assert reads.take_unconfirmed(revision=6, now=4.0) == []
    assert not reads.wants_round()
    assert reads.take_unconfirmed(revision=6, now=5.1) == []
    assert reads.wants_round()


def test_what_the_store_lacks_at_the_deadline_is_told_from_what_nobody_could_be_asked() -> None:
    reads = _reads()
    reads.add(_read(1, deadline=1.0))
    reads.confirm(reads.begin_round(0.0), index=10)
    reads.add(_read(2, Consistency.LOCAL, min_revision=9, deadline=1.0))
    reads.add(_read(3, deadline=1.0))
    assert _ids(reads.expire_unasked(2.0)) == [3]
    assert sorted(_ids(reads.expire_lagging(2.0))) == [1, 2]
    assert len(reads) == 0
