"""One simulated run: a seed decides cluster, faults and load; the checkers watch it.

Two modes in one run: first *safety* under everything the seed's climate holds, then *liveness*:
all machines come back, the network heals, and every client's operation must end well, a leader
must stand, and all replicas must reach the same state.
"""

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from raftkv.kv.store import Store
from raftkv.node.events import Answer, Bootstrapped, Effect
from raftkv.node.node import Core
from raftkv.raft.messages import NodeId
from raftkv.raft.roles import Role
from tests.simulation.administrator import Administrator
from tests.simulation.checkers import InvariantError, Invariants, check_history
from tests.simulation.cluster import Climate, Cluster, Machine
from tests.simulation.followers import Followers
from tests.simulation.network import Weather
from tests.simulation.sessions import Sessions
from tests.simulation.workload import Clients
from tests.simulation.world import World

CLIENTS = 4
SESSIONS = 2
FOLLOWERS = 2
LMDB_EVERY = 10  # seeds that are a multiple of it run the real LMDB adapter
HEAL_SECONDS_MAX = 30.0


@dataclass
class Report:
    """What a run did, for the person and for the reached-counters."""

    seed: int
    events: int = 0
    virtual_seconds: float = 0.0
    operations: int = 0
    elections: int = 0
    digest: str = ""
    reached: Counter[str] = field(default_factory=Counter)


def run(seed: int, events_max: int) -> Report:
    """Run one seed. Raises `InvariantError`, with the end of the trace, when a promise breaks."""
    world = World(seed)
    with tempfile.TemporaryDirectory(prefix="raftkv-simulation-") as directory:
        lmdb_directory = Path(directory) if seed % LMDB_EVERY == 0 else None
        try:
            return _Run(world, events_max, lmdb_directory).run()
        except AssertionError as error:
            tail = "\n".join(world.recent[-50:])
            message = f"seed {seed}: {error}\nthe last lines of the trace:\n{tail}"
            raise InvariantError(message) from error


