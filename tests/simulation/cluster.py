"""Simulated processes: the real node class over a simulated disk, network and clock."""

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from typing_extensions import override

from raftkv.node.events import (
    Advanced,
    Answer,
    BootstrapRequest,
    Continue,
    DiskDone,
    Diverged,
    Effect,
    Event,
    PeersChanged,
    Reply,
    RoleChanged,
    Send,
    Stop,
    SubmitDisk,
    TellCommit,
    TellCommitSoon,
    Tick,
)
from raftkv.node.messages import RequestId
from raftkv.node.node import Node
from raftkv.node.settings import NodeSettings
from raftkv.raft.messages import Member, NodeId
from raftkv.storage.disk import DiskError, DiskOps, DiskResult
from raftkv.storage.recovery import Recovered
from tests.simulation.damage import Harm
from tests.simulation.disk import Crash, SimDisk
from tests.simulation.engines import SimulatedEngines, make_engines
from tests.simulation.network import Network, Weather
from tests.simulation.old_formats import older_version
from tests.simulation.world import World

TURN_SECONDS_MAX = 0.0003  # from an input to the loop turn that takes it
MIXED_EVERY = 7  # seeds of which one mixes versions


@dataclass(frozen=True)
class Climate:
    """What a seed makes difficult; a random subset of faults is switched off (swarm testing)."""

    weather: Weather
    disk_seconds_max: float = 0.002
    disk_stall: float = 0.0  # probability that a submission takes up to two seconds
    tick_skew: float = 0.0  # a node's ticks are up to this share faster or slower
    # A node's monotonic clock runs up to this share faster or slower, from another beginning in
    # each of its lives; 0: all clocks are the world's.
    clock_skew: float = 0.0
    append_bytes_max: int = 1 << 20  # tiny: every entry travels alone
    snapshot_bytes_min: int = 1 << 40  # tiny: a snapshot every few writes
    log_bytes_max: int = 1 << 40  # tiny: who lags at all needs a snapshot


class SimulatedNode(Node):
    """The node itself; only says more of its recovery."""

    recovered: Recovered | None = None

    @override
    def _on_recovered(self, recovered: Recovered) -> None:
        self.recovered = recovered
        super()._on_recovered(recovered)


@dataclass(eq=False)
class Process:
    """One life of a node; a restart makes a new one on the same disk."""

    node: SimulatedNode
    clock_offset_seconds: float = 0.0  # what its clock showed when the world began
    requests: dict[RequestId, Callable[[Answer], None]] = field(default_factory=dict)
    inbox: list[Event] = field(default_factory=list)
    is_turn_due: bool = False
    is_paused: bool = False
    stopped: str | None = None
    pending_disk: dict[int, SubmitDisk] = field(default_factory=dict)
    is_older: bool = False  # a version that writes its files as `old_formats` says
    news_told: int = 0  # how often it asked for a `TellCommit`; only the last one counts


class Machine:
    """A disk that survives its processes."""

    def __init__(self, name: str, tick_seconds: float, engines: SimulatedEngines) -> None:
        self.name = name
        self.tick_seconds = tick_seconds
        self.disk = SimDisk()
        self.engines = engines
        self.process: Process | None = None
        self.member_id: NodeId | None = None
        self.clock_rate = 1.0  # seconds of its clock in one second
        self.disk_seconds_max: float | None = None  # slower than the climate says
        # Submissions that wait for a disk that hangs; None: it does not.
        self.hung: list[Callable[[], None]] | None = None
        self.harm: Harm | None = None  # what was done to its disk behind its back
        self.ran_older = False  # its last life was of an older version

    @property
    def is_started(self) -> bool:
        """Whether a process runs here and has recovered."""
        return self.process is not None and self.process.node.is_started


