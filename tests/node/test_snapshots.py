"""Snapshots in the whole node: made while serving, sent in pieces, installed, recovered from."""

from functools import partial

import pytest

from raftkv.kv.commands import Put, encode_command
from raftkv.node import snapshots as snapshots_module
from raftkv.node.backups import BACKUPS_MAX, IDLE_SECONDS
from raftkv.node.events import (
    Answer,
    BackupEndRequest,
    BackupOpened,
    BackupPiece,
    BackupReadRequest,
    BackupRequest,
    SnapshotRequest,
    SnapshotTaken,
    WriteRequest,
)
from raftkv.node.messages import Failure, FailureCode
from raftkv.node.snapshots import REFUSED_SECONDS, Snapshots
from raftkv.raft import Input, InstallSnapshot
from raftkv.storage.layout import SNAPSHOTS, WAL
from raftkv.storage.snapshots import HEADER_BYTES
from tests.simulation.cluster import Climate, Machine
from tests.simulation.network import Weather
from tests.simulation.scenarios import Script

VALUE = bytes(2000)
#: A snapshot every hundred entries; who lags by ten needs one.
TINY = Climate(Weather(), snapshot_bytes_min=200_000, log_bytes_max=20_000)
#: No snapshot unless one is asked for.
NEVER = Climate(Weather(), log_bytes_max=20_000)


def snapshots_of(machine: Machine) -> Snapshots:
    assert machine.process is not None
    return machine.process.node.snapshots


def applied_of(script: Script, machine: Machine) -> int:
    assert machine.process is not None
    core = machine.process.node.core
    return 0 if core is None else core.store.applied_index


def files_in(machine: Machine, directory: str) -> list[str]:
    return [path for path in machine.disk.paths() if path.startswith(directory + "/")]


def put(script: Script, machine: Machine, count: int, answers: list[Answer]) -> None:
    """Write ``count`` values there, a few at a time, and wait until all are answered."""
    for number in range(count):
        command = encode_command(Put(b"key %d" % (number % 50), VALUE))
        deadline = script.world.now + 5.0
        script.cluster.request(
            machine, partial(WriteRequest, command=command, deadline=deadline), answers.append
        )
        if number % 5 == 4:
            wanted = len(answers)
            script.until(lambda wanted=wanted: len(answers) > wanted, "an answer")  # type: ignore[misc]
    script.until(lambda: len(answers) == count, "all answers")
    assert not any(isinstance(answer, Failure) for answer in answers)


def leave_behind(script: Script, writes: int = 60) -> tuple[Machine, Machine]:
    """A leader and a follower that was cut off while it wrote."""
    machines = script.cluster.machines
    leader = script.elected(machines)
    follower = next(m for m in machines if m is not leader)
    script.only_links([m for m in machines if m is not follower], [follower])
    put(script, leader, writes, [])
    return leader, follower


def converged(script: Script, machines: list[Machine]) -> bool:
    return len({applied_of(script, machine) for machine in machines}) == 1


def test_rule_11_a_snapshot_is_made_when_the_log_has_grown_and_frees_the_log() -> None:
    script = Script(1, 3, TINY)
    leader = script.elected(script.cluster.machines)
    put(script, leader, 600, [])
    # At 200 kB of log, and then whenever it has grown by half of the state, history included.
    script.until(lambda: snapshots_of(leader).made_count >= 2, "two snapshots")
    assert snapshots_of(leader).made_count < 10
    script.until(lambda: len(files_in(leader, SNAPSHOTS)) == 1, "the older one to go")
    # 600 values of 2 kB are 1.2 MB, in segments of 64 kB: most of them are gone.
    script.until(lambda: len(files_in(leader, WAL)) < 12, "segments to go")
    raft = script.raft(leader)
    assert raft.last_index - raft.first_index < 12, "the log in memory is short"


def test_rule_10_a_follower_that_is_far_behind_is_sent_a_snapshot() -> None:
    script = Script(2, 3, NEVER)
    leader, follower = leave_behind(script, writes=100)
    machines = script.cluster.machines
    assert script.raft(leader).first_index > script.raft(follower).last_index + 1
    script.only_links(machines)
    script.until(lambda: snapshots_of(follower).installed_count == 1, "the snapshot")
    script.until(lambda: converged(script, machines), "all to be alike")
    put(script, follower, 10, [])


