"""One simulated run: a seed decides cluster, faults and load; the checkers watch it.

Two modes in one run: first *safety* under everything the seed's climate holds, then *liveness*:
all machines come back, the network heals, lost members are replaced, and every client's operation
must end well, a leader must stand, and all replicas must reach the same state and stay there.
"""

import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import lmdb
import msgspec

from raftkv.kv.store import Store, StoreError
from raftkv.node.events import Answer, Bootstrapped, Effect
from raftkv.node.node import Core
from raftkv.raft.roles import Role
from raftkv.storage.disk import DiskError
from raftkv.storage.errors import StorageError
from tests.simulation.administrator import Administrator
from tests.simulation.analysts import Analysts
from tests.simulation.checkers import InvariantError, Invariants, check_history
from tests.simulation.cluster import Climate, Cluster, Machine
from tests.simulation.faults import Faults
from tests.simulation.followers import Followers
from tests.simulation.network import Weather
from tests.simulation.sessions import Sessions, check_tables
from tests.simulation.workload import Clients
from tests.simulation.world import World

CLIENTS = 4
SESSIONS = 2
FOLLOWERS = 3
ANALYSTS = 2
LMDB_EVERY = 10  # seeds that are a multiple of it run the real LMDB adapter
HEAL_SECONDS_MAX = 60.0
LEADER_SECONDS_MAX = 10.0  # some ten election timeouts, of the slowest clock
STABLE_SECONDS = 2.0
CHECKPOINT_SECONDS = 5.0


# What a run may end with: a checker's or the product's own assertion, or an error that nobody
# expected.
BROKEN: Final = (
    AssertionError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    DiskError,
    StorageError,
    StoreError,
    RuntimeError,
    OSError,
    lmdb.Error,
    msgspec.MsgspecError,
)


@dataclass(frozen=True)
class Length:
    """What a run holds at least, before it heals."""

    seconds: float  # of virtual time
    crashes: int
    operations: int


STANDARD: Final = Length(60.0, 3, 500)
SHORT: Final = Length(12.0, 1, 100)
LENGTHS: Final = {"standard": STANDARD, "short": SHORT}


@dataclass
class Report:
    """What a run did, for the person and for the reached-counters."""

    seed: int
    events: int = 0
    virtual_seconds: float = 0.0
    operations: int = 0
    elections: int = 0
    crashes: int = 0
    digest: str = ""
    reached: Counter[str] = field(default_factory=Counter)


def run(seed: int, length: Length = STANDARD) -> Report:
    """Run one seed. Raises `InvariantError`, with the end of the trace, when a promise breaks."""
    world = World(seed)
    with tempfile.TemporaryDirectory(prefix="raftkv-simulation-") as directory:
        lmdb_directory = Path(directory) if seed % LMDB_EVERY == 0 else None
        try:
            return _Run(world, length, lmdb_directory).run()
        except BROKEN as error:
            tail = "\n".join(world.recent[-50:])
            said = str(error) if isinstance(error, AssertionError) else repr(error)
            if not said:
                place = traceback.extract_tb(error.__traceback__)[-1]
                said = f"assertion in {place.name}: {place.line}"
            message = f"seed {seed}: {said}\nthe last lines of the trace:\n{tail}"
            raise InvariantError(message) from error


