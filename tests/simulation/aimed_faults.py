"""Faults that wait for a moment: where a rule of the core matters, something breaks just then.

What strikes at any time seldom strikes between two messages that it takes to break a rule. So these
look at the nodes after each turn, and once they see such a state they strike with a probability
that the seed draws (as FoundationDB's BUGGIFY does). Their draws are their own: a seed
in which none strikes has the weather that it would have without them.
"""

from collections import Counter
from dataclasses import dataclass
from random import Random

from raftkv.kv.ranges import Range
from raftkv.node.events import Answer, Consistency, ReadRequest
from raftkv.raft.messages import ConfState, Index, NodeId, Term
from raftkv.raft.quorum import majority
from raftkv.raft.rawnode import RawNode
from raftkv.raft.roles import Leader
from tests.simulation.checkers import Invariants
from tests.simulation.cluster import Cluster, Machine, Process
from tests.simulation.network_faults import NetworkFaults

SLEEP_SECONDS_MAX = 3.0
LOOK_SECONDS = 0.05
# Some election timeouts of the slowest clock.
CUT_SECONDS = (1.0, 2.5)
# Until the leader has stepped down, another is elected, and two entries are on a majority.
JOINT_CUT_SECONDS = (2.0, 4.0)


@dataclass(slots=True)
class _Reign:
    """One leader in one term."""

    term: Term
    commit: Index  # at its beginning
    awaits_majority: bool  # for an entry of an older term