def test_row_39_a_snapshot_of_another_format_is_refused_when_it_is_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As from a leader of a newer version: the follower waits for its own upgrade, and lives."""
    script = Script(2, 3, NEVER)
    leader, follower = leave_behind(script, writes=100)
    machines = script.cluster.machines
    with monkeypatch.context() as newer:
        newer.setattr(snapshots_module, "FORMAT", 99)
        taken: list[Answer] = []
        script.cluster.request(leader, SnapshotRequest, taken.append)
        script.until(lambda: bool(taken), "the snapshot of the newer version")
    script.only_links(machines)
    script.until(lambda: bool(snapshots_of(follower).last_refusal), "the refusal")
    assert "holds records of format 99" in snapshots_of(follower).last_refusal
    assert not files_in(follower, SNAPSHOTS)
    # The old version leads again, or the follower is upgraded: what is offered then is taken.
    put(script, leader, 10, [])
    again: list[Answer] = []
    script.cluster.request(leader, SnapshotRequest, again.append)
    script.until(lambda: bool(again), "a snapshot of this version")
    script.until(lambda: converged(script, machines), "all to be alike")
    assert snapshots_of(follower).installed_count == 1


@pytest.mark.parametrize("moment_ms", range(0, 40, 3))
def test_rule_10_an_installation_survives_a_crash_at_any_moment(moment_ms: int) -> None:
    """Whatever a power loss leaves of it: the node comes back and catches up."""
    script = Script(3 + moment_ms, 3, NEVER)
    leader, follower = leave_behind(script)
    machines = script.cluster.machines
    script.only_links(machines)
    script.until(lambda: bool(snapshots_of(leader).sending), "the transfer")
    later = script.world.now + moment_ms / 1000
    script.until(lambda: script.world.now > later, "a moment")
    script.cluster.lose_power(follower)
    script.cluster.start(follower)
    script.until(lambda: converged(script, machines), "all to be alike")


def test_rule_10_a_transfer_goes_on_where_it_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(4, 3, NEVER)
    monkeypatch.setattr("raftkv.node.snapshot_transfer.CHUNK_BYTES", 4096)
    monkeypatch.setattr("raftkv.node.snapshot_transfer.WINDOW_BYTES", 8192)
    machines = script.cluster.machines
    leader = script.elected(machines)
    follower = next(m for m in machines if m is not leader)
    others = [m for m in machines if m is not follower]
    script.only_links(others, [follower])
    put(script, leader, 60, [])
    script.only_links(machines)
    script.until(lambda: bool(snapshots_of(leader).sending), "the transfer")
    (transfer,) = snapshots_of(leader).sending.values()
    half = transfer.offer.info.size_bytes // 2
    script.until(lambda: transfer.acked_bytes >= half, "half of it")
    script.only_links(others, [follower])
    script.until(lambda: not snapshots_of(leader).sending, "the leader to notice")
    script.only_links(machines)
    script.until(lambda: bool(snapshots_of(leader).sending), "a new offer")
    (second,) = snapshots_of(leader).sending.values()
    script.until(lambda: second.acked_bytes > 0, "an answer")
    assert second.acked_bytes >= half, "what was received is not sent again"
    script.until(lambda: converged(script, machines), "all to be alike")


def test_a_received_snapshot_that_the_core_has_no_use_for_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else each of them stays until the next one is installed: there is no bound on them (I15)."""
    script = Script(8, 3, NEVER)
    _, follower = leave_behind(script, writes=100)
    machines = script.cluster.machines
    raft = script.raft(follower)
    dropped: list[Input] = []

    def step(message: Input) -> None:
        """As if the term had moved on while the file came in."""
        (dropped.append if isinstance(message, InstallSnapshot) else raft._raft.step)(message)

    with monkeypatch.context() as outdated:
        outdated.setattr(raft, "step", step)
        script.only_links(machines)
        script.until(lambda: len(dropped) == 2, "two transfers")
        later = script.world.now + 0.2
        script.until(lambda: script.world.now > later, "the files to be removed")
        durable = [path for path in files_in(follower, SNAPSHOTS) if path.endswith(".snapshot")]
        assert not durable
    script.until(lambda: converged(script, machines), "all to be alike")


