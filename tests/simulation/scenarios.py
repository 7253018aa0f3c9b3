"""Scenarios written by hand: what random schedules reach too rarely (reference faults 2, rule 1).

Each is a short script over the same simulated cluster, checked by the same invariants as a seed.
"""

from collections.abc import Callable
from functools import partial

from raftkv.kv.commands import Put, encode_command
from raftkv.node.events import (
    Answer,
    Bootstrapped,
    ConfigChangeRequest,
    Consistency,
    Event,
    Get,
    ReadRequest,
    ReadResult,
    TransferRequest,
    WriteRequest,
)
from raftkv.node.messages import ConfigChanged, RequestId
from raftkv.raft.confchange import AddLearner, ConfigChange, ReplaceMember
from raftkv.raft.messages import NodeId
from raftkv.raft.rawnode import RawNode
from raftkv.raft.roles import Role
from tests.simulation.checkers import InvariantError, Invariants
from tests.simulation.cluster import Climate, Cluster, Machine, member_of
from tests.simulation.network import Weather
from tests.simulation.world import World

STEP_SECONDS_MAX = 10.0


class Script:
    """A founded cluster in fair weather, and the verbs of a script."""

    def __init__(
        self, seed: int, size: int, climate: Climate | None = None, *, spare: int = 0
    ) -> None:
        """``spare`` machines more run, and belong to no cluster."""
        self.world = World(seed)
        # Every entry travels alone, so that a script can stop between two.
        climate = climate or Climate(Weather(), append_bytes_max=1)
        self.cluster = Cluster(self.world, size + spare, climate)
        self.voters, self.spares = self.cluster.machines[:size], self.cluster.machines[size:]
        self.invariants = Invariants(self.cluster)
        for machine in self.cluster.machines:
            self.cluster.start(machine)
        self.until(lambda: all(m.is_started for m in self.cluster.machines), "all to start")
        answers: list[Answer] = []
        self.cluster.found("c0ffee", answers.append, self.voters)
        self.until(lambda: bool(answers), "an answer to bootstrap")
        assert isinstance(answers[0], Bootstrapped)
        # 1@1 is the configuration, 2@2 the first entry of the first elected leader.
        self.until(lambda: all(self.raft(m).applied_index == 2 for m in self.voters), "calm")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let time pass until ``condition`` holds."""
        deadline = self.world.now + STEP_SECONDS_MAX
        while not condition():
            if self.world.now > deadline or not self.world.step():
                raise InvariantError(f"seed {self.world.seed}: waited in vain for {what}")

    def raft(self, machine: Machine) -> RawNode:
        """The machine's core; its process has recovered."""
        assert machine.process is not None
        assert machine.process.node.core is not None
        return machine.process.node.core.raft

    def look(self, machine: Machine) -> None:
        """Check the machine's node, which has recovered, though nothing happened to it."""
        process = machine.process
        assert process is not None
        assert process.node.core is not None
        self.invariants.look(process, process.node.core)

    def leader(self, among: list[Machine] | None = None) -> Machine | None:
        """A leader among these machines that have recovered, or all."""
        for machine in among or self.cluster.machines:
            if machine.is_started and self.raft(machine).role is Role.LEADER:
                return machine
        return None

    def elected(self, among: list[Machine]) -> Machine:
        """Wait for a leader among these machines."""
        self.until(lambda: self.leader(among) is not None, "a leader")
        leader = self.leader(among)
        assert leader is not None
        return leader

    def only_links(self, *groups: list[Machine]) -> None:
        """Let the machines of each group talk to each other, and to nobody else."""
        ids = [member_id(machine) for machine in self.cluster.machines]
        inside = {(member_id(a), member_id(b)) for group in groups for a in group for b in group}
        self.cluster.network.cut({(a, b) for a in ids for b in ids if a != b} - inside)

    def mute(self, machine: Machine, towards: list[Machine]) -> None:
        """The machine hears all, but is not heard by these."""
        self.cluster.network.cut({(member_id(machine), member_id(other)) for other in towards})

    def ask(self, machine: Machine, make: Callable[[RequestId, float], Event]) -> list[Answer]:
        """Give a request to the machine: its id and deadline; the list gets the answer."""
        answers: list[Answer] = []
        deadline = self.world.now + STEP_SECONDS_MAX / 2
        self.cluster.request(machine, lambda rid: make(rid, deadline), answers.append)
        return answers

    def answer(self, machine: Machine, make: Callable[[RequestId, float], Event]) -> Answer:
        """The same, and wait for the answer."""
        answers = self.ask(machine, make)
        self.until(lambda: bool(answers), "an answer")
        return answers[0]

    def change(
        self, machine: Machine, change: ConfigChange, config_index: int | None = None
    ) -> Answer:
        """The answer to a change of the membership, asked of the machine."""
        return self.answer(
            machine, lambda rid, until: ConfigChangeRequest(rid, change, config_index, until)
        )

    def transfer(self, machine: Machine, target: NodeId | None) -> Answer:
        """The answer to a transfer, asked of the machine."""
        return self.answer(machine, lambda rid, until: TransferRequest(rid, target, until))

    def write(self, machine: Machine) -> None:
        """Ask for a write there; the answer does not matter."""
        command = encode_command(Put(b"k", b"v"))
        deadline = self.world.now + STEP_SECONDS_MAX
        self.cluster.request(
            machine, lambda rid: WriteRequest(rid, command, deadline), lambda _answer: None
        )


