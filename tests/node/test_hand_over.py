"""To whom leadership goes, and how long peers take to answer."""

from typing import Any

from raftkv.node.hand_over import HandOver
from raftkv.node.round_trips import RoundTrips
from raftkv.raft import ConfState, Heartbeat, HeartbeatResp, Role
from raftkv.raft.progress import Inflights, Progress

ELECTION_TICKS = 15


class FakeRaft:
    """A leader of voters 1 to 3 with a given progress of its peers."""

    def __init__(self, **silent_ticks: int) -> None:
        self.id = 1
        self.role = Role.LEADER
        self.transferee: int | None = None
        self.conf_state = ConfState(voters=(1, 2, 3), learners=(4,))
        self.progress = {}
        for peer in (1, 2, 3, 4):
            progress = Progress(next=1, inflights=Inflights(4), session=1, is_learner=peer == 4)
            progress.silent_ticks = silent_ticks.get(f"n{peer}", 0)
            progress.match = 10
            self.progress[peer] = progress

    def transfer_leader(self, target: int) -> None:
        self.transferee = target


def _chosen(raft: Any, *avoid: int) -> int | None:
    hand_over = HandOver()
    hand_over.drain(avoid, draining=True)
    hand_over.run(raft, 0.0, ELECTION_TICKS)
    target: int | None = raft.transferee
    return target


def test_leadership_does_not_go_to_who_is_silent() -> None:
    """One that is down may well hold the whole log, and would be asked for ever."""
    assert _chosen(FakeRaft()) == 2
    assert _chosen(FakeRaft(n2=ELECTION_TICKS + 1)) == 3
    # Rather to one that restarts next than to one that is down.
    assert _chosen(FakeRaft(n2=ELECTION_TICKS + 1), 3) == 3
    assert _chosen(FakeRaft(n2=99, n3=99)) == 2


def test_nobody_is_asked_twice_in_a_while() -> None:
    """Who drains too does not take it, and each try stops the writes for a moment."""
    raft, hand_over, asked = FakeRaft(), HandOver(), list[int | None]()
    hand_over.drain((), draining=True)
    for now in range(6):
        raft.transferee = None  # it was given up
        hand_over.run(raft, float(now), ELECTION_TICKS)  # type: ignore[arg-type]
        asked.append(raft.transferee)
    assert asked == [2, 3, None, 2, 3, None]


def test_who_drains_takes_no_leadership() -> None:
    hand_over, takes = HandOver(), list[bool]()
    for draining in (False, True, False):
        hand_over.drain((), draining=draining)
        takes.append(hand_over.takes_leadership)
    assert takes == [True, False, True]


def test_a_round_trip_is_measured_within_one_term() -> None:
    trips = RoundTrips()
    trips.sent(Heartbeat(1, 2, 5, 1, 0, round=0), now=0.0)  # never answered
    trips.sent(Heartbeat(1, 2, 7, 1, 0, round=0), now=60.0)
    trips.received(HeartbeatResp(2, 1, 7, 1, round=0), now=60.002)
    assert abs(trips.seconds[2] - 0.002) < 1e-9
