"""The queue between what the core decided and what the disk has."""

import pytest

from raftkv.demo.cluster import make_entry
from raftkv.raft import AppendResp, ConfState, EntryId, HardState, VoteResp
from raftkv.raft.durability import DurabilityQueue
from raftkv.raft.log import RaftLog

VOTE = VoteResp(1, 2, 3, granted=True)


def make_log(durable: int) -> RaftLog:
    entries = [make_entry(index, 1) for index in range(1, durable + 1)]
    return RaftLog(EntryId(0, 0), ConfState(), entries, 0, 0)


def accept(match: int, receiver: int = 2) -> AppendResp:
    return AppendResp(1, receiver, 3, session=1, match=match)


def test_vote_waits_for_the_hard_state_that_has_it() -> None:
    queue, log = DurabilityQueue(HardState(2, None, 0)), make_log(1)
    queue.wait(VOTE)
    assert queue.release(3, 2, log.durable) == []
    write = queue.begin(HardState(3, 2, 0), log)
    assert write.hard_state == HardState(3, 2, 0)
    assert write.messages == [VOTE]
    queue.done(write.number, log)
    assert queue.has(3, 2)
    assert not queue.can_begin(3, 2, log)


def test_what_is_on_disk_already_is_released_at_once() -> None:
    queue, log = DurabilityQueue(HardState(3, None, 0)), make_log(5)
    queue.wait(accept(5), 5)
    assert queue.can_release(3, None, log.durable)
    assert queue.release(3, None, log.durable) == [accept(5)]
    assert queue.release(3, None, log.durable) == []


def test_acknowledgement_of_the_write_in_flight_is_released_when_it_is_done() -> None:
    queue, log = DurabilityQueue(HardState(3, None, 0)), make_log(1)
    log.append([make_entry(2, 3)])
    write = queue.begin(HardState(3, None, 0), log)
    queue.wait(accept(2), 2)
    assert queue.release(3, None, log.durable) == []
    queue.done(write.number, log)
    assert queue.release(3, None, log.durable) == [accept(2)]


def test_of_several_acknowledgements_for_a_leader_the_highest_is_kept() -> None:
    queue, log = DurabilityQueue(HardState(3, None, 0)), make_log(9)
    for match in (4, 7, 5):
        queue.wait(accept(match), match)
    queue.wait(accept(2, receiver=8), 2)
    assert queue.release(3, None, log.durable) == [accept(7), accept(2, receiver=8)]


def test_unchanged_hard_state_is_not_written_again() -> None:
    queue, log = DurabilityQueue(HardState(3, None, 0)), make_log(0)
    log.append([make_entry(1, 3)])
    write = queue.begin(HardState(3, None, 0), log)
    assert write.hard_state is None
    assert [entry.index for entry in write.entries] == [1]


def test_commit_index_goes_along_and_causes_no_write() -> None:
    queue, log = DurabilityQueue(HardState(3, None, 0)), make_log(1)
    log.commit_to(1)
    assert not queue.can_begin(3, None, log)
    log.append([make_entry(2, 3)])
    assert queue.begin(HardState(3, None, 1), log).hard_state == HardState(3, None, 1)


def test_no_second_write_begins_while_one_is_in_flight() -> None:
    queue, log = DurabilityQueue(HardState(3, None, 0)), make_log(0)
    log.append([make_entry(1, 3)])
    write = queue.begin(HardState(3, None, 0), log)
    log.append([make_entry(2, 3)])
    assert not queue.can_begin(3, None, log)
    queue.done(write.number, log)
    second = queue.begin(HardState(3, None, 0), log)
    assert second.number == write.number + 1
    assert [entry.index for entry in second.entries] == [2]


def test_completion_of_another_write_is_refused() -> None:
    queue, log = DurabilityQueue(HardState(3, None, 0)), make_log(0)
    log.append([make_entry(1, 3)])
    write = queue.begin(HardState(3, None, 0), log)
    with pytest.raises(AssertionError):
        queue.done(write.number + 1, log)


def test_messages_of_a_term_that_is_over_are_forgotten() -> None:
    queue, log = DurabilityQueue(HardState(2, None, 0)), make_log(1)
    queue.wait(VOTE)
    queue.forget()
    assert queue.begin(HardState(4, None, 0), log).messages == []
