"""Linearizable reads share rounds, and a round begins after its reads (node design, rule 16)."""

import itertools

from typing_extensions import override

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
    assert list(reads.waiting) == [1, 2]


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


def test_thousands_of_clients_that_leave_cost_a_few_steps_each() -> None:
    """Wherever their reads wait: for a round, in one, for apply, or for a revision."""
    count = 16384
    looks = itertools.count(1)

    class Watched(int):
        @override
        def __eq__(self, other: object) -> bool:
            assert next(looks) <= 60 * count
            return int(self) == other

        @override
        def __hash__(self) -> int:
            assert next(looks) <= 60 * count
            return hash(int(self))

    reads = _reads()
    for number in range(count):
        place = number * 8 // count
        consistency = Consistency.LOCAL if place < 2 else Consistency.LINEARIZABLE
        reads.add(_read(Watched(number), consistency, min_revision=9))
        if place == 4 and reads.wants_round():
            reads.confirm(reads.begin_round(0.0), index=1)
            reads.take_ready(applied=1, revision=1)
        elif place == 5 and reads.wants_round():
            # One round each, as when apply is far behind.
            reads.confirm(reads.begin_round(0.0), index=10)
        elif place == 6 and reads.wants_round():
            reads.begin_round(0.0)
    # Half of the unconfirmed could be answered, but the turn had no time for them.
    reads.put_back_unconfirmed(reads.take_unconfirmed(revision=9, now=0.0))
    for number in range(count, 2 * count):
        reads.add(_read(Watched(number)))
    reads.abandon_round()
    reads.confirm(reads.begin_round(0.0), index=1)
    reads.put_back(reads.take_ready(applied=1, revision=1))
    for number in reversed(range(1, 2 * count)):
        reads.cancel(Watched(number))
        assert len(reads) == number
    assert _ids(reads.take_unconfirmed(revision=9, now=0.0)) == [0]
    assert not reads.waiting
    assert len(reads) == 0


def test_a_read_of_which_the_client_left_is_found_wherever_it_went() -> None:
    reads = _reads()
    for number in range(1, 9):
        reads.add(_read(number, min_revision=9 if number > 4 else 0))
    reads.abandon_round(reads.begin_round(0.0))
    reads.cancel(1)
    context = reads.begin_round(0.0)
    reads.add(_read(9))
    reads.cancel(2)
    reads.abandon_round(context)  # what came meanwhile joins the others
    reads.cancel(9)
    reads.confirm(reads.begin_round(0.0), index=1)
    reads.cancel(5)
    assert _ids(reads.take_ready(applied=1, revision=1)) == [3, 4]
    reads.cancel(6)
    assert len(reads) == 2
    assert _ids(reads.take_ready(applied=1, revision=9)) == [7, 8]
    assert not reads.has_any


def test_reads_that_a_turn_had_no_time_for_are_the_first_of_the_next() -> None:
    reads = _reads()
    for number in range(1, 6):
        reads.add(_read(number))
        reads.add(_read(10 + number, Consistency.LOCAL, deadline=number))
    reads.confirm(reads.begin_round(0.0), index=1)
    reads.put_back(reads.take_ready(applied=1, revision=1)[1:])
    reads.put_back_unconfirmed(reads.take_unconfirmed(revision=1, now=0.0)[1:])
    assert len(reads) == 8
    for gone in (3, 14, 99):
        reads.cancel(gone)
    assert _ids(reads.expire_lagging(2.0)) == [12]
    reads.add(_read(6))
    reads.add(_read(16, Consistency.LOCAL))
    reads.confirm(reads.begin_round(0.0), index=1)
    had_unserved = reads.has_unserved
    assert had_unserved
    assert len(reads) == 7
    assert _ids(reads.take_ready(applied=1, revision=1)) == [2, 4, 5, 6]
    assert _ids(reads.take_unconfirmed(revision=1, now=0.0)) == [13, 15, 16]
    assert not reads.has_unserved
    assert not reads.has_any


def test_a_round_of_which_all_clients_left_is_not_begun() -> None:
    reads = _reads()
    reads.add(_read(1))
    reads.cancel(1)
    assert not reads.wants_round()
    assert not reads.has_any
    reads.add(_read(2, Consistency.BOUNDED, max_stale_seconds=5.0))
    assert reads.take_unconfirmed(revision=1, now=0.0) == []  # it waits for a round now
    reads.cancel(2)
    assert not reads.wants_round()


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
    assert list(reads.waiting) == [1]
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
    assert list(reads.waiting) == [3]


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
