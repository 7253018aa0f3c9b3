"""What goes wrong in a run: to processes and disks.

`network_faults` has the network, `aimed_faults` what waits for a moment to strike.

Each seed draws some kinds (swarm testing, so that what remains gets further) and a pace. Whatever
they do is survivable by contract: the *atlas* lets a disk be lost or damaged only while, of every
configuration that may still decide anything, a majority of the voters keeps what it promised.
"""

import errno
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

from raftkv.node.events import Effect
from raftkv.raft.messages import NodeId
from raftkv.raft.roles import Role
from raftkv.storage.errors import REJOIN_ADVICE
from tests.simulation.aimed_faults import AimedFaults
from tests.simulation.checkers import InvariantError, Invariants
from tests.simulation.cluster import Cluster, Machine, Process
from tests.simulation.damage import Harm, harm, rot
from tests.simulation.network_faults import NetworkFaults

HANG_SECONDS = (1.0, 4.0, 10.0, 25.0)  # rule 12: a hand-over after 3 s, the end after 20 s
# How often a fault is followed by a calm: what only a cluster that works does is to be hit, too.
LULL = 0.3
LULL_SECONDS = (1.0, 4.0)
PLACES = ("wal", "snapshots", "identity", "no identity file")


class Faults:
    """All faults of a run."""

    def __init__(self, cluster: Cluster, invariants: Invariants, *, can_replace: bool) -> None:
        """``can_replace``: somebody replaces members that lost their disks."""
        self.cluster, self.world = cluster, cluster.world
        self.invariants = invariants
        self.reached: Counter[str] = Counter()
        self.crash_count = 0  # processes that ended other than by their own choice
        self.is_over = False
        self._can_replace = can_replace
        self.network = NetworkFaults(cluster, self.leads)
        self.aimed = AimedFaults(cluster, invariants, self.network)
        rng = cluster.world.rng
        crashes = [self._kill, self._lose_power, self._crash_in_an_operation]
        others = [
            self._pause,
            self._sleep_alone,
            self._damage,
            self._rot,
            self._kill_all,
            self._fail_a_sync,
            self._hang,
            self._slow_disk,
            *self.network.kinds,
            *([self._lose_disk] if can_replace else []),
        ]
        self._kinds: list[Callable[[], None]] = [
            rng.choice(crashes),
            *(kind for kind in (*crashes, *others) if cluster.world.chance(0.5)),
        ]
        self._pause_seconds_max = rng.choice((0.5, 1.5, 5.0))
        # Crashes while votes are on their way: where a lost vote or a lost tail does its harm.
        self._election_crash = rng.choice((0.0, 0.2, 0.8))
        # And in each turn of a leader that has not committed in its term yet.
        self._fragile_leaders = rng.choice((0.0, 0.15, 0.3))
        # A restart that is cut short, perhaps again and again.
        self._recovery_crash = rng.choice((0.0, 0.1, 0.5))
        # And one amid a turn, of which peers and disk were told, before it applies anything.
        self._turn_random = Random(cluster.world.seed + 11)
        self._turn_crash = self._turn_random.choice((0.0, 0.0, 0.001))
        cluster.on_effect = self._crash_amid_a_turn
        cluster.on_role_changed = self._crash_around_election
        cluster.on_stopped = self._on_stopped
        cluster.on_crash = self._end

    def start(self) -> None:
        """Begin after a moment."""
        self.world.after(1.0, self._next)

    def _next(self) -> None:
        if self.is_over:
            return
        self.world.rng.choice(self._kinds)()
        pause = self.world.rng.uniform(0.1, 1.0) * self._pause_seconds_max
        if self.world.chance(LULL):
            pause += self.world.rng.uniform(*LULL_SECONDS)
        self.world.after(pause, self._next)

    def end(self) -> None:
        """No more faults; all machines come back, and all links and disks work."""
        self.is_over = True
        self.aimed.is_over = True
        self.network.end()
        for machine in self.cluster.machines:
            machine.disk.cancel_faults()
            machine.disk_seconds_max = None
            self.cluster.free_disk(machine)
            self.cluster.resume(machine)
            self._restart(machine)

    # ---- whom -------------------------------------------------------------------------------

    def leads(self, machine: Machine) -> bool:
        """Whether the machine runs a leader."""
        core = None if machine.process is None else machine.process.node.core
        return core is not None and core.raft.role is Role.LEADER

    def _alive(self) -> list[Machine]:
        return [machine for machine in self.cluster.machines if machine.process is not None]

    def _victim(self) -> Machine | None:
        alive = self._alive()
        leaders = [machine for machine in alive if self.leads(machine)]
        if leaders and self.world.chance(0.5):
            return leaders[0]
        return self.world.rng.choice(alive) if alive else None

    # ---- processes --------------------------------------------------------------------------

    def _end(self, machine: Machine) -> None:
        """The process ends at once, the machine perhaps with it; it starts again by itself."""
        self.crash_count += 1
        if self.world.chance(0.5):
            self.cluster.kill(machine)
        else:
            self.reached["power loss"] += 1
            self.cluster.lose_power(machine)
        self.world.after(self.world.rng.uniform(0.01, 2.0), partial(self._restart, machine))

    def _restart(self, machine: Machine) -> None:
        if machine.process is not None:
            return
        self.cluster.start(machine)
        if not self.is_over and self.world.chance(self._recovery_crash):
            disk = machine.disk
            disk.crash_at(disk.op_count + self.world.rng.randint(1, 30))

    def _restart_later(self, machine: Machine) -> None:
        self.world.after(self.world.rng.uniform(0.01, 3.0), partial(self._restart, machine))

    def _kill(self) -> None:
        victim = self._victim()
        if victim is not None:
            self.crash_count += 1
            self.reached["kill leader" if self.leads(victim) else "kill"] += 1
            self.cluster.kill(victim)
            self._restart_later(victim)

    def _lose_power(self) -> None:
        victim = self._victim()
        if victim is not None:
            self.crash_count += 1
            self.reached["power loss"] += 1
            self.cluster.lose_power(victim)
            self._restart_later(victim)

    def _kill_all(self) -> None:
        if not self.world.chance(0.3):
            return
        self.reached["all down"] += 1
        for machine in self._alive():
            self.crash_count += 1
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

    def _sleep_alone(self) -> None:
        """A leader sleeps where nobody can reach it."""
        leaders = [machine for machine in self._alive() if self.leads(machine)]
        if leaders:
            self.aimed.sleep_alone(leaders[0])

    def _crash_in_an_operation(self) -> None:
        victim = self._victim()
        if victim is not None:
            # Somewhere in what it does next with its disk, be that a write of the log, a snapshot,
            # an installation or the removal of what they replace.
            victim.disk.crash_at(victim.disk.op_count + self.world.rng.randint(1, 40))

    def _crash_around_election(self, machine: Machine) -> None:
        """Crash a node, rather a leader, while the messages of a role change are on their way."""
        probability = self._election_crash if self.leads(machine) else self._election_crash / 8
        if self.is_over or not self.world.chance(probability):
            return
        rng = self.world.rng
        victim = machine if self.world.chance(0.8) else rng.choice(self.cluster.machines)
        # A few message delays: some of the new leader's messages arrive, some are never sent.
        delays = 4 * self.cluster.climate.weather.delay_max_seconds
        self.world.after(rng.uniform(0.0, 0.01 + delays), partial(self._crash_briefly, victim))

    def _crash_amid_a_turn(self, machine: Machine) -> bool:
        """Crash a node between two effects of a turn, if it has committed entries to apply."""
        process, random = machine.process, self._turn_random
        if (
            not self._turn_crash
            or self.is_over
            or process is None
            or not process.node.applying.has_any
            or random.random() >= self._turn_crash
        ):
            return False
        self.crash_count += 1
        self.reached["crash before it applied"] += 1
        if random.random() < 0.5:
            self.cluster.kill(machine)
        else:
            self.cluster.lose_power(machine)
        self.world.after(random.uniform(0.001, 1.5), partial(self._restart, machine))
        return True

    def after_turn(self, machine: Machine, effects: list[Effect]) -> None:
        """To be called after every turn: leaders that die before their first entry is everywhere.

        One after the other, they are what the rule about commits of old terms exists for (paper
        fig. 8).
        """
        del effects
        assert machine.process is not None
        self.aimed.after_turn(machine, machine.process)
        if self.is_over or not self.leads(machine):
            return
        core = machine.process.node.core
        assert core is not None
        self.aimed.after_turn_of_leader(machine, core.raft)
        has_committed = core.raft.term_of(core.raft.commit_index) == core.raft.term
        if not has_committed and self.world.chance(self._fragile_leaders):
            self.world.after(0.0, partial(self._crash_briefly, machine))

    def _crash_briefly(self, victim: Machine) -> None:
        if victim.process is None or self.is_over:
            return
        self.crash_count += 1
        self.reached["crash around an election"] += 1
        if self.world.chance(0.5):
            self.cluster.kill(victim)
        else:
            self.cluster.lose_power(victim)
        down_seconds = self.world.rng.uniform(0.001, self.world.rng.choice((0.1, 1.5)))
        self.world.after(down_seconds, partial(self._restart, victim))

    # ---- disks ------------------------------------------------------------------------------

    def _fail_a_sync(self) -> None:
        victim = self._victim()
        if victim is not None:
            victim.disk.fail_next_sync(errno.EIO)

    def _hang(self) -> None:
        victim = self._victim()
        if victim is None or victim.hung is not None:
            return
        seconds = self.world.rng.choice(HANG_SECONDS)
        self.reached[f"disk hangs for {seconds:.0f} s"] += 1
        self.cluster.hang_disk(victim)
        self.world.after(seconds, partial(self.cluster.free_disk, victim))

    def _slow_disk(self) -> None:
        for machine in self.cluster.machines:
            machine.disk_seconds_max = None
        self.reached["slow disk"] += 1
        victim = self.world.rng.choice(self.cluster.machines)
        victim.disk_seconds_max = self.world.rng.choice((0.05, 0.2))

    def _may_lose(self, machine: Machine) -> bool:
        """Whether the machine, which is down, is not needed, and will not be.

        A leader that counts on it could still append a configuration that needs it.
        """
        member = machine.member_id
        return member is not None and not self._is_counted_on(member) and self._is_spare(machine)

    def _is_spare(self, machine: Machine) -> bool:
        """The atlas: whether a majority of every configuration would still be whole."""
        others = [other for other in self.cluster.machines if other is not machine]
        present = {other.member_id for other in others if other.harm is None}
        known = self.invariants.configurations
        # A founding member that the founder has not reached holds nothing yet, and does not vote.
        present = {m for m in present if m is not None and known.get(m, ((0, None),))[0][0] > 0}
        committed_index = self.invariants.committed_config_index
        # Also what those knew that are down or lost: perhaps nobody else knows it yet.
        for held in known.values():
            for index, conf in held:
                halves = [half for half in (conf.voters, conf.voters_outgoing) if half]
                if index < committed_index:
                    continue
                if machine.member_id in conf.learners:
                    # It may be promoted before anybody notices.
                    halves = [(*half, machine.member_id) for half in halves]
                for half in halves:
                    missing = [voter for voter in half if voter not in present]
                    if len(missing) > (len(half) - 1) // 2:
                        return False
        return True

    def _is_counted_on(self, member: NodeId) -> bool:
        """Whether some leader heard of it within its election timeout, perhaps before it slept."""
        for machine in self._alive():
            process = machine.process
            core = None if process is None else process.node.core
            if core is not None and core.raft.id != member and member in core.raft.progress:
                ticks_max = core.raft._raft.config.election_ticks
                if core.raft.progress[member].silent_ticks < ticks_max:
                    return True
        return False

    def _damage(self) -> None:
        """Harm to a file while the machine is down."""
        victim = self._victim()
        if victim is None or victim.harm is not None:
            return
        self.crash_count += 1
        if self.world.chance(0.5):
            self.cluster.lose_power(victim)
        else:
            self.cluster.kill(victim)
        self._note_harm(victim, harm(victim.disk, self.world.rng))
        self._restart_later(victim)

    def _note_harm(self, machine: Machine, done: Harm | None) -> None:
        machine.harm = done
        if done is not None:
            self.reached[f"damage: {done.kind}"] += 1
            self.world.trace(f"{machine.name} harm: {done.what}")

    def _rot(self) -> None:
        """A bit of what was acknowledged turns while the machine is down: until that is mended."""
        victim = self._victim()
        if victim is not None and victim.harm is None:
            self.crash_count += 1
            self.cluster.lose_power(victim)
            self._note_harm(victim, rot(victim.disk, self.world.rng))
            self._restart_later(victim)

    def _lose_disk(self) -> None:
        """The machine comes back with an empty disk, if the others can do without."""
        victim = self._victim()
        if victim is None or victim.harm is not None:
            return
        self.crash_count += 1
        self.cluster.kill(victim)
        self.world.after(self.world.rng.uniform(0.5, 2.0), partial(self._lose_disk_of, victim))

    def _lose_disk_of(self, victim: Machine) -> None:
        if victim.process is None:
            is_member = any(
                victim.member_id in held[0][1].ids
                for held in self.invariants.configurations.values()
            )
            if not self.is_over and is_member and self._may_lose(victim):
                self.reached["disk lost"] += 1
                self._wipe(victim)
            self._restart(victim)

    def _wipe(self, machine: Machine) -> None:
        if machine.member_id is not None:
            self.cluster.network.forget(machine.member_id)
        self.cluster.wipe(machine)

    # ---- nodes that give up -----------------------------------------------------------------

    def _on_stopped(self, machine: Machine, reason: str) -> None:
        """A node may give up only for what was done to it, and must say so."""
        if os.strerror(errno.EIO) in reason:
            self.reached["stop after a failed sync"] += 1
        elif "the disk has not finished a write for" in reason:
            self.reached["stop after a long stall"] += 1
        elif machine.harm is not None and any(place in reason for place in PLACES):
            assert REJOIN_ADVICE in reason or PLACES[-1] in reason, reason
            is_named = machine.harm.what in reason
            assert is_named or not machine.harm.is_fatal, f"I14: {machine.harm.what}: {reason}"
            self.reached["damage refused"] += 1
            self.world.after(0.2, partial(self._repair, machine, machine.process))
            return
        else:
            raise InvariantError(f"{machine.name} stopped: {reason}")
        self.world.after(0.0, partial(self._exit, machine, machine.process))

    def _exit(self, machine: Machine, process: Process | None) -> None:
        if machine.process is process and process is not None:
            self.cluster.kill(machine)
            self._restart_later(machine)

    def _repair(self, machine: Machine, process: Process | None) -> None:
        """Replace a volume that its node refuses, as an operator does.

        If the others cannot do without, or nobody replaces members any more, what it held is found
        after all, say on its mirror.
        """
        if machine.process is not process or process is None:
            return
        self.cluster.kill(machine)
        assert machine.harm is not None
        if self._can_replace and not self.is_over and self._may_lose(machine):
            self.reached["damaged disk replaced"] += 1
            self._wipe(machine)
        else:
            self.reached["damage mended"] += 1
            machine.harm.mend()
            machine.harm = None
        self._restart(machine)

    def settle_harm(self) -> None:
        """To be called now and then: harm to a file that is no more cannot be noticed any more."""
        for machine in self.cluster.machines:
            if machine.harm is None or not machine.is_started:
                continue
            path = next((word for word in machine.harm.what.split() if "/" in word), "identity")
            is_snapshot = path.startswith("snapshots/")
            if not is_snapshot or path not in machine.disk.paths():
                self.reached["damage without consequence"] += 1
                machine.harm = None


def ids_of(machines: list[Machine]) -> list[NodeId]:
    """The members that these machines are, as far as they know."""
    return [machine.member_id for machine in machines if machine.member_id is not None]