def member_id(machine: Machine) -> NodeId:
    """The member id; the machine has recovered."""
    assert machine.member_id is not None
    return machine.member_id


def _any_ends_at(script: Script, machines: list[Machine], index: int) -> bool:
    return any(script.raft(machine).last_index == index for machine in machines)


def figure_8(seed: int) -> None:
    """An entry of an old term, held by a majority, may still be overwritten (paper fig. 8)."""
    script = Script(seed, size=5)
    cluster = script.cluster
    first = script.elected(cluster.machines)

    # The leader gets an entry to one other node only, and dies.
    second, third, fourth, fifth = (m for m in cluster.machines if m is not first)
    script.only_links([first, second], [third, fourth, fifth])
    index = script.raft(first).last_index + 1
    script.write(first)
    script.until(
        lambda: all(script.raft(m).durable_index == index for m in (first, second)),
        "the entry on two nodes",
    )
    cluster.kill(first)

    # Another leader gets an entry of its later term to its own disk only, and dies.
    other = script.elected([third, fourth, fifth])
    rest = [m for m in (third, fourth, fifth) if m is not other]
    script.only_links([first, second], rest)
    script.until(lambda: script.raft(other).durable_index == index, "an entry of the later term")
    cluster.kill(other)

    # A third leader spreads the first entry to a majority, and nothing of its own term.
    cluster.start(first)
    script.until(lambda: first.is_started, "the first to start")
    script.only_links([first, second, *rest])
    third_leader = script.elected([first, second, *rest])
    assert third_leader in (first, second), "only these two hold the entry"
    holders = [m for m in (first, second) if m is not third_leader]
    while len(holders) < 1 + len(rest):
        # Whoever has got it hears no more of this leader, but may still acknowledge.
        missing = [m for m in rest if m not in holders]
        script.until(partial(_any_ends_at, script, missing, index), "the entry on a majority")
        holders += [m for m in missing if script.raft(m).last_index == index]
        script.mute(third_leader, holders)
    script.until(
        lambda: all(script.raft(m).durable_index == index for m in rest), "it to be durable there"
    )
    later = script.world.now + 0.02
    script.until(lambda: script.world.now > later, "the last acknowledgements")
    cluster.kill(first)
    cluster.kill(second)

    # The leader with the later term comes back, wins, and overwrites it.
    script.only_links(cluster.machines)
    cluster.start(other)
    script.until(lambda: other.is_started, "the other to start")
    script.elected([other])
    for machine in (first, second):
        cluster.start(machine)
    script.until(
        lambda: (
            all(m.is_started for m in cluster.machines)
            and len({script.raft(m).applied_index for m in cluster.machines}) == 1
            and script.raft(first).applied_index > index
        ),
        "all to agree",
    )


def paused_leader(seed: int) -> None:
    """A leader that slept through its deposition must not answer a read (thesis 6.4)."""
    script = Script(seed, size=3)
    cluster = script.cluster
    old = script.elected(cluster.machines)
    others = [m for m in cluster.machines if m is not old]
    process = old.process
    assert process is not None
    process.is_paused = True
    script.only_links([old], others)
    new = script.elected(others)
    script.write(new)
    script.until(lambda: _revision(new) == 1, "the write")

    answers: list[Answer] = []
    deadline = script.world.now + 1.0
    cluster.request(
        old,
        lambda rid: ReadRequest(rid, Get(b"k"), Consistency.LINEARIZABLE, 0, deadline),
        answers.append,
    )
    cluster.resume(old)
    script.until(lambda: bool(answers), "an answer")
    if isinstance(answers[0], ReadResult):
        raise InvariantError(f"seed {seed}: I6: a deposed leader answered {answers[0]}")


