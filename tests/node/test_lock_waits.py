"""Waiting for a lock: one answer each, and no trace of who went away."""

from collections.abc import Callable
from functools import partial

import pytest

from raftkv.kv.commands import (
    AcquireLock,
    Command,
    LeaveLock,
    Once,
    Put,
    ReleaseLock,
    decode_command,
    encode_command,
)
from raftkv.kv.listing import find_lock
from raftkv.kv.outcomes import (
    LockBusy,
    LockGrant,
    LockHeld,
    LockQueued,
    LockReleased,
    Replayed,
)
from raftkv.kv.records import Lock, Waiter
from raftkv.node.events import Answer, CancelRequest, DrainRequest, LockRequest, WriteRequest
from raftkv.node.lock_waits import LockWaits
from raftkv.node.messages import Failure, FailureCode, RequestId
from tests.simulation.cluster import Climate, Machine
from tests.simulation.network import Weather
from tests.simulation.scenarios import Script

NAME = b"lock"
ACQUIRE = AcquireLock(NAME, b"me", 30_000, 60_000, 100)
TICKET, TOKEN = 7, 9
QUEUED = LockQueued(TICKET, TICKET)
GRANT = LockGrant(NAME, TICKET, TOKEN, 30_000)
GRANTED = LockHeld(TOKEN, TOKEN, 30_000)
UNKNOWN = Failure(FailureCode.UNKNOWN, "")

Then = Callable[[Answer], None]


class Harness:
    """Waits, with what they answer and what they write."""

    def __init__(self) -> None:
        self.answers: dict[RequestId, Answer] = {}
        self.written: list[tuple[Command, Then]] = []
        self.waits = LockWaits(self._answer, self._write)

    def _answer(self, request: RequestId, answer: Answer) -> None:
        assert request not in self.answers, "a second answer"
        self.answers[request] = answer

    def _write(self, command: bytes, then: Then) -> None:
        self.written.append((decode_command(command), then))

    def ask(self, number: RequestId, *, once: bool = False) -> Then:
        """A request that waits until 10.0; the result takes what came of its command."""
        command: Command = Once(b"id", bytes(16), 1000, ACQUIRE) if once else ACQUIRE
        data = encode_command(command)
        return self.waits.ask(LockRequest(number, data, NAME, 10.0, deadline=5.0))

    def commands(self) -> list[Command]:
        """What was written."""
        return [command for command, _ in self.written]

    def is_clean(self) -> bool:
        """Whether nothing is remembered."""
        waits = self.waits
        return not (waits._requests or waits._places or waits._asking or waits._early)


@pytest.mark.parametrize(
    "answer", [GRANTED, LockBusy(3, b"other"), UNKNOWN, Replayed(3, GRANTED)], ids=repr
)
def test_what_is_no_place_in_the_queue_is_the_answer(answer: Answer) -> None:
    node = Harness()
    node.ask(1)(answer)
    assert node.answers == {1: answer}
    assert node.is_clean()


def test_a_waiter_is_answered_by_the_grant_of_its_ticket() -> None:
    node = Harness()
    node.ask(1)(QUEUED)
    node.waits.granted((LockGrant(NAME, TICKET + 1, 8, 1), LockGrant(b"another", TICKET, 8, 1)))
    assert node.answers == {}
    node.waits.granted((GRANT,))
    assert node.answers == {1: GRANTED}
    assert node.is_clean()


def test_a_grant_may_be_applied_before_the_leader_tells_the_ticket() -> None:
    node = Harness()
    then = node.ask(1)
    node.waits.granted((GRANT,))
    then(QUEUED)
    assert node.answers == {1: GRANTED}
    assert node.is_clean()


def test_grants_of_others_are_not_remembered() -> None:
    node = Harness()
    node.waits.granted((GRANT,))
    assert node.is_clean()
    then = node.ask(1)
    node.waits.granted((GRANT,))
    then(LockBusy(3, b"other"))
    assert node.is_clean()


def test_who_waited_long_enough_leaves_the_queue_before_it_is_answered() -> None:
    node = Harness()
    node.ask(1)(QUEUED)
    node.waits.expire(9.9)
    assert node.written == []
    node.waits.expire(10.0)
    node.waits.expire(11.0)
    ((command, left),) = node.written
    assert command == LeaveLock(NAME, TICKET, releases=False)
    assert node.answers == {}
    left(LockReleased(20))
    assert node.answers == {1: LockQueued(20, TICKET)}
    assert node.is_clean()


@pytest.mark.parametrize("is_seen_here_first", [True, False])
def test_a_lock_that_came_while_leaving_is_kept(is_seen_here_first: bool) -> None:
    node = Harness()
    node.ask(1)(QUEUED)
    node.waits.expire(10.0)
    ((_, left),) = node.written
    if is_seen_here_first:
        node.waits.granted((GRANT,))
    left(GRANTED)
    node.waits.granted((GRANT,))
    assert node.answers == {1: GRANTED}
    assert node.is_clean()


