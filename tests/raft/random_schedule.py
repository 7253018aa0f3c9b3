"""Random schedules: a seed decides every tick, delivery, loss, crash and request.

    python -m tests.raft.random_schedule SEED     prints what happened, for a failing seed

The same seed gives the same schedule, byte by byte and under every PYTHONHASHSEED.
"""

import sys
from collections import Counter
from collections.abc import Callable
from random import Random

from raftkv.demo.cluster import (
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    Cluster,
    Host,
    make_conf,
    make_member,
)
from raftkv.raft import (
    AddLearner,
    ConfigChange,
    ConfigChangeRefused,
    ConfState,
    LeaveJoint,
    NodeId,
    PromoteLearner,
    ProposalDropped,
    ReadDropped,
    RemoveMember,
    ReplaceMember,
    Role,
)
from tests.raft.checkers import ClusterChecker

STEPS = 1500
NODES_MAX = 9  # that ever live in one schedule
Action = Callable[[], None]

# Configurations that schedules run on: simple ones of every size, joint ones, with learners.
CONFIGURATIONS = (
    make_conf([1]),
    make_conf([1, 2]),
    make_conf([1, 2, 3]),
    make_conf([1, 2, 3]),
    make_conf([1, 2, 3, 4]),
    make_conf([1, 2, 3, 4, 5]),
    make_conf([1, 2, 3], learners=[4]),
    make_conf([1, 4, 5], outgoing=[1, 2, 3]),
    make_conf([3, 4], learners=[5], outgoing=[1, 2, 3]),
)