def _revision(machine: Machine) -> int:
    assert machine.process is not None
    assert machine.process.node.core is not None
    return machine.process.node.core.store.revision


def learner_that_was_away(seed: int) -> None:
    """A new member that nobody reached before the log was compacted must still join (rule 15)."""
    climate = Climate(Weather(), append_bytes_max=1, log_bytes_max=1 << 8)
    script = Script(seed, size=3, climate=climate, spare=1)
    leader = script.elected(script.voters)
    (spare,) = script.spares
    script.only_links(script.voters, [spare])
    answer = script.change(leader, AddLearner(member_of(spare)))
    assert isinstance(answer, ConfigChanged), answer
    raft, added = script.raft(leader), answer.config_index
    while raft.first_index <= added + 1:
        written = raft.last_index + 1
        script.write(leader)
        script.until(partial(_has_applied, raft, written), "a write")

    script.only_links(script.cluster.machines)
    newcomer = script.raft(spare)
    script.until(lambda: newcomer.applied_index == raft.applied_index, "the learner to catch up")


def _amid_a_replacement(script: Script) -> tuple[Machine, Machine, Machine, Machine]:
    """A leader that just appended a joint configuration, who leaves, who stays, who comes."""
    leader = script.elected(script.voters)
    old, other = (machine for machine in script.voters if machine is not leader)
    (new,) = script.spares
    assert isinstance(script.change(leader, AddLearner(member_of(new))), ConfigChanged)
    newcomer, raft = script.raft(new), script.raft(leader)
    script.until(lambda: newcomer.applied_index == raft.last_index, "the learner to catch up")
    change = ReplaceMember(member_id(old), member_id(new))
    script.ask(leader, lambda rid, until: ConfigChangeRequest(rid, change, None, until))
    script.until(lambda: raft.conf_state.is_joint, "the joint configuration")
    return leader, old, other, new


def two_majorities(seed: int) -> None:
    """A leader with a majority of the new voters alone decides nothing (paper 6)."""
    script = Script(seed, size=3, spare=1)
    first, old, other, new = _amid_a_replacement(script)
    index = script.raft(first).config_index
    script.only_links([first, new], [old, other])
    second = script.elected([old, other])
    script.until(lambda: script.raft(second).commit_index >= index, "its first entry")
    assert script.raft(first).commit_index < index
    script.until(lambda: script.raft(first).role is not Role.LEADER, "the first to give up")

    script.only_links(script.cluster.machines)
    voters = script.voters
    script.until(lambda: all(script.raft(m).applied_index >= index for m in voters), "all to agree")
    assert not any(script.raft(machine).conf_state.is_joint for machine in voters)


def voter_that_leaves_leads(seed: int) -> None:
    """A voter that is replaced may be the only one who can win an election (thesis 4.2.2).

    It leads until the configuration without it is committed, and hands over then.
    """
    script = Script(seed, size=3, spare=1)
    leader, old, other, new = _amid_a_replacement(script)
    script.only_links([old, leader], [old, other], [old, new])
    script.elected([old])
    leaver = script.raft(old)
    script.until(lambda: leaver.id not in leaver.conf_state.ids, "it to leave the joint one")
    assert leaver.role is Role.LEADER, "nobody else was told of that yet"
    script.until(lambda: leaver.role is not Role.LEADER, "it to hand over")
    assert leaver.commit_index == leaver.config_index == leaver.last_index

    script.only_links(script.cluster.machines)
    stay = [leader, other, new]
    script.elected(stay)
    script.until(
        lambda: all(script.raft(m).applied_index > leaver.config_index for m in stay),
        "the others to go on",
    )


def _has_applied(raft: RawNode, index: int) -> bool:
    return raft.applied_index >= index


SCENARIOS: dict[str, Callable[[int], None]] = {
    "figure_8": figure_8,
    "learner_that_was_away": learner_that_was_away,
    "paused_leader": paused_leader,
    "two_majorities": two_majorities,
    "voter_that_leaves_leads": voter_that_leaves_leads,
}
