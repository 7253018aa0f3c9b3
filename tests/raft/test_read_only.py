"""The bookkeeping of reads; how it is used is in the traces named read_* and rule_10_*."""

from raftkv.raft.read_only import ForwardedReads, ReadRequest, ReadRounds


def test_round_takes_all_that_wait_and_nobody_later() -> None:
    rounds = ReadRounds()
    rounds.waiting += [ReadRequest(1, None), ReadRequest(2, 9)]
    rounds.begin(commit=5)
    rounds.waiting.append(ReadRequest(3, None))
    assert rounds.number == 1
    assert rounds.take_confirmed(0) == []
    (confirmed,) = rounds.take_confirmed(1)
    assert confirmed.index == 5
    assert confirmed.requests == (ReadRequest(1, None), ReadRequest(2, 9))
    assert not rounds.is_under_way
    assert rounds.waiting == [ReadRequest(3, None)]


def test_later_round_confirms_the_earlier_ones() -> None:
    rounds = ReadRounds()
    for context, commit in ((1, 5), (2, 6)):
        rounds.waiting.append(ReadRequest(context, None))
        rounds.begin(commit)
    assert [(r.number, r.index) for r in rounds.take_confirmed(2)] == [(1, 5), (2, 6)]


def test_all_unanswered_are_given_back_once() -> None:
    rounds = ReadRounds()
    rounds.waiting.append(ReadRequest(1, None))
    rounds.begin(commit=5)
    rounds.waiting.append(ReadRequest(2, 7))
    assert rounds.take_all() == [ReadRequest(1, None), ReadRequest(2, 7)]
    assert rounds.take_all() == []
    assert not rounds.is_under_way


def test_forwarded_read_is_answered_once() -> None:
    reads = ForwardedReads()
    reads.add(4)
    assert reads.take(4)
    assert not reads.take(4)
    assert not reads.take(5)


def test_forwarded_read_expires_by_its_own_age() -> None:
    reads = ForwardedReads()
    reads.add(1)
    assert reads.tick(2) == []
    reads.add(2)
    assert reads.tick(2) == [1]
    assert reads.tick(2) == [2]
    assert reads.tick(2) == []


def test_forwarded_reads_are_all_given_up_with_the_leader() -> None:
    reads = ForwardedReads()
    reads.add(1)
    reads.add(2)
    assert reads.take_all() == [1, 2]
    assert reads.take_all() == []