def test_rule_18_a_queue_that_could_not_be_left_is_unknown() -> None:
    node = Harness()
    node.ask(1)(QUEUED)
    node.waits.expire(10.0)
    ((_, left),) = node.written
    left(Failure(FailureCode.NO_LEADER, ""))
    answer = node.answers[1]
    assert isinstance(answer, Failure)
    assert answer.code is FailureCode.UNKNOWN


def test_who_goes_away_while_waiting_leaves_the_queue_and_gives_back_the_lock() -> None:
    node = Harness()
    node.ask(1)(QUEUED)
    node.waits.cancel(1, is_dropped=False)
    assert node.commands() == [LeaveLock(NAME, TICKET, releases=True)]
    node.waits.granted((GRANT,))
    assert node.answers == {}
    assert node.is_clean()


@pytest.mark.parametrize(
    ("answer", "undone"),
    [
        (QUEUED, LeaveLock(NAME, TICKET, releases=True)),
        (GRANTED, LeaveLock(NAME, TOKEN, releases=True)),
        (LockBusy(3, b"other"), None),
        (UNKNOWN, None),
    ],
    ids=repr,
)
def test_who_went_away_while_asking_leaves_no_trace(answer: Answer, undone: Command | None) -> None:
    node = Harness()
    then = node.ask(1)
    node.waits.cancel(1, is_dropped=False)
    then(answer)
    assert node.commands() == ([] if undone is None else [undone])
    assert node.answers == {}
    assert node.is_clean()


def test_who_went_away_before_its_command_left_is_forgotten() -> None:
    node = Harness()
    node.ask(1)
    node.waits.cancel(1, is_dropped=True)
    assert node.commands() == []
    assert node.is_clean()


def test_a_lock_that_a_retry_would_be_told_of_is_not_given_back() -> None:
    """With an idempotency key, the retry is told of this very lock."""
    node = Harness()
    then = node.ask(1, once=True)
    node.waits.cancel(1, is_dropped=False)
    then(GRANTED)
    assert node.commands() == []


def test_another_request_of_the_same_owner_keeps_place_and_lock() -> None:
    node = Harness()
    node.ask(1)(QUEUED)
    then = node.ask(2)
    then(QUEUED)
    node.waits.cancel(1, is_dropped=False)
    assert node.commands() == []
    node.waits.granted((GRANT,))
    assert node.answers == {2: GRANTED}

    first, _second = node.ask(3), node.ask(4)
    node.waits.cancel(3, is_dropped=False)
    first(GRANTED)
    assert node.commands() == []


def test_rule_18_what_comes_after_an_unknown_answer_leaves_no_place_in_the_queue() -> None:
    node = Harness()
    then = node.ask(1)
    then(UNKNOWN)
    then(QUEUED)
    assert node.answers == {1: UNKNOWN}
    assert node.commands() == [LeaveLock(NAME, TICKET, releases=True)]
    assert node.is_clean()


# ---- after a snapshot, which brings no grants ------------------------------------------------


def _lock_now(ticket: int, *waiting: int) -> Callable[[bytes], Lock | None]:
    """How to find the one lock there is: granted by ``ticket``, others wait."""
    waiters = tuple(Waiter(each, b"%d" % each, 1000, 1000) for each in waiting)
    lock = Lock(TOKEN, b"me", 30_000, ticket, waiters)
    return lambda name: lock if name == NAME else None


@pytest.mark.parametrize("is_asking", [True, False])
def test_who_got_the_lock_in_a_snapshot_is_told(is_asking: bool) -> None:
    node = Harness()
    then = node.ask(1)
    if not is_asking:
        then(QUEUED)
    node.waits.look_again(TOKEN, _lock_now(TICKET))
    if is_asking:
        then(QUEUED)
    assert node.answers == {1: GRANTED}
    assert node.is_clean()


@pytest.mark.parametrize("revision", [TICKET - 1, TOKEN])
def test_who_waits_in_a_snapshot_or_came_after_it_waits_on(revision: int) -> None:
    node = Harness()
    node.ask(1)(QUEUED)
    find = _lock_now(0, TICKET) if revision == TOKEN else _lock_now(TICKET - 2)
    node.waits.look_again(revision, find)
    assert (node.answers, node.written) == ({}, [])
    node.waits.granted((GRANT,))
    assert node.answers == {1: GRANTED}


def test_who_had_and_lost_the_lock_in_a_snapshot_does_not_wait_for_it() -> None:
    node = Harness()
    node.ask(1)(QUEUED)
    node.waits.look_again(TOKEN, lambda _: None)
    ((command, left),) = node.written
    assert command == LeaveLock(NAME, TICKET, releases=False)
    left(LockReleased(20))
    assert node.answers == {1: LockQueued(20, TICKET)}
    assert node.is_clean()


# ---- in a cluster ---------------------------------------------------------------------------


