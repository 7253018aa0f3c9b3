"""Replicas compare what they hold at equal indexes (node design, rule 23)."""

from typing import Any

from raftkv.node.events import Diverged
from raftkv.node.hash_check import _PAUSE_TICKS, HashCheck
from raftkv.node.messages import StateHash
from raftkv.node.views import cluster, status
from tests.node.test_stalls_and_slices import Alone

LEADER, FOLLOWER = 1, 2


class FakeStore:
    """A store with given hashes."""

    def __init__(self, *hashes: tuple[int, bytes]) -> None:
        self.hashes = hashes


class Replicas:
    """A leader and a follower that hear each other at once."""

    def __init__(self, leader: FakeStore, follower: FakeStore) -> None:
        self.stores: dict[int, Any] = {LEADER: leader, FOLLOWER: follower}
        self.sent: list[tuple[int, StateHash]] = []
        self.reports: dict[int, list[Diverged]] = {LEADER: [], FOLLOWER: []}
        self.checks = {number: self._make(number) for number in self.stores}

    def _make(self, number: int) -> HashCheck:
        def send(peer: int, message: Any) -> None:
            self.sent.append((number, message))
            self.checks[peer].received(self.stores[peer], number, message)

        return HashCheck(send, self.reports[number].append)

    def pass_time(self, pauses: int = 1) -> None:
        for _ in range(pauses * _PAUSE_TICKS):
            for number, check in self.checks.items():
                check.tick(self.stores[number], LEADER, number)


def test_rule_23_a_follower_tells_the_leader_until_it_is_answered() -> None:
    replicas = Replicas(FakeStore((1024, b"a")), FakeStore((1024, b"a"), (2048, b"b")))
    replicas.pass_time(3)
    assert len(replicas.sent) == 3  # the leader has not got so far
    replicas.stores[LEADER] = FakeStore((1024, b"a"), (2048, b"b"))
    replicas.pass_time(3)
    assert [sender for sender, _ in replicas.sent[3:]] == [FOLLOWER, LEADER]
    assert replicas.reports == {LEADER: [], FOLLOWER: []}


def test_rule_23_both_notice_a_difference_and_count_it_once() -> None:
    replicas = Replicas(FakeStore((1024, b"a")), FakeStore((1024, b"x")))
    replicas.pass_time()
    replicas.checks[FOLLOWER]._compared = None  # asked again, as after a leader change
    replicas.pass_time()
    assert replicas.reports == {
        LEADER: [Diverged(FOLLOWER, 1024)],
        FOLLOWER: [Diverged(LEADER, 1024)],
    }
    for number, peer in ((LEADER, FOLLOWER), (FOLLOWER, LEADER)):
        check = replicas.checks[number]
        assert check.mismatch_count == 1
        assert check.differs_from(peer)
        assert not check.differs_from(number)


def test_rule_23_only_equal_indexes_are_compared() -> None:
    replicas = Replicas(FakeStore((2048, b"a")), FakeStore((1024, b"x")))
    replicas.pass_time(2)
    assert replicas.reports == {LEADER: [], FOLLOWER: []}
    assert not any(message.is_answer for _, message in replicas.sent)


def test_rule_23_a_difference_is_shown() -> None:
    alone = Alone()
    own_id = status(alone.node, 0.0).member_id
    assert not any(member.diverged for member in cluster(alone.node, 0.0).members)
    check = alone.node.hash_check
    store: Any = FakeStore((1024, b"a"))
    check.received(store, own_id, StateHash(1024, b"x", is_answer=True))
    assert status(alone.node, 0.0).hash_mismatches == 1
    assert cluster(alone.node, 0.0).members[0].diverged
    alone.handle()
    assert Diverged(own_id, 1024) in alone.effects
