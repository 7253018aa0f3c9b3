"""A simulated administrator: moves leadership, adds, promotes, replaces and removes members.

It asks any node, at any time, and believes only what it is told: a machine whose removal was
confirmed is wiped and comes back as a new member, or keeps its disk and comes back as the old one.
What the answers were worth is checked at the end against the configuration that all agree on (I9):
what was confirmed has happened, and what was refused has not.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random

from raftkv.node.events import Answer, ConfigChangeRequest, TransferRequest
from raftkv.node.messages import ConfigChanged, Failure, FailureCode, Transferred
from raftkv.raft.confchange import (
    AddLearner,
    ConfigChange,
    PromoteLearner,
    RemoveMember,
    ReplaceMember,
)
from raftkv.raft.messages import ConfState, NodeId
from tests.simulation.cluster import Cluster, Machine, Process, member_of

TIMEOUT_SECONDS = 2.0
PAUSE_SECONDS_MAX = 6.0


class Administrator:
    """One that does one thing after the other."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self._random = Random(cluster.world.seed + 1)  # its own: it draws no weather
        self.is_stopping = False
        self.is_done = False
        self.repairs_only = False  # what is lost is replaced, and no more
        self.reached: Counter[str] = Counter()
        # For every id that was asked to be added or removed: whether it is a member, by the last
        # answer that was certain; and what it may have become since by orders of unknown outcome.
        self._is_member: dict[NodeId, bool] = {}
        self._may_be: defaultdict[NodeId, set[bool]] = defaultdict(set)

    def start(self) -> None:
        """Begin."""
        self._pause()

    def _pause(self) -> None:
        pause_max = 1.0 if self._random.random() < 0.7 else PAUSE_SECONDS_MAX
        self._world.after(self._random.uniform(0.05, pause_max), self._next)

    def _next(self) -> None:
        alive = [machine for machine in self._cluster.machines if machine.is_started]
        conf = self._conf(alive)
        if self.is_stopping and conf is not None and not self._lost(conf):
            self.is_done = True
            return
        if conf is None:
            self._pause()
            return
        asked = self._whom_to_ask(alive, conf)
        if self._lost(conf) and (self.is_stopping or self._random.random() < 0.7):
            self._change(asked, self._repair(conf))
        elif self.repairs_only or self.is_stopping:
            self._pause()
        elif self._random.random() < 0.3:
            self._transfer(asked, conf)
        else:
            self._change(asked, self._random.choice(self._changes(conf)))

    def _whom_to_ask(self, alive: list[Machine], conf: ConfState) -> Machine:
        """A member, but now and then a machine that belongs to no cluster."""
        members = [machine for machine in alive if machine.member_id in conf.ids]
        is_choosy = self._random.random() < 0.9
        return self._random.choice(members if members and is_choosy else alive)

    def _lost(self, conf: ConfState) -> list[NodeId]:
        """Members whose disk is no more: no machine will come back as one of them."""
        present = {machine.member_id for machine in self._cluster.machines}
        starting = any(machine.member_id is None for machine in self._cluster.machines)
        return [] if starting else [m for m in conf.ids if m not in present]

    def _repair(self, conf: ConfState) -> ConfigChange:
        """The next step to replace one of them."""
        lost = self._random.choice(self._lost(conf))
        learners = [learner for learner in conf.learners if learner not in self._lost(conf)]
        if lost not in conf.voters:
            return RemoveMember(lost)
        if learners:
            return ReplaceMember(lost, self._random.choice(learners))
        new = [m for m in self._cluster.machines if m.is_started and self._is_new(m, conf)]
        if not new:
            return RemoveMember(lost)
        return AddLearner(member_of(self._random.choice(new)))

    def _is_new(self, machine: Machine, conf: ConfState) -> bool:
        return machine.member_id not in (*conf.ids, *conf.removed)

    def _conf(self, alive: list[Machine]) -> ConfState | None:
        """What the node with the newest log says the configuration is: mostly the leader's.

        Not the newest of all configurations: a learner may hold one that nobody else ever heard of.
        """
        known = []
        for machine in alive:
            assert machine.process is not None
            assert machine.process.node.core is not None
            raft = machine.process.node.core.raft
            if raft.conf_state.members:
                known.append(((raft.last_term, raft.last_index), raft.conf_state))
        return max(known, key=lambda found: found[0])[1] if known else None

    # ---- transfers --------------------------------------------------------------------------

    def _transfer(self, asked: Machine, conf: ConfState) -> None:
        target = self._random.choice((None, *conf.voters))
        self._ask(
            asked,
            lambda rid, until: TransferRequest(rid, target, until),
            lambda answer: self._transferred(target, answer),
        )

    def _transferred(self, target: NodeId | None, answer: Answer | None) -> None:
        if isinstance(answer, Transferred):
            assert target in (None, answer.leader), "another leads than was asked for"
            self.reached["leadership transferred"] += 1

    # ---- members ----------------------------------------------------------------------------

    def _change(self, asked: Machine, change: ConfigChange) -> None:
        for member_id, joins in _concerned(change):
            self._is_member.setdefault(member_id, not joins)
        self._ask(
            asked,
            lambda rid, until: ConfigChangeRequest(rid, change, None, until),
            lambda answer: self._changed(change, answer),
        )

    def _changes(self, conf: ConfState) -> list[ConfigChange]:
        changes: list[ConfigChange] = [RemoveMember(self._random.choice(conf.ids))]
        for machine in self._cluster.machines:
            is_auto = self._random.random() < 0.5
            if machine.is_started and self._is_new(machine, conf):
                changes += [AddLearner(member_of(machine), is_auto)] * 3
            elif machine.is_started and machine.member_id in conf.removed:
                changes.append(AddLearner(member_of(machine), is_auto, rejoins=True))
        for learner in conf.learners:
            changes += [PromoteLearner(learner)] * 6
            changes += [ReplaceMember(self._random.choice(conf.voters), learner)] * 8
        return changes

    def _changed(self, change: ConfigChange, answer: Answer | None) -> None:
        if isinstance(answer, ConfigChanged):
            is_back = isinstance(change, AddLearner) and change.rejoins
            name = "return of a removed member" if is_back else type(change).__name__
            self.reached[f"confirmed {name}"] += 1
            for member_id, joins in _concerned(change):
                self._is_member[member_id] = joins
                # Else it stays as it is, and may come back with its disk (adr 7).
                if not joins and self._random.random() < 0.6:
                    self._wipe(member_id)
        elif not isinstance(answer, Failure) or answer.code is FailureCode.UNKNOWN:
            # Perhaps now, perhaps later: a node that sleeps may hold it yet.
            for member_id, joins in _concerned(change):
                self._may_be[member_id].add(joins)

    def _wipe(self, member_id: NodeId) -> None:
        """The machine of who left gets an empty disk, hence a new id."""
        for machine in self._cluster.machines:
            if machine.member_id == member_id:
                if machine.process is not None:
                    self._cluster.kill(machine)
                self._cluster.wipe(machine)
                self._cluster.start(machine)
                self.reached["machine wiped"] += 1

    # ---- asking -----------------------------------------------------------------------------

    def _ask(
        self,
        machine: Machine,
        make: Callable[[int, float], ConfigChangeRequest | TransferRequest],
        answered: Callable[[Answer | None], None],
    ) -> None:
        process = machine.process
        assert process is not None
        until = self._world.now + TIMEOUT_SECONDS
        deadline = self._cluster.clock(machine) + TIMEOUT_SECONDS
        over = False

        def finish(answer: Answer | None) -> None:
            nonlocal over
            if not over and (answer is None or machine.process is process):
                over = True
                answered(answer)
                self._pause()

        self._cluster.request(machine, lambda rid: make(rid, deadline), finish)
        self._watch(machine, process, until + 0.3, finish)

    def _watch(
        self,
        machine: Machine,
        process: Process,
        until: float,
        finish: Callable[[Answer | None], None],
    ) -> None:
        """No answer comes from a process that died, or paused for long."""

        def look() -> None:
            if machine.process is not process or self._world.now > until:
                finish(None)
            else:
                self._world.after(0.1, look)

        self._world.after(0.1, look)

    # ---- in the end -------------------------------------------------------------------------

    def check(self, conf: ConfState) -> None:
        """Compare what was told with the configuration in the end."""
        for member_id, is_member in self._is_member.items():
            known = "a member" if is_member else "no member"
            is_one = member_id in conf.ids
            is_possible = is_one == is_member or is_one in self._may_be[member_id]
            assert is_possible, f"I9: by all answers {member_id:x} is {known}, and it is not so"


def _concerned(change: ConfigChange) -> list[tuple[NodeId, bool]]:
    """Who becomes a member (True) or ceases to be one by a change."""
    match change:
        case AddLearner(member=member):
            return [(member.id, True)]
        case RemoveMember(id=member_id):
            return [(member_id, False)]
        case ReplaceMember(old=member_id):
            return [(member_id, False)]
        case _:
            return []
