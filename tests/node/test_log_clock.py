"""How much log time a leader may let pass (node design, rule 21)."""

import pytest

from raftkv.node.log_clock import LogClock

TICK = 0.02


def test_rule_21_only_the_time_since_the_own_election_counts() -> None:
    clock = LogClock(TICK)
    assert clock.lead(term=3, now=100.0)
    assert clock.unstamped_ms == 0
    assert not clock.lead(term=3, now=100.03)
    assert clock.unstamped_ms == 30
    # Deposed and elected again: what passed meanwhile was another leader's to count.
    clock.rest()
    assert clock.lead(term=5, now=100.05)
    assert clock.unstamped_ms == 0


def test_rule_21_zero_across_a_leader_change_also_when_no_turn_saw_it() -> None:
    clock = LogClock(TICK)
    clock.lead(term=3, now=1.0)
    clock.lead(term=3, now=1.04)
    assert clock.lead(term=4, now=1.05)
    assert clock.unstamped_ms == 0


def test_rule_21_a_turn_counts_two_ticks_at_most() -> None:
    """A process that slept could not take in the keepalives of those hours."""
    clock = LogClock(TICK)
    clock.lead(term=3, now=1.0)
    clock.lead(term=3, now=7201.0)
    assert clock.unstamped_ms == 40


def test_what_is_stamped_is_not_counted_again_and_no_fraction_is_lost() -> None:
    clock = LogClock(TICK)
    clock.lead(term=3, now=0.0)
    total = 0
    for turn in range(1, 1001):
        clock.lead(term=3, now=turn * 0.0105)
        if clock.unstamped_ms >= 20:
            total += clock.unstamped_ms
            clock.stamped(clock.unstamped_ms)
    assert total + clock.unstamped_seconds * 1000 == pytest.approx(10500)