class AimedFaults:
    """See the module docstring."""

    def __init__(self, cluster: Cluster, invariants: Invariants, network: NetworkFaults) -> None:
        self._cluster, self._world = cluster, cluster.world
        self._oracle = invariants.oracle
        self._network = network
        self.reached: Counter[str] = Counter()
        self.is_over = False
        random = self._random = Random(cluster.world.seed + 3)
        # A cut through the members while a change of them is under way, and one that leaves each
        # of two configurations its majority.
        self._change_cut = random.choice((0.0, 0.4, 0.8))
        self._majority_cut = random.choice((0.0, 0.7, 1.0))
        # Or one that only the voter that leaves can win an election under.
        self._leaver_random = Random(cluster.world.seed + 7)
        self._leaver_cut = self._leaver_random.choice((0.5, 1.0))
        self._change_seen: Index = 0
        # New leaders that are alone with their first entry, one after the other, and one that
        # spreads what an older one left (paper fig. 8).
        self._alone = random.choice((0.0, 0.0, 0.15, 0.4))
        self._alone_count = 0
        self._old_entry_cut = random.choice((0.0, 0.5, 0.9))
        self._reigns: dict[NodeId, _Reign] = {}
        # Crashes amid a snapshot that is made or installed: a few operations of the disk.
        self._snapshot_random = Random(cluster.world.seed + 5)
        self._snapshot_crash = self._snapshot_random.choice((0.0, 0.1, 0.4))
        self._amid_a_snapshot: set[Machine] = set()

    def after_turn(self, machine: Machine, process: Process) -> None:
        """To be called after every turn of a node."""
        snapshots = process.node.snapshots
        if not snapshots.is_installing and not snapshots._is_making:
            self._amid_a_snapshot.discard(machine)
        elif machine not in self._amid_a_snapshot:
            self._amid_a_snapshot.add(machine)
            if self._snapshot_random.random() < self._snapshot_crash and not self.is_over:
                disk = machine.disk
                disk.crash_at(disk.op_count + self._snapshot_random.randint(1, 8))

    def after_turn_of_leader(self, machine: Machine, raft: RawNode) -> None:
        """To be called after every turn of a node that leads."""
        if self.is_over or raft.is_founding:
            return
        reign = self._reigns.get(raft.id)
        if reign is None or reign.term != raft.term:
            reign = self._reigns[raft.id] = self._begin_reign(machine, raft)
        if reign.awaits_majority:
            self._cut_over_an_old_entry(machine, raft, reign)
        if self._change_seen < raft.config_index > raft.commit_index:
            self._change_seen = raft.config_index
            self._cut_amid_a_change(raft)

    # ---- a change of members ----------------------------------------------------------------

    def _cut_amid_a_change(self, raft: RawNode) -> None:
        """The entry was just appended, and nobody else has it."""
        conf = raft.conf_state
        leaver = next((v for v in conf.voters_outgoing if v not in conf.voters), None)
        side = side_of_new_majority(conf, raft.id, self._random)
        drawn = self._random.random()
        if side is not None and drawn < self._majority_cut:
            self.reached["cut between two majorities"] += 1
            self._network.split(side, self._random.uniform(*JOINT_CUT_SECONDS))
        elif leaver is not None and self._leaver_random.random() < self._leaver_cut:
            self.reached["voter that leaves reaches all others alone"] += 1
            self._network.star(leaver, self._leaver_random.uniform(*JOINT_CUT_SECONDS))
        elif side is None and drawn < self._change_cut:
            self.reached["cut amid a change of members"] += 1
            self._network.split_near(raft.id, self._random)

    # ---- entries of old terms ---------------------------------------------------------------

    def _begin_reign(self, machine: Machine, raft: RawNode) -> _Reign:
        """Perhaps cut the new leader off, whose first entry is nowhere else yet.

        Then the next one, too: two logs end with different entries at one index. The third may
        bring its own, now old one to a majority.
        """
        is_alone = self._random.random() < (0.8 if self._alone_count == 1 else self._alone)
        if self._alone and self._alone_count < 2 and is_alone:
            self._alone_count += 1
            self.reached["leader cut off with its first entry"] += 1
            self._network.isolate(machine, self._random.uniform(*CUT_SECONDS))
        else:
            self._alone_count = 0
        has_old = raft.last_index - 1 > raft.commit_index
        awaits = has_old and self._random.random() < self._old_entry_cut
        return _Reign(raft.term, raft.commit_index, awaits)

    def _cut_over_an_old_entry(self, machine: Machine, raft: RawNode, reign: _Reign) -> None:
        """Cut a leader off when a majority holds an entry of an older term, and none of its own.

        Who has another one of a later term at its index may win now, and replace it.
        """
        leader = raft._raft.role
        assert isinstance(leader, Leader)
        index = raft._raft.quorum.agreed_value(lambda voter: leader.progress[voter].match)
        if index <= reign.commit:
            return
        reign.awaits_majority = False
        if raft.term_of(index) != raft.term:
            self.reached["leader cut off with an old entry on a majority"] += 1
            self._network.isolate(machine, self._random.uniform(*CUT_SECONDS))

    # ---- leaders that sleep -----------------------------------------------------------------

    def sleep_alone(self, leader: Machine) -> None:
        """A leader sleeps, and wakes up where nobody can tell it what it missed.

        That is once a client was told of a write that it does not know, or after a while.
        """
        process = leader.process
        if process is None or process.is_paused:
            return
        self.reached["leader that slept alone"] += 1
        self._cluster.pause(leader, SLEEP_SECONDS_MAX + 1.0)
        self._network.isolate(leader, SLEEP_SECONDS_MAX + self._random.uniform(0.1, 1.0))
        self._look(leader, process, self._world.now + SLEEP_SECONDS_MAX)

    def _look(self, machine: Machine, process: Process, until: float) -> None:
        if machine.process is not process or not process.is_paused:
            return
        core = process.node.core
        assert core is not None
        has_missed = self._oracle.acknowledged > core.store.revision
        if not has_missed and self._world.now < until:
            self._world.after(LOOK_SECONDS, lambda: self._look(machine, process, until))
            return
        self.reached["leader that slept through a write"] += has_missed
        self._cluster.resume(machine)
        self._read_there(machine, process)

    def _read_there(self, machine: Machine, process: Process) -> None:
        """A client reaches the leader just as it wakes up, and wants to know how things are."""
        oracle, query = self._oracle, Range()
        least = oracle.acknowledged

        def answered(answer: Answer) -> None:
            if machine.process is process:
                oracle.read_answered(query, least, answer)

        until = self._cluster.clock(machine) + 1.0
        self._cluster.request(
            machine,
            lambda rid: ReadRequest(rid, query, Consistency.LINEARIZABLE, 0, until),
            answered,
        )


def side_of_new_majority(conf: ConfState, leader: NodeId, random: Random) -> set[NodeId] | None:
    """Who is to be with the leader so that these have a majority of the new voters, and all others
    one of the old: two leaders, if one majority were enough. None if there is no such line.
    """
    new, old = set(conf.voters), set(conf.voters_outgoing)
    side = {leader, *(new - old)}
    both = sorted((new & old) - side)
    random.shuffle(both)
    while both and len(side & new) < majority(len(new)):
        side.add(both.pop())
    has_both = len(side & new) >= majority(len(new)) and len(old - side) >= majority(len(old))
    return side if old and has_both else None
