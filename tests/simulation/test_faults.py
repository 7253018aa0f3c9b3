"""The faults of the simulation are what they are said to be: survivable, and where they aim."""

from functools import partial
from random import Random

import pytest

from raftkv.raft.messages import ConfState
from raftkv.raft.quorum import majority
from raftkv.raft.rawnode import RawNode
from tests.simulation.aimed_faults import side_of_new_majority
from tests.simulation.cluster import Machine
from tests.simulation.damage import Harm, harm, rot
from tests.simulation.faults import Faults
from tests.simulation.scenarios import Script, member_id


def _faults(script: Script) -> Faults:
    faults = Faults(script.cluster, script.invariants, can_replace=True)
    for machine in script.voters:
        script.invariants.after_turn(machine, [])
    return faults


def _has_applied(raft: RawNode, index: int) -> bool:
    return raft.applied_index >= index


def _written() -> Script:
    """A cluster of three with some frames in its logs."""
    script = Script(1, 3)
    raft = script.raft(script.voters[0])
    for count in range(1, 6):
        script.write(script.elected(script.voters))
        script.until(partial(_has_applied, raft, 2 + count), "the write")
    return script


# ---- the atlas -------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "losses"), [(1, 0), (2, 0), (3, 1), (5, 2)])
def test_the_atlas_keeps_a_majority_whole(size: int, losses: int) -> None:
    script = Script(1, size)
    faults = _faults(script)
    lost: list[Machine] = []
    for machine in script.voters:
        if faults._is_spare(machine):
            machine.harm = Harm("harmed", "cut file", lambda: None)
            lost.append(machine)
    assert len(lost) == losses


def test_no_disk_is_lost_while_a_leader_counts_on_it() -> None:
    """It would append a configuration that needs it, and nobody could be elected any more."""
    script = Script(1, 3)
    leader = script.elected(script.voters)
    faults = _faults(script)
    follower = next(machine for machine in script.voters if machine is not leader)
    script.cluster.kill(follower)
    assert faults._is_spare(follower)
    assert not faults._may_lose(follower)
    raft = script.raft(leader)
    script.until(lambda: raft.progress[member_id(follower)].silent_ticks > 15, "it to be silent")
    assert faults._may_lose(follower)


def test_a_crash_amid_a_turn_comes_before_it_applies() -> None:
    script = Script(1, 3)
    leader = script.elected(script.voters)
    faults = _faults(script)
    faults._turn_crash = 1.0
    raft = script.raft(leader)
    script.write(leader)
    script.until(lambda: bool(faults.reached["crash before it applied"]), "the crash")
    ended = [machine for machine in script.voters if machine.process is None]
    assert ended, "nobody crashed"
    if leader in ended:
        assert raft.applied_index < raft.commit_index
    faults._turn_crash = 0.0
    script.until(lambda: all(machine.is_started for machine in script.voters), "the restart")
    script.write(script.elected(script.voters))


# ---- harm to files ---------------------------------------------------------------------------


def test_every_harm_changes_a_file_and_says_which_and_is_undone() -> None:
    disk = _written().voters[0].disk
    content = {path: disk.read(path) for path in disk.paths()}
    said: set[str] = set()
    for seed in range(60):
        copy = disk.clone()
        done = harm(copy, Random(seed))
        if done is not None:
            said.add(done.what.split()[0])
            assert [path for path in {*disk.paths(), *copy.paths()} if path in done.what], done
            assert {path: copy.read(path) for path in copy.paths()} != content
            done.mend()
            assert {path: copy.read(path) for path in copy.paths()} == content
    assert {"bit", "lost", "sector"} <= said


@pytest.mark.parametrize("seed", range(10))
def test_i14_rot_in_what_is_durable_is_refused_with_its_place(seed: int) -> None:
    script = _written()
    machine = script.voters[0]
    reasons: list[str] = []
    script.cluster.on_stopped = lambda _machine, reason: reasons.append(reason)
    script.cluster.lose_power(machine)
    done = rot(machine.disk, Random(seed))
    assert done is not None
    script.cluster.start(machine)
    script.until(lambda: bool(reasons), "it to refuse")
    assert done.what in reasons[0]
    script.cluster.kill(machine)
    done.mend()
    script.cluster.start(machine)
    script.until(lambda: machine.is_started, "it to start")


# ---- cuts ------------------------------------------------------------------------------------


def _joint(voters: str, outgoing: str) -> ConfState:
    as_ids = [tuple(map(ord, half)) for half in (voters, outgoing)]
    return ConfState(voters=as_ids[0], voters_outgoing=as_ids[1])


@pytest.mark.parametrize(
    ("conf", "leader"), [("abd abc", "a"), ("abd abc", "b"), ("abcdf abcde", "c")], ids=str
)
def test_the_line_between_two_majorities_gives_each_its_own(conf: str, leader: str) -> None:
    new, old = conf.split()
    for seed in range(20):
        side = side_of_new_majority(_joint(new, old), ord(leader), Random(seed))
        assert side is not None
        assert ord(leader) in side
        near = set(map(ord, new)) & side
        far = set(map(ord, old)) - side
        assert len(near) >= majority(len(new))
        assert len(far) >= majority(len(old))


@pytest.mark.parametrize("conf", ["abcd abce", "abc ", "b a"])
def test_there_is_no_line_where_majorities_overlap(conf: str) -> None:
    new, old = conf.split(" ")
    assert side_of_new_majority(_joint(new, old), ord("a"), Random(1)) is None


def test_a_star_leaves_the_links_of_its_middle_alone() -> None:
    script = Script(1, 3)
    network = _faults(script).network
    middle, first, second = map(member_id, script.voters)
    network.star(middle, 1.0)
    assert script.cluster.network._cut == {(first, second), (second, first)}


def test_the_end_of_a_cut_does_not_heal_a_later_one() -> None:
    script = Script(1, 3)
    network = _faults(script).network
    first, second, _ = script.voters
    network.isolate(first, 0.5)
    network.isolate(second, 1.0)
    cut = set(script.cluster.network._cut)
    now = script.world.now
    script.until(lambda: script.world.now > now + 0.9, "the end of the first")
    assert script.cluster.network._cut == cut
    script.until(lambda: script.world.now > now + 1.1, "the end of the second")
    assert script.cluster.network._cut == set()
