"""How long entries wait for the disk and for a quorum (`raftkv.server.log_times`)."""

from raftkv.raft import Positions
from raftkv.server.log_times import LogTimes


class Timed:
    """A `LogTimes` under a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queued: list[float] = []
        self.committed: list[float] = []
        self.times = LogTimes(self.queued.append, self.committed.append, lambda: self.now)

    def turn(
        self, now: float, last: int, handed_out: int, commit: int, *, is_leader: bool = True
    ) -> None:
        self.now = now
        self.times.turn(Positions(is_leader, last, handed_out, commit))


def test_a_leaders_entry_waits_for_the_disk_and_then_for_the_quorum() -> None:
    timed = Timed()
    timed.times.turn(None)
    timed.turn(0.0, last=5, handed_out=5, commit=5)
    timed.turn(1.0, last=6, handed_out=6, commit=5)  # its write begins at once
    timed.turn(2.0, last=7, handed_out=6, commit=5)  # this one waits for the first
    assert (timed.queued, timed.committed) == ([0.0], [])
    timed.turn(4.0, last=7, handed_out=7, commit=6)
    assert (timed.queued, timed.committed) == ([0.0, 2.0], [3.0])
    timed.turn(5.0, last=7, handed_out=7, commit=7)
    assert timed.committed == [3.0, 3.0]


def test_what_recovery_found_is_not_timed() -> None:
    timed = Timed()
    timed.turn(0.0, last=9, handed_out=9, commit=2)
    timed.turn(5.0, last=9, handed_out=9, commit=9)
    assert (timed.queued, timed.committed) == ([], [])


def test_only_a_leader_times_the_commit() -> None:
    timed = Timed()
    timed.turn(0.0, last=1, handed_out=1, commit=1, is_leader=False)
    timed.turn(1.0, last=2, handed_out=1, commit=1, is_leader=False)
    timed.turn(2.0, last=2, handed_out=2, commit=2, is_leader=False)
    assert (timed.queued, timed.committed) == ([1.0], [])
    timed.turn(3.0, last=3, handed_out=3, commit=2)
    timed.turn(4.0, last=3, handed_out=3, commit=2, is_leader=False)  # deposed
    timed.turn(5.0, last=3, handed_out=3, commit=3)
    assert timed.committed == []


def test_overwritten_entries_are_forgotten() -> None:
    timed = Timed()
    timed.turn(0.0, last=1, handed_out=1, commit=1, is_leader=False)
    timed.turn(1.0, last=4, handed_out=1, commit=1, is_leader=False)
    timed.turn(2.0, last=2, handed_out=1, commit=1, is_leader=False)
    timed.turn(3.0, last=2, handed_out=2, commit=2, is_leader=False)
    assert timed.queued == []


def test_a_disk_that_does_not_answer_costs_bounded_memory() -> None:
    timed = Timed()
    timed.turn(0.0, last=0, handed_out=0, commit=0)
    for index in range(1, 5001):
        timed.turn(float(index), last=index, handed_out=0, commit=0)
    timed.turn(9999.0, last=5000, handed_out=5000, commit=5000)
    assert len(timed.queued) == len(timed.committed) == 1024