class _Run:
    def __init__(self, world: World, length: Length, lmdb_directory: Path | None) -> None:
        self.world = world
        self.length = length
        self.reached: Counter[str] = Counter()
        rng = world.rng
        size = rng.choices((1, 2, 3, 5), (5, 5, 70, 20))[0]
        # In some seeds the members change; two machines more take part then.
        self.has_changes = size > 1 and world.seed % 2 == 1
        spare = 2 if self.has_changes else 0
        self.cluster = Cluster(world, size + spare, self._draw_climate(), lmdb_directory)
        self.founders = self.cluster.machines[:size]
        self.administrator = Administrator(self.cluster)
        # Members that are lost are replaced; in some seeds nothing else changes.
        self.administrator.repairs_only = rng.random() < 0.2
        self.invariants = Invariants(self.cluster)
        oracle = self.oracle = self.invariants.oracle
        self.clients = Clients(self.cluster, oracle, CLIENTS)
        self.sessions = Sessions(self.cluster, oracle, SESSIONS)
        self.analysts = Analysts(self.cluster, oracle, ANALYSTS)
        self.followers = Followers(self.cluster, oracle, FOLLOWERS)
        self.faults = Faults(self.cluster, self.invariants, can_replace=self.has_changes)
        self.cluster.on_turn = self._after_turn
        if lmdb_directory is not None:
            self.reached["LMDB"] += 1

    def _draw_climate(self) -> Climate:
        rng = self.world.rng
        rough = self.world.chance(0.5)
        weather = Weather(
            loss=rng.uniform(0.0, rng.choice((0.1, 0.3))) if rough else 0.0,
            duplicate=rng.uniform(0.0, rng.choice((0.2, 0.5))) if self.world.chance(0.5) else 0.0,
            delay_max_seconds=rng.choice((0.001, 0.005, 0.03, 0.1)),
            clog=rng.uniform(0.0, 0.02) if rough else 0.0,
            ancient=rng.choice((0.0, 0.0, 0.01, 0.1)),
        )
        return Climate(
            weather,
            disk_seconds_max=rng.choice((0.0005, 0.002, 0.02)),
            disk_stall=0.002 if self.world.chance(0.3) else 0.0,
            tick_skew=rng.choice((0.0, 0.1, 0.5)),
            clock_skew=rng.choice((0.0, 0.001, 0.1)),
            append_bytes_max=rng.choice((1, 1 << 20)),
            snapshot_bytes_min=rng.choice((1 << 12, 1 << 14, 1 << 40)),
            log_bytes_max=rng.choice((1 << 8, 1 << 12, 1 << 40)),
        )

    def _after_turn(self, machine: Machine, effects: list[Effect]) -> None:
        self.invariants.after_turn(machine, effects)
        self.faults.after_turn(machine, effects)

    # ---- phases -----------------------------------------------------------------------------

    def run(self) -> Report:
        self._found()
        self.clients.start()
        self.sessions.start()
        self.analysts.start()
        if self.has_changes:
            self.administrator.start()
        self.followers.start()
        self.faults.start()
        self.world.after(CHECKPOINT_SECONDS, self._checkpoint)
        self.world.run_until(self.length.seconds)
        while not self._is_long_enough():
            self.world.step()
        self._heal()
        check_history(self.clients.history)
        self.oracle.check()
        for store in self._stores():
            self.sessions.check(store)
            self.followers.check(store)
            self.oracle.check_store(store)
        self.administrator.check(self._members()[0].raft.conf_state)
        return self._report()

    @property
    def _operations(self) -> int:
        clients = len(self.clients.history)
        return clients + self.sessions.done_count + self.analysts.done_count

    def _is_long_enough(self) -> bool:
        world, length = self.world, self.length
        is_enough = (
            self.faults.crash_count >= length.crashes and self._operations >= length.operations
        )
        # In some seeds hardly anything can be done; they end, too.
        return is_enough or world.now > 4 * length.seconds

    def _report(self) -> Report:
        for machine in self.cluster.machines:
            if machine.process is not None:
                self.cluster.note_reached(machine.process)
        reached = sum(
            (
                self.cluster.reached,
                self.oracle.reached,
                self.invariants.reached,
                self.faults.reached,
                self.faults.aimed.reached,
                self.faults.network.reached,
                self.sessions.reached,
                self.administrator.reached,
                self.analysts.reached,
                self.followers.reached,
            ),
            start=self.reached,
        )
        return Report(
            seed=self.world.seed,
            events=self.world.events,
            virtual_seconds=self.world.now,
            operations=self._operations,
            elections=self.invariants.elections,
            crashes=self.faults.crash_count,
            digest=self.world.digest(),
            reached=reached,
        )

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

    def _checkpoint(self) -> None:
        """What is too much for every step: tables, bounds, and the state itself."""
        self.faults.settle_harm()
        for machine in self.cluster.machines:
            self.invariants.check_bounds(machine)
        for core in self._running():
            check_tables(core.store)
            if core.store.applied_index == self.oracle.applied_index:
                self.oracle.check_store(core.store)
                self.reached["state compared with the model"] += 1
                break
        self.world.after(CHECKPOINT_SECONDS, self._checkpoint)

    def _heal(self) -> None:
        climate = self.cluster.climate
        self.cluster.climate = Climate(
            Weather(),
            clock_skew=climate.clock_skew,
            append_bytes_max=climate.append_bytes_max,
            snapshot_bytes_min=climate.snapshot_bytes_min,
            log_bytes_max=climate.log_bytes_max,
        )
        self.world.trace("all is healed")
        self.clients.is_stopping = self.sessions.is_stopping = True
        self.administrator.is_stopping = self.analysts.is_stopping = True
        self.faults.end()
        self._until(
            lambda: any(core.raft.role is Role.LEADER for core in self._members()),
            "a leader",
            LEADER_SECONDS_MAX,
        )
        self._until(
            lambda: (
                self.clients.are_done
                and self.sessions.are_done
                and self.analysts.are_done
                and (self.administrator.is_done or not self.has_changes)
            ),
            "all clients to finish",
        )
        self._until(self._is_converged, "one leader, and all replicas alike")
        terms = [core.raft.term for core in self._members()]
        until = self.world.now + STABLE_SECONDS
        self._until(lambda: self.world.now > until, "time to pass")
        assert terms == [core.raft.term for core in self._members()], "I13: a term in calm weather"
        # Both at once: while the one is waited for, a lease may end.
        self._until(
            lambda: (
                self.followers.have_reached(self._stores()[0].revision) and self._is_converged()
            ),
            "all replicas to be alike again, and all watchers to be told",
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

    def _running(self) -> list[Core]:
        running = [m.process.node.core for m in self.cluster.machines if m.process is not None]
        return [core for core in running if core is not None]

    def _members(self) -> list[Core]:
        """The nodes that the newest committed configuration lists, of those that run.

        Not the newest in any log: a learner may hold one that nobody else ever heard of.
        """
        cores = self._running()
        if not cores:
            return []
        most_committed = max(cores, key=lambda core: core.raft.commit_index).raft
        _, conf = most_committed.conf_at(most_committed.commit_index)
        return [core for core in cores if core.raft.id in conf.ids]

    def _until(
        self, condition: Callable[[], bool], what: str, seconds: float = HEAL_SECONDS_MAX
    ) -> None:
        deadline = self.world.now + seconds
        while not condition():
            if self.world.now > deadline or not self.world.step():
                raise InvariantError(f"I13: waited {seconds:.0f} s in vain for {what}")

    def _stores(self) -> list[Store]:
        return [core.store for core in self._members()]