def _lock(script: Script, machine: Machine, owner: bytes, wait_seconds: float) -> list[Answer]:
    command = AcquireLock(NAME, owner, 600_000, round(wait_seconds * 1000), 100)
    data, until = encode_command(command), script.world.now + wait_seconds
    return script.ask(machine, lambda rid, deadline: LockRequest(rid, data, NAME, until, deadline))


def _token(script: Script, answers: list[Answer]) -> int:
    script.until(lambda: bool(answers), "the lock")
    assert isinstance(answers[0], LockHeld)
    return answers[0].token


def _release(script: Script, machine: Machine, token: int) -> None:
    data = encode_command(ReleaseLock(NAME, token))
    answer = script.answer(machine, lambda rid, deadline: WriteRequest(rid, data, deadline))
    assert isinstance(answer, LockReleased)


def test_waiters_on_any_node_get_the_lock_in_turn_also_after_a_leader_change() -> None:
    script = Script(seed=4, size=3)
    leader = script.elected(script.voters)
    first, second = (machine for machine in script.voters if machine is not leader)
    held = _token(script, _lock(script, leader, b"a", 1.0))
    waiters = []
    for machine, owner in ((first, b"b"), (second, b"c"), (first, b"d")):
        waiters.append(_lock(script, machine, owner, 60.0))
        script.until(partial(_has_places, script, [machine, second], len(waiters)), "its place")
    script.cluster.kill(leader)
    script.elected([first, second])
    for answers in waiters:
        assert answers == []
        _release(script, second, held)
        token = _token(script, answers)
        assert token > held
        held = token


def test_a_node_that_drains_sends_its_waiters_away_and_keeps_no_place_for_them() -> None:
    script = Script(seed=6, size=3)
    leader = script.elected(script.voters)
    leaving, other = (machine for machine in script.voters if machine is not leader)
    held = _token(script, _lock(script, leader, b"a", 1.0))
    answers = _lock(script, leaving, b"b", 600.0)
    script.until(lambda: _waiting(script, other) == 1, "its place")
    script.answer(leaving, lambda rid, _deadline: DrainRequest(rid, draining=True))
    script.until(lambda: bool(answers), "the end of the wait")
    assert isinstance(answers[0], LockQueued)
    script.until(lambda: _waiting(script, other) == 0, "the queue left")
    late = _lock(script, leaving, b"b", 600.0)
    script.until(lambda: bool(late), "the end of the wait")
    _release(script, other, held)
    assert _token(script, _lock(script, other, b"c", 1.0)) > held


def _has_places(script: Script, machines: list[Machine], count: int) -> bool:
    """Whether ``count`` waiters have a place, and these machines were told of their own."""
    return all(
        _waiting(script, machine) == count
        and machine.process is not None
        and not machine.process.node.requests.writes
        for machine in machines
    )


def _waiting(script: Script, machine: Machine) -> int:
    """Waiters for the lock, as the machine has applied it."""
    assert machine.process is not None
    assert machine.process.node.core is not None
    lock = find_lock(machine.process.node.core.store.engine, NAME)
    return 0 if lock is None else len(lock.lock.waiters)


def test_the_end_of_a_wait_and_the_end_of_a_client_leave_the_queue_empty() -> None:
    script = Script(seed=5, size=3)
    leader = script.elected(script.voters)
    follower = next(machine for machine in script.voters if machine is not leader)
    _token(script, _lock(script, leader, b"a", 1.0))
    short = _lock(script, follower, b"b", 0.5)
    long = _lock(script, follower, b"c", 60.0)
    script.until(lambda: _waiting(script, follower) == 2, "both to queue")
    script.until(lambda: bool(short), "the end of the short wait")
    assert isinstance(short[0], LockQueued)
    assert _waiting(script, leader) == 1
    assert follower.process is not None
    (request,) = follower.process.requests
    script.cluster.deliver(follower, follower.process, CancelRequest(request))
    script.until(lambda: _waiting(script, leader) == 0, "the other to leave")
    assert long == []


def test_a_waiter_whose_node_was_sent_a_snapshot_gets_the_lock() -> None:
    script = Script(6, 3, Climate(Weather(), log_bytes_max=20_000))
    leader = script.elected(script.voters)
    follower = next(machine for machine in script.voters if machine is not leader)
    held = _token(script, _lock(script, leader, b"a", 1.0))
    answers = _lock(script, follower, b"b", 60.0)
    script.until(lambda: _waiting(script, follower) == 1, "its place")
    script.only_links([m for m in script.voters if m is not follower], [follower])
    _release(script, leader, held)
    data = encode_command(Put(b"key", bytes(4000)))
    for _ in range(40):
        script.answer(leader, lambda rid, deadline: WriteRequest(rid, data, deadline))
    assert script.raft(leader).first_index > script.raft(follower).last_index + 1
    script.only_links(script.voters)
    assert _token(script, answers) > held
