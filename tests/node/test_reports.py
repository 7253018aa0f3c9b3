"""While somebody looks, members say how they are: any node can show the whole cluster."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import msgspec

from raftkv.node.events import Look
from raftkv.node.messages import PeerMessage, Report, ReportRequest
from raftkv.node.reports import ASK_SECONDS_MIN, ROLE_CHANGES_MAX, Reports
from raftkv.raft import Role
from tests.node.test_stalls_and_slices import Alone

LEADER, FOLLOWER, SLOW = 1, 2, 3
STORE: Any = SimpleNamespace(revision=7)


def raft_of(number: int, progress: Mapping[int, int] | None = None, last: int = 90) -> Any:
    """What `Reports` reads of a core; with ``progress`` (matches by member) it leads."""
    return SimpleNamespace(
        id=number,
        role=Role.FOLLOWER if progress is None else Role.LEADER,
        is_learner=False,
        term=4,
        leader_id=LEADER,
        last_index=last,
        durable_index=last - 1,
        commit_index=last - 2,
        applied_index=last - 3,
        conf_state=SimpleNamespace(
            members=[SimpleNamespace(id=each) for each in (LEADER, FOLLOWER, SLOW)]
        ),
        progress={each: SimpleNamespace(match=match) for each, match in (progress or {}).items()},
    )


class Members:
    """Three members that hear each other at once."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, PeerMessage]] = []
        self.now = 100.0
        self.rafts = {
            LEADER: raft_of(LEADER, {LEADER: 90, FOLLOWER: 80, SLOW: 50}),
            FOLLOWER: raft_of(FOLLOWER, last=80),
            SLOW: raft_of(SLOW, last=50),
        }
        self.silent = 0
        self.reports = {number: self._make(number) for number in self.rafts}

    def _make(self, number: int) -> Reports:
        def send(peer: int, message: PeerMessage) -> None:
            self.sent.append((number, peer, message))
            if peer == self.silent:
                return
            if isinstance(message, ReportRequest | Report):
                self.reports[peer].received(number, message, self.rafts[peer], STORE, self.now)

        return Reports(send)

    def seen_by(self, number: int, member: int) -> dict[str, Any] | None:
        found = self.reports[number].of(member, self.rafts[number], STORE, self.now)
        return None if found is None else msgspec.structs.asdict(found)

    def look(self, number: int) -> None:
        self.reports[number].look(self.rafts[number], self.now)


def test_nobody_looks_and_nothing_is_sent() -> None:
    alone = Alone()
    alone.handle()
    members = Members()
    assert members.seen_by(FOLLOWER, LEADER) is None
    own = members.seen_by(FOLLOWER, FOLLOWER)
    assert own is not None
    assert (own["last_log_index"], own["match_index"], own["age_seconds"]) == (80, None, 0.0)
    assert not members.sent


def test_a_follower_shows_what_the_leader_knows() -> None:
    members = Members()
    members.look(FOLLOWER)
    leader, slow = members.seen_by(FOLLOWER, LEADER), members.seen_by(FOLLOWER, SLOW)
    assert leader == {
        "role": "leader",
        "term": 4,
        "last_log_index": 90,
        "durable_index": 89,
        "commit_index": 88,
        "applied_index": 87,
        "revision": 7,
        "match_index": 89,  # its own: what is on its disk
        "age_seconds": 0.0,
    }
    assert slow is not None
    assert (slow["role"], slow["last_log_index"], slow["match_index"]) == ("follower", 50, 50)


def test_many_who_look_ask_once() -> None:
    members = Members()
    for _ in range(10):
        members.look(SLOW)
    assert len(members.sent) == 4  # two questions, two answers
    members.now += ASK_SECONDS_MIN
    members.look(SLOW)
    assert len(members.sent) == 8


def test_who_falls_silent_grows_old_and_who_left_is_forgotten() -> None:
    members = Members()
    members.look(FOLLOWER)
    members.silent = SLOW
    for _ in range(5):
        members.now += 1.0
        members.look(FOLLOWER)
    slow = members.seen_by(FOLLOWER, SLOW)
    assert slow is not None
    assert slow["age_seconds"] == 5.0
    assert members.reports[FOLLOWER].unanswered_seconds(SLOW, members.now) == 4.0
    assert members.reports[FOLLOWER].unanswered_seconds(LEADER, members.now) == 0.0
    raft = members.rafts[FOLLOWER]
    raft.conf_state.members = [each for each in raft.conf_state.members if each.id != SLOW]
    members.now += 1.0
    members.look(FOLLOWER)
    assert members.seen_by(FOLLOWER, SLOW) is None
    report = Report("follower", 4, 1, 1, 1, 1, 1)
    members.reports[FOLLOWER].received(SLOW, report, raft, STORE, members.now)
    assert members.seen_by(FOLLOWER, SLOW) is None


def test_what_was_said_before_a_pause_of_looking_is_not_taken_for_silence() -> None:
    members = Members()
    members.look(FOLLOWER)
    assert members.seen_by(FOLLOWER, SLOW) is not None
    members.now += 60.0
    assert members.seen_by(FOLLOWER, SLOW) is None
    members.silent = SLOW
    members.look(FOLLOWER)
    assert members.seen_by(FOLLOWER, SLOW) is None
    assert members.seen_by(FOLLOWER, LEADER) is not None


def test_matches_of_a_leader_of_another_term_are_not_shown() -> None:
    members = Members()
    members.look(FOLLOWER)
    members.rafts[FOLLOWER].term = 5
    slow = members.seen_by(FOLLOWER, SLOW)
    assert slow is not None
    assert slow["match_index"] is None


def test_a_node_remembers_its_last_elections() -> None:
    alone = Alone()
    changes = alone.node.cluster().role_changes
    assert [change.role for change in changes][-1] == "leader"
    assert changes[-1].leader_name == "n1"
    assert changes[-1].seconds_ago >= 0
    alone.handle(Look())
    report = alone.node.cluster().members[0].report
    assert report is not None
    assert (report.role, report.term) == ("leader", changes[-1].term)

    reports = Reports(lambda *_: None)
    raft = raft_of(FOLLOWER)
    for term in range(ROLE_CHANGES_MAX + 5):
        raft.term = term
        reports.role_changed(raft, float(term))
    kept = reports.role_changes({LEADER: "n1"}.get, 100.0)
    assert len(kept) == ROLE_CHANGES_MAX
    assert (kept[0].number, kept[0].term, kept[0].seconds_ago) == (6, 5, 95.0)
    assert kept[-1].leader_name == "n1"
