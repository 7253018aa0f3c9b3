"""A simulated administrator: moves leadership, adds, promotes, replaces and removes members.

It asks any node, at any time, and believes only what it is told: a machine whose removal was
confirmed is wiped and comes back as a new member. What the answers were worth is checked at the
end against the configuration that all agree on (I9): what was confirmed has happened, and what was
refused has not.
"""

from collections import Counter
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
        # For every id that was asked to be added or removed: what the answers said at most.
        self._added: dict[NodeId, str] = {}
        self._removed: dict[NodeId, str] = {}

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
        asked = self._random.choice(alive)
        if self._lost(conf) and (self.is_stopping or self._random.random() < 0.7):
            self._change(asked, self._repair(conf))
        elif self.repairs_only or self.is_stopping:
            self._pause()
        elif self._random.random() < 0.3:
            self._transfer(asked, conf)
        else:
            self._change(asked, self._random.choice(self._changes(conf)))

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
        """What some node says the configuration is; a person would look at the leader's."""
        known = []
        for machine in alive:
            assert machine.process is not None
            assert machine.process.node.core is not None
            raft = machine.process.node.core.raft
            if raft.conf_state.members:
                known.append((raft.config_index, raft.conf_state))
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
        self._note(change, "asked")
        self._ask(
            asked,
            lambda rid, until: ConfigChangeRequest(rid, change, None, until),
            lambda answer: self._changed(change, answer),
        )

    def _changes(self, conf: ConfState) -> list[ConfigChange]:
        changes: list[ConfigChange] = [RemoveMember(self._random.choice(conf.ids))]
        for machine in self._cluster.machines:
            if machine.is_started and self._is_new(machine, conf):
                is_auto = self._random.random() < 0.5
                changes += [AddLearner(member_of(machine), is_auto)] * 3
        for learner in conf.learners:
            changes.append(PromoteLearner(learner))
            changes += [ReplaceMember(self._random.choice(conf.voters), learner)] * 2
        return changes

    def _changed(self, change: ConfigChange, answer: Answer | None) -> None:
        if isinstance(answer, ConfigChanged):
            self.reached[f"confirmed {type(change).__name__}"] += 1
            self._note(change, "confirmed")
            for member_id in _leaving(change):
                self._wipe(member_id)
        elif isinstance(answer, Failure) and answer.code is not FailureCode.UNKNOWN:
            self._note(change, "refused")
        else:
            self._note(change, "unknown")

    def _note(self, change: ConfigChange, what: str) -> None:
        """Keep the strongest that was said: refusals say nothing of an attempt before."""
        strength = ("refused", "asked", "unknown", "confirmed")
        ids = [(self._removed, member_id) for member_id in _leaving(change)]
        if isinstance(change, AddLearner):
            ids.append((self._added, change.member.id))
        for book, member_id in ids:
            known = book.get(member_id, "refused")
            if (what == "refused" and known == "asked") or strength.index(what) > strength.index(
                known
            ):
                book[member_id] = what

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
        for member_id, said in self._added.items():
            was_added = member_id in conf.ids or member_id in conf.removed
            assert was_added or said != "confirmed", f"I9: {member_id:x} was added and is lost"
            assert not was_added or said != "refused", f"I9: {member_id:x} was refused and is there"
        for member_id, said in self._removed.items():
            has_left = member_id in conf.removed
            assert has_left or said != "confirmed", f"I9: {member_id:x} was removed and is there"
            assert not has_left or said != "refused", f"I9: {member_id:x} left, after a refusal"


def _leaving(change: ConfigChange) -> tuple[NodeId, ...]:
    match change:
        case RemoveMember(id=member_id):
            return (member_id,)
        case ReplaceMember(old=member_id):
            return (member_id,)
        case _:
            return ()