class _Run:
    def __init__(self, world: World, events_max: int, lmdb_directory: Path | None) -> None:
        self.world = world
        self.events_max = events_max
        self.reached: Counter[str] = Counter()
        rng = world.rng
        size = rng.choices((1, 2, 3, 5), (5, 5, 70, 20))[0]
        # In some seeds the members change; two machines more take part then.
        self.has_changes = size > 1 and world.seed % 2 == 1
        spare = 2 if self.has_changes else 0
        self.cluster = Cluster(world, size + spare, self._draw_climate(), lmdb_directory)
        self.founders = self.cluster.machines[:size]
        self.administrator = Administrator(self.cluster)
        self.invariants = Invariants(self.cluster)
        self.clients = Clients(self.cluster, CLIENTS)
        self.sessions = Sessions(self.cluster, SESSIONS)
        self.followers = Followers(
            self.cluster, FOLLOWERS, lambda: self.sessions.acknowledged_revision
        )
        faults = [self._kill, self._lose_power, self._pause, self._partition, self._kill_all]
        # Swarm testing: each seed leaves some kinds of faults out, so that others get further.
        self.faults = [fault for fault in faults if world.chance(0.6)]
        if lmdb_directory is not None:
            self.reached["LMDB"] += 1
        self.fault_seconds_max = rng.choice((0.3, 1.0, 3.0))
        # Crashes while votes are on their way: where a lost vote or a lost tail does its harm.
        self.election_crash = rng.choice((0.0, 0.2, 0.8))
        self.cluster.on_role_changed = self._crash_around_election
        # And in each turn of a leader that has not committed in its term yet.
        self.fragile_leaders = rng.choice((0.0, 0.0, 0.15))
        self.cluster.on_turn = self._after_turn

    def _draw_climate(self) -> Climate:
        rng = self.world.rng
        rough = self.world.chance(0.5)
        weather = Weather(
            loss=rng.uniform(0.0, 0.2) if rough else 0.0,
            duplicate=rng.uniform(0.0, 0.2) if self.world.chance(0.5) else 0.0,
            delay_max_seconds=rng.choice((0.001, 0.005, 0.03, 0.1)),
            clog=rng.uniform(0.0, 0.02) if rough else 0.0,
        )
        return Climate(
            weather,
            disk_seconds_max=rng.choice((0.0005, 0.002, 0.02)),
            disk_stall=0.002 if self.world.chance(0.3) else 0.0,
            tick_skew=rng.choice((0.0, 0.1, 0.5)),
            append_bytes_max=rng.choice((1, 1 << 20)),
            snapshot_bytes_min=rng.choice((1 << 12, 1 << 14, 1 << 40)),
            log_bytes_max=rng.choice((1 << 8, 1 << 12, 1 << 40)),
        )

    # ---- phases -----------------------------------------------------------------------------

    def run(self) -> Report:
        self._found()
        self.clients.start()
        self.sessions.start()
        if self.has_changes:
            self.administrator.start()
        self.followers.start()
        self.world.after(1.0, self._next_fault)
        while self.world.events < self.events_max:
            self.world.step()
            self._fail_on_stopped()
        self._heal()
        check_history(self.clients.history)
        for store in self._stores():
            self.sessions.check(store)
            self.followers.check(store)
        self.administrator.check(self._members()[0].raft.conf_state)
        return Report(
            seed=self.world.seed,
            events=self.world.events,
            virtual_seconds=self.world.now,
            operations=len(self.clients.history) + self.sessions.done_count,
            elections=self.invariants.elections,
            digest=self.world.digest(),
            reached=self.reached
            + self.sessions.reached
            + self.administrator.reached
            + self.followers.reached
            + self._reached_by_nodes(),
        )

    def _reached_by_nodes(self) -> Counter[str]:
        """Rare paths inside the nodes, of the lives that are still running."""
        reached: Counter[str] = Counter()
        for machine in self.cluster.machines:
            assert machine.process is not None
            snapshots = machine.process.node.snapshots
            reached["snapshot made"] += snapshots.made_count
            reached["snapshot installed"] += snapshots.installed_count
        return reached

    def _found(self) -> None:
        for machine in self.cluster.machines:
            self.cluster.start(machine)
        self._until(
            lambda: all(machine.is_started for machine in self.cluster.machines),
            "all nodes to start",
        )
        answers: list[Answer] = []
        while not answers:
            self._call_bootstrap(answers)
        assert isinstance(answers[0], Bootstrapped), answers[0]

    def _call_bootstrap(self, answers: list[Answer]) -> None:
        """Make the call, and wait until it is answered or the founder dies over it."""
        first = self.cluster.machines[0]
        self._until(lambda: first.is_started, "the founder to start")
        process = first.process
        self.cluster.found("c0ffee", answers.append, self.founders)
        self._until(lambda: bool(answers) or first.process is not process, "an answer to bootstrap")

    def _heal(self) -> None:
        self.faults = []
        self.cluster.network.weather = Weather()
        climate = self.cluster.climate
        self.cluster.climate = Climate(
            Weather(),
            append_bytes_max=climate.append_bytes_max,
            snapshot_bytes_min=climate.snapshot_bytes_min,
            log_bytes_max=climate.log_bytes_max,
        )
        self.cluster.network.cut(set())
        self.clients.is_stopping = self.sessions.is_stopping = True
        self.administrator.is_stopping = True
        for machine in self.cluster.machines:
            if machine.process is None:
                self.cluster.start(machine)
        self._until(
            lambda: (
                self.clients.are_done
                and self.sessions.are_done
                and (self.administrator.is_done or not self.has_changes)
            ),
            "all clients to finish",
        )
        self._until(self._is_converged, "one leader, and all replicas alike")
        self._until(
            lambda: self.followers.have_reached(self._stores()[0].revision),
            "all watchers to be told",
        )

    def _is_converged(self) -> bool:
        cores = self._members()
        leaders = [core.raft for core in cores if core.raft.role is Role.LEADER]
        states = {(core.store.applied_index, core.store.chain_hash) for core in cores}
        return (
            len(leaders) == 1
            and len(cores) == len(leaders[0].conf_state.members)
            and len(states) == 1
            and leaders[0].applied_index == leaders[0].last_index
            and not leaders[0].conf_state.is_joint
            and all(core.raft.leader_id == leaders[0].id for core in cores)
        )

    def _members(self) -> list[Core]:
        """The nodes that the newest committed configuration lists, of those that run.

        Not the newest in any log: a learner may hold one that nobody else ever heard of.
        """
        running = [m.process.node.core for m in self.cluster.machines if m.process is not None]
        cores = [core for core in running if core is not None]
        most_committed = max(cores, key=lambda core: core.raft.commit_index).raft
        _, conf = most_committed.conf_at(most_committed.commit_index)
        return [core for core in cores if core.raft.id in conf.ids]

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = self.world.now + HEAL_SECONDS_MAX
        while not condition():
            if self.world.now > deadline or not self.world.step():
                raise InvariantError(f"I13: waited {HEAL_SECONDS_MAX:.0f} s in vain for {what}")
            self._fail_on_stopped()

    def _stores(self) -> list[Store]:
        return [core.store for core in self._members()]

    # ---- faults -----------------------------------------------------------------------------

    def _next_fault(self) -> None:
        if self.faults:
            self.world.rng.choice(self.faults)()
        pause = self.world.rng.uniform(0.1, 1.0) * self.fault_seconds_max
        self.world.after(pause, self._next_fault)

    def _crash_around_election(self, machine: Machine) -> None:
        """Crash a node, rather a leader, while the messages of a role change are on their way."""
        probability = self.election_crash if self._leads(machine) else self.election_crash / 8
        if not self.faults or not self.world.chance(probability):
            return
        rng = self.world.rng
        victim = machine if self.world.chance(0.8) else rng.choice(self.cluster.machines)

        # A few message delays: some of the new leader's messages arrive, some are never sent.
        delays = 4 * self.cluster.climate.weather.delay_max_seconds
        self.world.after(rng.uniform(0.0, 0.01 + delays), partial(self._crash_briefly, victim))

    def _after_turn(self, machine: Machine, effects: list[Effect]) -> None:
        self.invariants.after_turn(machine, effects)
        if not self.faults or not self._leads(machine):
            return
        assert machine.process is not None
        core = machine.process.node.core
        assert core is not None
        # Leaders that die before their first entry is everywhere, one after the other, are what
        # the rule about commits of old terms exists for (paper fig. 8).
        has_committed = core.raft.term_of(core.raft.commit_index) == core.raft.term
        if not has_committed and self.world.chance(self.fragile_leaders):
            self.world.after(0.0, partial(self._crash_briefly, machine))

    def _crash_briefly(self, victim: Machine) -> None:
        if victim.process is None:
            return
        self.reached["crash around an election"] += 1
        if self.world.chance(0.5):
            self.cluster.kill(victim)
        else:
            self.cluster.lose_power(victim)
        down_seconds = self.world.rng.uniform(0.001, self.world.rng.choice((0.1, 1.5)))
        self.world.after(down_seconds, partial(self._restart, victim))

    def _restart(self, machine: Machine) -> None:
        if machine.process is None:
            self.cluster.start(machine)

    def _alive(self) -> list[Machine]:
        return [machine for machine in self.cluster.machines if machine.process is not None]

    def _victim(self) -> Machine | None:
        alive = self._alive()
        leaders = [m for m in alive if self._leads(m)]
        if leaders and self.world.chance(0.5):
            return leaders[0]
        return self.world.rng.choice(alive) if alive else None

    def _leads(self, machine: Machine) -> bool:
        core = None if machine.process is None else machine.process.node.core
        return core is not None and core.raft.role is Role.LEADER

    def _restart_later(self, machine: Machine) -> None:
        self.world.after(self.world.rng.uniform(0.01, 3.0), partial(self._restart, machine))

    def _kill(self) -> None:
        victim = self._victim()
        if victim is not None:
            self.reached["kill leader" if self._leads(victim) else "kill"] += 1
            self.cluster.kill(victim)
            self._restart_later(victim)

    def _lose_power(self) -> None:
        victim = self._victim()
        if victim is not None:
            self.reached["power loss"] += 1
            self.cluster.lose_power(victim)
            self._restart_later(victim)

    def _kill_all(self) -> None:
        if not self.world.chance(0.3):
            return
        self.reached["all down"] += 1
        for machine in self._alive():
            if self.world.chance(0.5):
                self.cluster.lose_power(machine)
            else:
                self.cluster.kill(machine)
            self._restart_later(machine)

    def _pause(self) -> None:
        victim = self._victim()
        if victim is not None:
            self.reached["pause"] += 1
            self.cluster.pause(victim, self.world.rng.uniform(0.3, 2.0))

    def _partition(self) -> None:
        ids = [m.member_id for m in self.cluster.machines if m.member_id is not None]
        if len(ids) < 2:
            return
        self.reached["partition"] += 1
        self.cluster.network.cut(self._draw_cut(ids))
        self.world.after(self.world.rng.uniform(0.2, 3.0), lambda: self.cluster.network.cut(set()))

    def _draw_cut(self, ids: list[NodeId]) -> set[tuple[NodeId, NodeId]]:
        rng = self.world.rng
        shape = rng.choice(("split", "isolate", "isolate", "one way", "bridge"))
        shuffled = rng.sample(ids, len(ids))
        leaders = [m.member_id for m in self._alive() if self._leads(m) and m.member_id]
        if leaders and self.world.chance(0.5):
            # Cut off the leader: it serves on for a moment, and another is elected.
            shuffled.remove(leaders[0])
            shuffled.insert(0, leaders[0])
        if shape == "one way":
            return {(shuffled[0], other) for other in shuffled[1:]}
        if shape == "bridge":
            return {(shuffled[0], shuffled[-1]), (shuffled[-1], shuffled[0])}
        size = 1 if shape == "isolate" else rng.randint(1, len(ids) - 1)
        side, rest = shuffled[:size], shuffled[size:]
        return {pair for a in side for b in rest for pair in ((a, b), (b, a))}

    def _fail_on_stopped(self) -> None:
        """No fault of this simulation is a reason for a node to give up."""
        for machine in self.cluster.machines:
            process = machine.process
            if process is not None and process.stopped is not None:
                raise InvariantError(f"{machine.name} stopped: {process.stopped}")