def test_rule_09_an_engine_that_is_lost_comes_back_from_the_snapshot() -> None:
    script = Script(5, 3, TINY)
    machines = script.cluster.machines
    leader = script.elected(machines)
    put(script, leader, 300, [])
    follower = next(m for m in machines if m is not leader)
    script.until(lambda: snapshots_of(follower).made_count >= 1, "a snapshot")
    script.cluster.lose_power(follower)  # takes the engine, which is in memory
    script.cluster.start(follower)
    script.until(lambda: follower.is_started, "recovery")
    assert script.raft(follower).first_index > 1, "the log begins after the snapshot"
    script.until(lambda: converged(script, machines), "all to be alike")


def test_a_snapshot_on_request_is_answered_when_it_is_durable() -> None:
    script = Script(6, 1, NEVER)
    (machine,) = script.cluster.machines
    script.elected([machine])
    put(script, machine, 10, [])
    answers: list[Answer] = []
    script.cluster.request(machine, SnapshotRequest, answers.append)
    script.until(lambda: bool(answers), "the snapshot")
    (taken,) = answers
    assert isinstance(taken, SnapshotTaken)
    assert (taken.index, taken.revision) == (applied_of(script, machine), 10)
    assert files_in(machine, SNAPSHOTS) == [f"{SNAPSHOTS}/{taken.name}"]


def test_a_snapshot_that_does_not_fit_is_refused_and_the_node_goes_on() -> None:
    script = Script(7, 1, NEVER)
    (machine,) = script.cluster.machines
    script.elected([machine])
    put(script, machine, 10, [])
    machine.disk.capacity_bytes = sum(len(machine.disk.read(p)) for p in machine.disk.paths())
    machine.disk.capacity_bytes += 1000
    answers: list[Answer] = []
    script.cluster.request(machine, SnapshotRequest, answers.append)
    script.until(lambda: bool(answers), "an answer")
    (answer,) = answers
    assert isinstance(answer, Failure)
    assert answer.code is FailureCode.REFUSED
    assert "does not fit" in answer.detail
    machine.disk.capacity_bytes = None
    put(script, machine, 10, [])


def test_row_29_a_damaged_snapshot_of_the_leader_is_made_anew() -> None:
    script = Script(8, 3, NEVER)
    leader, _ = leave_behind(script)
    machines = script.cluster.machines
    answers: list[Answer] = []
    script.cluster.request(leader, SnapshotRequest, answers.append)
    script.until(lambda: bool(answers), "the snapshot")
    (path,) = files_in(leader, SNAPSHOTS)
    leader.disk.flip_bit(path, HEADER_BYTES + 1000)
    script.only_links(machines)
    script.until(lambda: snapshots_of(leader).made_count == 2, "another snapshot")
    script.until(lambda: converged(script, machines), "all to be alike")


def test_a_follower_without_room_is_not_asked_all_the_time() -> None:
    script = Script(9, 3, NEVER)
    leader, follower = leave_behind(script)
    machines = script.cluster.machines
    disk = follower.disk
    disk.capacity_bytes = sum(len(disk.read(path)) for path in disk.paths()) + 300_000
    script.only_links(machines)
    script.until(lambda: bool(snapshots_of(leader).sending), "an offer")
    first = next(iter(snapshots_of(leader).sending.values()))
    script.until(lambda: first.is_ended, "a refusal")
    began = script.world.now
    script.until(lambda: bool(snapshots_of(leader).sending), "the next offer")
    assert script.world.now - began >= REFUSED_SECONDS
    disk.capacity_bytes = None
    script.until(lambda: converged(script, machines), "all to be alike")