class Cluster:
    """Machines, their network, and the hooks of the checkers."""

    def __init__(
        self, world: World, size: int, climate: Climate, lmdb_directory: Path | None = None
    ) -> None:
        """``lmdb_directory``: where the nodes keep their stores; None: in memory."""
        self.world = world
        self._lmdb_directory = lmdb_directory
        self.climate = climate
        self.network = Network(world, climate.weather)
        self.machines = [self._make_machine(number) for number in range(size)]
        # Called after every turn of a node, with the effects it returned.
        self.on_turn: Callable[[Machine, list[Effect]], None] = lambda _machine, _effects: None
        # Called after every effect of a turn, amid it; whether it ended the process.
        self.on_effect: Callable[[Machine], bool] = lambda _machine: False
        self.on_role_changed: Callable[[Machine], None] = lambda _machine: None
        self.on_recovered: Callable[[Machine], None] = lambda _machine: None
        # A node gave up, and its process will not do anything any more.
        self.on_stopped: Callable[[Machine, str], None] = lambda _machine, _reason: None
        # The process ended, or the machine went dark, within an operation of the disk.
        self.on_crash: Callable[[Machine], None] = self.kill
        self.reached: Counter[str] = Counter()  # rare paths inside the nodes
        self._request_id = 0
        self._wipe_count = 0
        # In some seeds machines are rolled up and down between two versions. Drawn apart, so that
        # the others are what they were without.
        is_mixed = world.seed % MIXED_EVERY == MIXED_EVERY - 2
        self._versions = Random(world.seed + 17) if is_mixed else None

    def _make_machine(self, number: int) -> Machine:
        skew = self.world.rng.uniform(-self.climate.tick_skew, self.climate.tick_skew)
        name = f"n{number + 1}"
        machine = Machine(name, 0.02 * (1 + skew), make_engines(self._lmdb_directory, name))
        clock_skew = self.climate.clock_skew
        if clock_skew:
            machine.clock_rate = 1 + self.world.rng.uniform(-clock_skew, clock_skew)
        return machine

    def clock(self, machine: Machine) -> float:
        """What the monotonic clock of the machine's process shows; it must be running."""
        process = machine.process
        assert process is not None
        return process.clock_offset_seconds + self.world.now * machine.clock_rate

    # ---- processes --------------------------------------------------------------------------

    def start(self, machine: Machine) -> None:
        """Start a process on the machine; it recovers what its disk holds."""
        assert machine.process is None
        settings = NodeSettings(
            name=machine.name,
            peer_url=f"{machine.name}:1",
            client_url=f"http://{machine.name}",
            version="simulated",
            segment_bytes=1 << 16,
            append_bytes_max=self.climate.append_bytes_max,
            snapshot_bytes_min=self.climate.snapshot_bytes_min,
            log_bytes_max=self.climate.log_bytes_max,
            check_invariants=True,
        )
        node = SimulatedNode(settings, machine.engines, self.world.rng)
        process = machine.process = Process(node)
        if self._versions is not None:
            process.is_older = self._versions.random() < 0.5
            if machine.ran_older != process.is_older:
                self.reached[f"rolled {'down' if process.is_older else 'up'}"] += 1
            machine.ran_older = process.is_older
        if self.climate.clock_skew:
            process.clock_offset_seconds = self.world.rng.uniform(0.0, 1e6)
        self.world.trace(f"{machine.name} start")
        with _version(process):
            for effect in node.start(self.clock(machine)):
                self._perform(machine, process, effect)
        self._tick(machine, process)

    def kill(self, machine: Machine) -> None:
        """SIGKILL: what was written stays, what was under way is cut somewhere."""
        self._end(machine)
        machine.disk.kill()
        self.world.trace(f"{machine.name} kill")

    def lose_power(self, machine: Machine) -> None:
        """Power loss: only what was synced is sure to stay."""
        self._end(machine)
        machine.disk.power_loss(self.world.rng)
        machine.engines.power_loss()
        self.world.trace(f"{machine.name} power loss")

    def wipe(self, machine: Machine) -> None:
        """The machine, which is down, gets an empty disk: it will be nobody yet."""
        assert machine.process is None
        self._wipe_count += 1
        machine.disk = SimDisk()
        engines = f"{machine.name}-{self._wipe_count}"
        machine.engines = make_engines(self._lmdb_directory, engines)
        machine.member_id = machine.harm = None
        self.world.trace(f"{machine.name} wipe")

    def pause(self, machine: Machine, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while: inputs pile up meanwhile."""
        process = machine.process
        if process is None or process.is_paused:
            return
        process.is_paused = True
        self.world.trace(f"{machine.name} pause")

        self.world.after(seconds, partial(self.resume, machine))

    def resume(self, machine: Machine) -> None:
        """SIGCONT: what piled up is taken."""
        process = machine.process
        if process is not None and process.is_paused:
            process.is_paused = False
            self._make_turn_due(machine, process)

    def _end(self, machine: Machine) -> None:
        process = machine.process
        assert process is not None
        machine.process = None
        machine.engines.kill()
        machine.disk.cancel_faults()
        machine.hung = None if machine.hung is None else []
        self.note_reached(process)
        # A submission under way got somewhere: any prefix of its operations happened.
        for submission in process.pending_disk.values():
            count = self.world.rng.randint(0, len(submission.ops))
            with contextlib.suppress(DiskError):
                machine.disk.perform(submission.ops[:count])
        if machine.member_id is not None:
            self.network.detach(machine.member_id)

    def note_reached(self, process: Process) -> None:
        """Count what the process lived through, at its end."""
        snapshots = process.node.snapshots
        self.reached["snapshot made"] += snapshots.made_count
        self.reached["snapshot installed"] += snapshots.installed_count

    # ---- turns ------------------------------------------------------------------------------

    def deliver(self, machine: Machine, process: Process, event: Event) -> None:
        """Put an input into the process's inbox; a turn follows, if anything follows from it."""
        if machine.process is process:
            process.inbox.append(event)
            if not process.node.may_wait(event):
                self._make_turn_due(machine, process)

    def request(
        self,
        machine: Machine,
        make: Callable[[RequestId], Event],
        answered: Callable[[Answer], None],
    ) -> RequestId:
        """Give a client's request to the machine's process, which must be running; its id."""
        process = machine.process
        assert process is not None
        self._request_id += 1
        process.requests[self._request_id] = answered
        self.deliver(machine, process, make(self._request_id))
        return self._request_id

    def _make_turn_due(self, machine: Machine, process: Process) -> None:
        if not process.is_turn_due and not process.is_paused:
            process.is_turn_due = True
            delay = self.world.rng.random() * TURN_SECONDS_MAX
            self.world.after(delay, partial(self._turn, machine, process))

    def _turn(self, machine: Machine, process: Process) -> None:
        process.is_turn_due = False
        if machine.process is not process or process.is_paused:
            return
        # Sockets are not read all at once: sometimes a turn sees only a part of what is there.
        taken = len(process.inbox)
        if taken > 1 and self.world.chance(0.1):
            taken = self.world.rng.randint(1, taken - 1)
        events, process.inbox = process.inbox[:taken], process.inbox[taken:]
        node = process.node
        was_started = node.core is not None
        effects: list[Effect] = []
        with _version(process):
            for effect in node.handle(events, self.clock(machine)):
                if not was_started and node.core is not None:
                    self._attach(machine, process)
                    was_started = True
                effects.append(effect)
                self._perform(machine, process, effect)
                if self.on_effect(machine):
                    return
        if not was_started and node.core is not None:
            self._attach(machine, process)
        if machine.process is process:
            self.on_turn(machine, effects)
            if process.inbox:
                self._make_turn_due(machine, process)

    def _attach(self, machine: Machine, process: Process) -> None:
        identity = process.node.identity
        assert identity is not None
        machine.member_id = identity.member_id
        recovered = process.node.recovered
        if recovered is not None and recovered.torn_bytes_cut:
            self.reached["torn tail cut"] += 1
        self.network.attach(identity.member_id, lambda event: self.deliver(machine, process, event))
        self.on_recovered(machine)

    def _tick(self, machine: Machine, process: Process) -> None:
        if machine.process is not process:
            return
        inbox = process.inbox
        if not inbox or not any(isinstance(event, Tick) for event in inbox):
            # A late tick counts once (rule 17).
            self.deliver(machine, process, Tick())
        self.world.after(machine.tick_seconds, partial(self._tick, machine, process))

    def _perform(self, machine: Machine, process: Process, effect: Effect) -> None:
        match effect:
            case Send(frame=frame):
                self.network.send(frame)
            case SubmitDisk():
                self._submit(machine, process, effect)
            case Reply(id=request_id, answer=answer):
                process.requests.pop(request_id)(answer)
            case RoleChanged(role=role, term=term, leader=leader):
                self.on_role_changed(machine)
                self.world.trace(f"{machine.name} {role} @{term} leader={leader}")
            case TellCommitSoon(seconds=seconds):
                self._tell_commit_soon(machine, process, seconds)
            case Continue():
                self._make_turn_due(machine, process)
            case Diverged(peer=peer, index=index):
                raise AssertionError(f"I12: {machine.name} and {peer:x} differ after {index}")
            case Stop(reason=reason):
                self.world.trace(f"{machine.name} stop: {reason}")
                process.stopped = reason
                self.on_stopped(machine, reason)
            case PeersChanged() | Advanced():
                pass  # the network connects everybody; nobody watches

    def _tell_commit_soon(self, machine: Machine, process: Process, seconds: float) -> None:
        process.news_told += 1
        number = process.news_told

        def over() -> None:
            if machine.process is process and process.news_told == number:
                self.deliver(machine, process, TellCommit())

        self.world.after(seconds, over)

    def _submit(self, machine: Machine, process: Process, submission: SubmitDisk) -> None:
        process.pending_disk[submission.submission] = submission
        seconds_max = machine.disk_seconds_max or self.climate.disk_seconds_max
        delay = self.world.rng.uniform(0.00002, seconds_max)
        if self.world.chance(self.climate.disk_stall):
            delay += self.world.rng.uniform(0.0, 2.0)

        def complete() -> None:
            if machine.process is not process:
                return
            if machine.hung is not None:
                machine.hung.append(complete)
                return
            del process.pending_disk[submission.submission]
            results: list[DiskResult] | DiskError
            try:
                results = machine.disk.perform(submission.ops)
            except DiskError as error:
                results = error
            except Crash:
                self._note_crash(process, submission.ops)
                self.on_crash(machine)
                return
            self.deliver(machine, process, DiskDone(submission.submission, results))

        self.world.after(delay, complete)

    def _note_crash(self, process: Process, ops: DiskOps) -> None:
        """What the process was about when an operation of the disk ended it."""
        core, snapshots = process.node.core, process.node.snapshots
        if core is None:
            self.reached["crash in recovery"] += 1
        elif snapshots.is_installing:
            self.reached["crash in an installation"] += 1
        elif any("snapshots/" in str(op) for op in ops) or snapshots.sending:
            self.reached["crash around a snapshot"] += 1
        else:
            self.reached["crash in a write of the log"] += 1

    def hang_disk(self, machine: Machine) -> None:
        """From now on the machine's disk finishes nothing."""
        if machine.hung is None:
            machine.hung = []
            self.world.trace(f"{machine.name} disk hangs")

    def free_disk(self, machine: Machine) -> None:
        """It finishes what it was given, and works again."""
        waiting, machine.hung = machine.hung or [], None
        for complete in waiting:
            complete()

    # ---- founding ---------------------------------------------------------------------------

    def found(
        self,
        cluster_id: str,
        answered: Callable[[Answer], None],
        founders: list[Machine] | None = None,
    ) -> None:
        """Call bootstrap on the first machine with the list of all, or of ``founders``.

        They must have started.
        """
        listed = tuple(member_of(machine) for machine in founders or self.machines)
        self.request(
            self.machines[0],
            lambda request_id: BootstrapRequest(request_id, cluster_id, listed),
            answered,
        )


def member_of(machine: Machine) -> Member:
    """As whom the machine would be a member; it has started."""
    assert machine.member_id is not None
    name = machine.name
    return Member(machine.member_id, name, f"{name}:1", f"http://{name}")


def _version(process: Process) -> contextlib.AbstractContextManager[None]:
    """In which the process does its work, for what it writes to be of its version."""
    return older_version() if process.is_older else contextlib.nullcontext()