class Schedule:
    """One cluster under one seed, checked after every step."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.reached: Counter[str] = Counter()  # rare things that happened
        settings = {
            "inflight_appends_max": self.rng.choice([1, 2, 4]),
            "append_bytes_max": self.rng.choice([1, 60, 1 << 20]),
            "apply_bytes_max": self.rng.choice([1, 1 << 20]),
            "promote_lag_entries_max": self.rng.choice([0, 3, 1000]),
        }
        self.cluster = Cluster(Random(seed + 1), settings)
        self.conf: ConfState = self.rng.choice(CONFIGURATIONS)
        self.founder: NodeId | None = None
        self.lost: NodeId | None = None  # a node whose disk is gone; it never comes back
        self._found()
        self.checker = ClusterChecker(self.cluster)
        self.context = 0
        self.disk_speed = self.rng.choice([0.2, 0.8])  # how often a write is done in its turn
        self.weights = self._draw_weights()

    def _draw_weights(self) -> dict[Action, int]:
        """What happens how often. Each seed has its own mix of faults (swarm testing)."""
        often = {
            self.tick: self.rng.choice([6, 20]),
            self.deliver: 40,
            self.serve: 40,
            self.take_ready: 8,
            self.finish_write: 8,
            self.apply: 4,
            self.settle: self.rng.choice([1, 5, 20]),
            self.propose: 10,
            self.read: 6,
            self.restart: 8,
            self.heal: 3,
        }
        faults = {
            self.drop: 3,
            self.duplicate: 3,
            self.campaign: 1,
            self.contend: 1,
            self.crash: 2,
            self.transfer: 1,
            self.partition: 2,
            self.change: 8,
            self.compact: 8,
            self.snapshot: 2,
            self.lose_disk: 1,
            self.fall_behind: 1,
        }
        often[self.send_snapshots] = 10
        return often | {fault: self.rng.choice([0, 1, 4]) * faults[fault] for fault in faults}

    def _found(self) -> None:
        members = [member for member, _ in self.conf.sessions]
        if self.conf.voters_outgoing or self.rng.random() < 0.5:
            self.cluster.add_founded(self.conf, members)
        else:
            self.cluster.add_empty(members)
            self.founder = self.rng.choice(self.conf.voters)
            self._bootstrap_founder()

    def _bootstrap_founder(self) -> None:
        """A host knows that it is to found the cluster, and does so again if that was lost."""
        if self.founder is not None:
            host = self.cluster.hosts[self.founder]
            if host.is_up and host.raft.last_index == 0 and self.lost != host.id:
                host.raft.bootstrap(self.conf)

    def run(self, steps: int) -> None:
        actions, weights = list(self.weights), list(self.weights.values())
        for action in self.rng.choices(actions, weights, k=steps):
            action()
        self._count()

    def heal_and_converge(self) -> None:
        """Liveness: with everybody up and connected, one leader emerges and all agree."""
        self.heal()
        for host in self.cluster.hosts.values():
            if not host.is_up and host.id != self.lost:
                host.start()
        self._bootstrap_founder()
        for _ in range(20 * ELECTION_TICKS):
            for host in self.cluster.up():
                host.raft.tick()
            self.cluster.settle()
        self.checker.check(self.cluster.hosts.values())
        leader = self.cluster.leader()
        assert leader is not None, "no leader although all are up and connected"
        self.cluster.raft(leader).propose(b"last")
        self.cluster.settle()
        raft = self.cluster.raft(leader)
        assert not (raft.conf_state.is_joint and raft.conf_state.auto_leave), "still joint"
        for host in self.cluster.up():
            if host.id in raft.conf_state.ids:
                assert host.raft.applied_index == raft.last_index, "not everybody has everything"
                assert host.raft.conf_state == raft.conf_state
                assert not host.raft.is_removed
            else:
                assert host.raft.role is not Role.LEADER
        if self.lost is not None and self.lost in raft.conf_state.ids:
            assert raft.progress[self.lost].silent_ticks >= ELECTION_TICKS

    def _count(self) -> None:
        self.reached["terms"] += len(self.checker.leaders)
        self.reached["truncations"] += self.checker.truncations
        self.reached["committed"] += self.checker.commit_max
        self.reached["reads"] += self.checker.reads_answered
        self.reached["rollbacks"] += self.checker.rollbacks

    # ---- actions ----------------------------------------------------------------------------

    def _pick(self) -> Host | None:
        up = self.cluster.up()
        return self.rng.choice(up) if up else None

    def tick(self) -> None:
        host = self._pick()
        if host is not None:
            for _ in range(self.rng.choice([1, 1, 1, 1, 2, 3])):
                host.raft.tick()
            self.checker.check([host])

    def deliver(self) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            if self.cluster.in_flight:
                # Mostly in order, sometimes from anywhere.
                in_order = self.rng.random() < 0.7
                message = self.cluster.in_flight[0 if in_order else self._any_in_flight()]
                self.cluster.deliver(message)
                self.checker.check([self.cluster.hosts[message.receiver]])

    def _any_in_flight(self) -> int:
        return self.rng.randrange(len(self.cluster.in_flight))

    def serve(self) -> None:
        """What a busy host does in a turn. With none busy time passes."""
        busy = [h for h in self.cluster.up() if h.raft.has_ready() or h.write or h.to_apply]
        if not busy:
            self.tick()
        else:
            host = self.rng.choice(busy)
            self.cluster.take_ready(host.id)
            if host.write is not None and self.rng.random() < self.disk_speed:
                self.cluster.finish_write(host.id)
            host.apply()
            self.checker.check([host])

    def take_ready(self) -> None:
        host = self._pick()
        if host is not None:
            self.cluster.take_ready(host.id)
            self.checker.check([host])

    def finish_write(self) -> None:
        host = self._pick()
        if host is not None and host.write is not None:
            self.cluster.finish_write(host.id)
            self.checker.check([host])

    def apply(self) -> None:
        host = self._pick()
        if host is not None:
            host.apply()
            self.checker.check([host])

    def settle(self) -> None:
        self.cluster.settle()
        self.checker.check(self.cluster.hosts.values())

    def drop(self) -> None:
        if self.cluster.in_flight:
            message = self.rng.choice(self.cluster.in_flight)
            self.cluster.in_flight.remove(message)
            self.cluster.lost(message)

    def duplicate(self) -> None:
        if self.cluster.in_flight:
            self.cluster.in_flight.append(self.rng.choice(self.cluster.in_flight))

    def propose(self) -> None:
        # To a leader if there is one, else to anybody, who must refuse.
        leader = self.cluster.leader()
        host = self._pick() if leader is None else self.cluster.hosts[leader]
        if host is not None:
            try:
                host.raft.propose(b"%d" % self.rng.randrange(1000))
            except ProposalDropped as error:
                self.reached[error.reason] += 1
            self.checker.check([host])

    def read(self) -> None:
        host = self._pick()
        if host is not None:
            self.context += 1
            self.checker.asked(self.context)
            try:
                host.raft.read_index(self.context)
            except ReadDropped:
                self.reached["no_leader_to_ask"] += 1

    def campaign(self) -> None:
        host = self._pick()
        if host is not None:
            host.raft.campaign()
            self.checker.check([host])

    def contend(self) -> None:
        """All at once have missed the leader for long, and several campaign."""
        for host in self.cluster.up():
            for _ in range(ELECTION_TICKS):
                host.raft.tick()
        for host in self.cluster.up():
            if self.rng.random() < 0.7:
                host.raft.campaign()
        self.checker.check(self.cluster.up())

    def crash(self) -> None:
        # The most can be lost while a write is in flight, and most of all a vote.
        writing = [host for host in self.cluster.up() if host.write is not None]
        voting = [h for h in writing if h.write and h.write.hard_state and h.write.hard_state.vote]
        installing = [h for h in writing if h.write and h.write.snapshot]
        host = self.rng.choice(installing or voting or writing) if writing else self._pick()
        if host is not None:
            write = host.write
            if write is not None and write.snapshot is not None and self.rng.random() < 0.5:
                # Only the first half of the write arrived.
                host.disk.snapshot(write.snapshot, host.files[write.snapshot.last])
                self.reached["crash_in_install"] += 1
            elif write is not None and self.rng.random() < 0.5:
                host.write_to_disk(write)  # it became durable, and nobody was told
                self.reached["crash_after_write"] += 1
            host.crash()
            self.checker.crashed(host.id)
            self.reached["crash"] += 1
            if self.rng.random() < 0.5:
                self.restart()

    def restart(self) -> None:
        for host in self.cluster.hosts.values():
            if not host.is_up and host.id != self.lost:
                host.start()
                self._bootstrap_founder()
                self.checker.check([host])
                return

    def transfer(self) -> None:
        leader = self.cluster.leader()
        if leader is None or self.cluster.raft(leader).role is not Role.LEADER:
            return
        voters = [v for v in self.cluster.raft(leader).conf_state.voters if v != leader]
        if voters:
            self.cluster.raft(leader).transfer_leader(self.rng.choice(voters))
            self.reached["transfer"] += 1

    def change(self) -> None:
        """Propose a change, sensible or not, mostly to the leader."""
        leader = self.cluster.leader()
        host = self._pick() if leader is None else self.cluster.hosts[leader]
        if host is None:
            return
        for learner in host.raft.learners_to_promote():
            self._propose_change(host, PromoteLearner(learner))
        change = self._draw_change(host)
        if change is not None:
            self._propose_change(host, change)

    def _propose_change(self, host: Host, change: ConfigChange) -> None:
        removed = host.raft.conf_state.removed
        try:
            host.raft.propose_config(change)
            self.reached[type(change).__name__] += 1
            if isinstance(change, AddLearner) and change.member.id in removed:
                self.reached["rejoined"] += 1
        except ConfigChangeRefused as error:
            self.reached[error.reason] += 1
        self.checker.check([host])

    def _draw_change(self, host: Host) -> ConfigChange | None:
        conf = host.raft.conf_state
        members = conf.ids or (1,)
        # While a voter is lost, only it may go: the rest is needed for a majority.
        is_lost = self.lost is not None and self.lost in conf.ids
        leaving = self.lost if is_lost else self.rng.choice(members)
        assert leaving is not None
        match self.rng.randrange(6):
            case 0:
                return LeaveJoint()
            case 1:
                return PromoteLearner(self.rng.choice(members))
            case 2:
                return RemoveMember(leaving) if len(conf.voters) > 2 else None
            case 3 if conf.learners:
                return ReplaceMember(leaving, self.rng.choice(conf.learners))
            case _:
                return self._draw_learner(is_lost=is_lost)

    def _draw_learner(self, *, is_lost: bool) -> ConfigChange | None:
        """A new node, or an old one again: refused if it was a member, unless it rejoins."""
        strangers = [i for i, h in self.cluster.hosts.items() if h.is_up and not h.raft.last_index]
        if not strangers and len(self.cluster.hosts) < NODES_MAX:
            node = max(self.cluster.hosts) + 1
            self.cluster.add_empty([node])
            strangers = [node]
        node = self.rng.choice(strangers or list(self.cluster.hosts))
        # A new disk in the place of the lost one has its name.
        name = f"n{self.lost:x}" if is_lost and self.rng.random() < 0.8 else ""
        rejoins = self.rng.random() < 0.5  # on its disk: one that lost it never comes back
        return AddLearner(make_member(node, name), self.rng.random() < 0.5, rejoins)

    def compact(self) -> None:
        host = self._pick()
        if host is not None:
            applied = host.raft.applied_index
            host.raft.compact(self.rng.choice([applied, self.rng.randrange(applied + 1)]))
            self.checker.check([host])

    def fall_behind(self) -> None:
        """A member misses entries that the leader then drops."""
        leader = self.cluster.leader()
        if leader is None or len(self.cluster.raft(leader).conf_state.ids) < 3:
            return
        raft = self.cluster.raft(leader)
        slow = self.rng.choice([member for member in raft.conf_state.ids if member != leader])
        self.cluster.isolate([slow], [node for node in self.cluster.hosts if node != slow])
        for _ in range(self.rng.randrange(1, 5)):
            self.propose()
            self.cluster.settle()
        self.checker.check(self.cluster.up())
        raft.compact(raft.applied_index)
        self.cluster.cut.clear()
        for _ in range(2 * HEARTBEAT_TICKS):
            raft.tick()
        self.cluster.take_ready(leader)
        self.checker.check(self.cluster.up())

    def snapshot(self) -> None:
        host = self._pick()
        if host is not None and host.state and not host.raft.is_installing:
            host.take_snapshot()

    def send_snapshots(self) -> None:
        for host in self.cluster.up():
            if host.snapshots_wanted and self.rng.random() < 0.2:
                for wanted in host.snapshots_wanted:
                    host.raft.snapshot_failed(wanted.peer)
                host.snapshots_wanted = []
                self.reached["snapshot_failed"] += 1
            elif self.cluster.send_wanted_snapshots(host):
                self.reached["snapshot_sent"] += 1

    def lose_disk(self) -> None:
        """A node is gone for good, if a majority can do without it in every configuration."""
        hosts = self.cluster.up()
        confs = [host.raft.conf_state for host in hosts if host.raft.last_index]
        is_small = any(0 < len(half) < 3 for c in confs for half in (c.voters, c.voters_outgoing))
        if self.lost is not None or self.founder is not None or is_small or not confs:
            return
        if len(hosts) < len(self.cluster.hosts):
            return
        host = self.rng.choice(hosts)
        host.crash()
        self.checker.crashed(host.id)
        self.lost = host.id
        self.reached["lost_disk"] += 1

    def partition(self) -> None:
        ids = list(self.cluster.hosts)
        a, b = self.cluster.leader() or self.rng.choice(ids), self.rng.choice(ids)
        match self.rng.randrange(3):
            case 0:
                self.cluster.cut.add((a, b))
            case 1:
                self.cluster.isolate([a], [node for node in ids if node != a])
            case _:
                side = [node for node in ids if self.rng.random() < 0.5]
                self.cluster.isolate(side, [node for node in ids if node not in side])
        self.reached["partition"] += 1

    def heal(self) -> None:
        self.cluster.cut.clear()


def main() -> None:
    schedule = Schedule(int(sys.argv[1]))
    try:
        schedule.run(STEPS)
        schedule.heal_and_converge()
    finally:
        sys.stdout.write("\n".join(schedule.cluster.lines) + "\n")


if __name__ == "__main__":
    main()
