"""Progress and its window: the transitions, and Inflights against a list."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.raft.progress import Inflights, Progress, ProgressState

CHECK = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def probing(next_index: int = 6, match: int = 0, window: int = 2) -> Progress:
    return Progress(next_index, Inflights(window), session=1, is_learner=False, match=match)


def replicating(match: int = 5, window: int = 2) -> Progress:
    progress = probing(match + 1, window=window)
    assert progress.accepted(match)
    return progress


@CHECK
@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.integers(1, 4))))
def test_inflights_is_a_bounded_list_of_last_indexes(
    size_max: int, operations: list[tuple[bool, int]]
) -> None:
    inflights, model, last = Inflights(size_max), list[int](), 0
    for is_add, step in operations:
        if is_add and len(model) < size_max:
            last += step
            inflights.add(last)
            model.append(last)
        else:
            match = (model[0] if model else last) + step - 2
            inflights.free_to(match)
            model = [index for index in model if index > match]
        assert len(inflights) == len(model)
        assert inflights.is_full == (len(model) >= size_max)
    inflights.clear()
    assert len(inflights) == 0


def test_a_full_window_takes_no_more() -> None:
    inflights = Inflights(1)
    inflights.add(3)
    with pytest.raises(AssertionError):
        inflights.add(4)


def test_fresh_probe_may_send() -> None:
    assert probing().may_send_entries


def test_probe_sends_one_append_until_it_is_answered() -> None:
    progress = probing()
    progress.sent(9, commit=4)
    assert not progress.may_send_entries
    assert progress.next == 6  # nothing is taken for granted


def test_accepted_probe_begins_to_replicate_after_the_match() -> None:
    progress = probing()
    progress.sent(9, commit=4)
    assert progress.accepted(9)
    assert (progress.state, progress.match, progress.next) == (ProgressState.REPLICATE, 9, 10)
    assert progress.may_send_entries


def test_accepted_probe_at_the_known_match_is_news() -> None:
    progress = replicating(5)
    progress.become_probe(6)
    assert progress.accepted(5)
    assert progress.state is ProgressState.REPLICATE


def test_old_acceptance_is_no_news() -> None:
    progress = replicating(5)
    assert not progress.accepted(5)
    assert not progress.accepted(3)
    assert (progress.match, progress.next) == (5, 6)


def test_replicating_sends_ahead_up_to_the_window() -> None:
    progress = replicating(5)
    progress.sent(7, commit=5)
    progress.sent(8, commit=5)
    assert progress.next == 9
    assert not progress.may_send_entries


def test_answer_frees_a_place_in_the_window() -> None:
    progress = replicating(5)
    progress.sent(7, commit=5)
    progress.sent(8, commit=5)
    assert progress.accepted(7)
    assert progress.may_send_entries
    assert progress.next == 9


def test_empty_append_takes_no_place_in_the_window() -> None:
    progress = replicating(5, window=1)
    progress.sent(5, commit=5)
    assert progress.may_send_entries


def test_rejected_probe_goes_back_to_the_hint_but_not_below_the_match() -> None:
    progress = probing(10, match=4)
    assert progress.rejected(9, hint=6)
    assert progress.next == 7
    assert progress.rejected(6, hint=1)
    assert progress.next == 5


def test_rejection_of_an_earlier_probe_is_ignored() -> None:
    progress = probing(10)
    assert not progress.rejected(7, hint=2)
    assert progress.next == 10


def test_rejection_while_replicating_starts_over_at_the_match() -> None:
    progress = replicating(5)
    progress.sent(7, commit=5)
    assert not progress.rejected(4, hint=0)  # answered before the match was known
    assert progress.rejected(7, hint=5)
    assert (progress.state, progress.next) == (ProgressState.PROBE, 6)
    assert progress.may_send_entries
    assert len(progress.inflights) == 0


def test_unanswered_probe_is_followed_by_an_empty_append() -> None:
    progress = probing()
    assert not progress.heartbeat_interval_passed()  # the first one has yet to leave
    progress.sent(9, commit=4)
    assert progress.heartbeat_interval_passed()
    assert progress.is_nudge_due
    progress.sent(5, commit=4)
    assert not progress.is_nudge_due


def test_pipeline_without_progress_is_followed_by_an_empty_append() -> None:
    progress = replicating(5)
    progress.sent(7, commit=5)
    assert not progress.heartbeat_interval_passed()  # may have been sent just now
    assert progress.heartbeat_interval_passed()
    assert progress.accepted(7)
    assert not progress.heartbeat_interval_passed()


def test_commit_sent_does_not_exceed_what_the_append_covers() -> None:
    progress = replicating(5)
    progress.sent(7, commit=9)
    assert progress.commit_sent == 7
    progress.sent(7, commit=6)
    assert progress.commit_sent == 7


# ---- snapshots ------------------------------------------------------------------------------


def waiting_for_a_snapshot(match: int = 3) -> Progress:
    progress = probing(match + 1, match=match)
    progress.become_probe(match + 1)
    progress.become_snapshot()
    return progress


def test_no_appends_while_a_snapshot_is_on_its_way() -> None:
    progress = waiting_for_a_snapshot()
    assert not progress.may_send_entries
    assert not progress.heartbeat_interval_passed()
    assert not progress.rejected(3, 0)  # of an Append that left before
    assert not progress.tick_snapshot(1)
    assert progress.state is ProgressState.SNAPSHOT


@pytest.mark.parametrize("match", [7, 9])
def test_an_answer_at_the_base_or_beyond_ends_the_wait(match: int) -> None:
    progress = waiting_for_a_snapshot()
    assert progress.accepted(match, base=7)
    assert (progress.state, progress.match, progress.next) == ("replicate", match, match + 1)


def test_an_answer_below_the_base_is_news_and_no_end() -> None:
    progress = waiting_for_a_snapshot()
    assert progress.accepted(5, base=7)
    assert (progress.state, progress.match, progress.next) == ("snapshot", 5, 6)
    assert not progress.accepted(4, base=7)
    assert progress.match == 5


def test_a_snapshot_that_the_log_outran_is_probed_after() -> None:
    progress = waiting_for_a_snapshot()
    progress.snapshot_sent(6)
    assert progress.accepted(6, base=7)
    assert (progress.state, progress.match, progress.next) == ("probe", 6, 7)
    assert progress.may_send_entries


def test_an_overdue_answer_is_asked_for_from_the_snapshot_on() -> None:
    progress = waiting_for_a_snapshot()
    progress.snapshot_sent(8)
    assert [progress.tick_snapshot(3) for _ in range(3)] == [False, False, True]
    assert (progress.state, progress.match, progress.next) == ("probe", 3, 9)
    assert progress.may_send_entries


def test_after_a_failure_a_heartbeat_interval_passes_first() -> None:
    progress = waiting_for_a_snapshot()
    progress.snapshot_failed()
    assert (progress.state, progress.next) == ("probe", 4)
    assert not progress.may_send_entries
    assert progress.heartbeat_interval_passed()
    assert progress.is_nudge_due


def test_reports_of_a_snapshot_that_is_no_longer_awaited_change_nothing() -> None:
    progress = probing(5, match=4)
    before = str(progress)
    progress.snapshot_sent(9)
    progress.snapshot_failed()
    assert str(progress) == before


def test_a_peer_is_heard_when_it_spoke_lately() -> None:
    progress = probing(5)
    assert not progress.is_heard(3)
    progress.silent_ticks = 7
    progress.heard()
    assert progress.is_heard(3)
    progress.silent_ticks = 3
    assert not progress.is_heard(3)