def test_a_follower_gets_its_snapshot_once_the_leader_has_room_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("raftkv.node.snapshots.RETRY_SECONDS", 2.0)
    script = Script(10, 3, NEVER)
    leader, _ = leave_behind(script)
    machines = script.cluster.machines
    disk = leader.disk
    disk.capacity_bytes = sum(len(disk.read(path)) for path in disk.paths()) + 1000
    script.only_links(machines)
    script.until(lambda: "does not fit" in snapshots_of(leader).last_refusal, "a refusal")
    disk.capacity_bytes = None
    script.until(lambda: converged(script, machines), "all to be alike")


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_snapshot_asked_for_around_an_installation_is_answered(moment: str) -> None:
    script = Script(11, 3, NEVER)
    leader, follower = leave_behind(script)
    machines = script.cluster.machines
    answers: list[Answer] = []
    script.only_links(machines)
    if moment == "before":
        script.until(lambda: script.raft(follower).is_installing, "the core to take it")
    else:
        script.until(lambda: snapshots_of(follower).is_installing, "the installation")
    script.cluster.request(follower, SnapshotRequest, answers.append)
    script.until(lambda: bool(answers), "an answer")
    (taken,) = answers
    assert isinstance(taken, SnapshotTaken)
    assert taken.index >= script.raft(leader).first_index - 1


def test_backups_that_are_asked_for_at_once_are_bounded() -> None:
    script = Script(12, 1, NEVER)
    (machine,) = script.cluster.machines
    script.elected([machine])
    put(script, machine, 10, [])
    answers: list[Answer] = []
    for _ in range(BACKUPS_MAX + 2):
        script.cluster.request(machine, BackupRequest, answers.append)
    script.until(lambda: len(answers) == BACKUPS_MAX + 2, "all answers")
    opened = [answer for answer in answers if isinstance(answer, BackupOpened)]
    refused = [answer for answer in answers if isinstance(answer, Failure)]
    assert (len(opened), len(refused)) == (BACKUPS_MAX, 2)
    assert {failure.code for failure in refused} == {FailureCode.OVERLOADED}
    script.cluster.request(machine, BackupRequest, answers.append)
    script.until(lambda: len(answers) == BACKUPS_MAX + 3, "one more answer")
    assert isinstance(answers[-1], Failure)


def test_a_snapshot_has_all_that_was_written_before_it_was_asked_for() -> None:
    script = Script(13, 1, NEVER)
    (machine,) = script.cluster.machines
    script.elected([machine])
    put(script, machine, 10, [])
    first: list[Answer] = []
    second: list[Answer] = []
    script.cluster.request(machine, SnapshotRequest, first.append)
    put(script, machine, 1, [])
    assert first == [], "the first is still being made"
    script.cluster.request(machine, SnapshotRequest, second.append)
    script.until(lambda: bool(first and second), "both")
    revisions = [answer.revision for answer in first + second if isinstance(answer, SnapshotTaken)]
    assert revisions == [10, 11]


def test_a_backup_that_was_given_up_is_not_taken_for_the_next_one() -> None:
    script = Script(14, 1, NEVER)
    (machine,) = script.cluster.machines
    script.elected([machine])
    put(script, machine, 10, [])
    answers: list[Answer] = []
    script.cluster.request(machine, BackupRequest, answers.append)
    script.until(lambda: len(answers) == 1, "a backup")
    given_up_at = script.world.now + IDLE_SECONDS
    while script.world.now < given_up_at + 1.0:
        script.world.step()
    script.cluster.request(machine, BackupRequest, answers.append)
    script.until(lambda: len(answers) == 2, "another")
    first, second = answers
    assert isinstance(first, BackupOpened)
    assert isinstance(second, BackupOpened)
    assert machine.process is not None
    script.cluster.deliver(machine, machine.process, BackupEndRequest(first.handle))
    for opened in (first, second):
        read = partial(BackupReadRequest, handle=opened.handle, offset=0, size=10)
        script.cluster.request(machine, read, answers.append)
    script.until(lambda: len(answers) == 4, "both pieces")
    refused = [answer for answer in answers if isinstance(answer, Failure)]
    assert [failure.code for failure in refused] == [FailureCode.DEADLINE]
    assert any(isinstance(answer, BackupPiece) for answer in answers)
