"""Cuts, clogs and bottlenecks of the simulated network."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import permutations
from random import Random

from raftkv.raft.messages import NodeId
from tests.simulation.cluster import Cluster, Machine
from tests.simulation.network import Weather

SHAPES = ("split", "isolate", "isolate", "mute", "deaf", "bridge", "scattered")


class NetworkFaults:
    """See the module docstring."""

    def __init__(self, cluster: Cluster, leads: Callable[[Machine], bool]) -> None:
        self._cluster, self._world = cluster, cluster.world
        self._leads = leads
        self._cut_number = 0  # of the last cut: an earlier one's end does not heal it
        self.reached: Counter[str] = Counter()
        self.kinds: list[Callable[[], None]] = [
            self._partition,
            self._clog,
            self._swizzle,
            self._slow_member,
            self._thin_pipe,
        ]

    def end(self) -> None:
        """All is well again."""
        if self._cluster.network.ancient_count:
            self.reached["ancient message"] += self._cluster.network.ancient_count
        self._cluster.network.clear(Weather())

    def _ids(self) -> list[NodeId]:
        return [m.member_id for m in self._cluster.machines if m.member_id is not None]

    def _partition(self) -> None:
        ids = self._ids()
        if len(ids) < 2:
            return
        shape = self._world.rng.choice(SHAPES)
        self.reached[f"partition: {shape}"] += 1
        self._cut(self._draw_cut(shape, ids), self._world.rng.uniform(0.2, 3.0))

    def _cut(self, pairs: set[tuple[NodeId, NodeId]], seconds: float) -> None:
        """Let exactly these be unable to talk, for so long or until the next cut."""
        self._cut_number += 1
        number = self._cut_number
        self._cluster.network.cut(pairs)

        def heal() -> None:
            if number == self._cut_number:
                self._cluster.network.cut(set())

        self._world.after(seconds, heal)

    def split(self, side: set[NodeId], seconds: float) -> None:
        """These on one side, all others on the other: they do not hear of each other."""
        ids = self._ids()
        self._cut({(a, b) for a in ids for b in ids if (a in side) is not (b in side)}, seconds)

    def star(self, hub: NodeId, seconds: float) -> None:
        """All talk to this one, and nobody to anybody else."""
        self._cut({pair for pair in permutations(self._ids(), 2) if hub not in pair}, seconds)

    def split_near(self, leader: NodeId, random: Random) -> None:
        """The leader and one or two others, and the rest."""
        others = [member for member in self._ids() if member != leader]
        near = random.sample(others, min(len(others), random.choice((1, 1, 2))))
        self.split({leader, *near}, random.uniform(0.5, 2.5))

    def isolate(self, machine: Machine, seconds: float) -> None:
        """Let this one talk to nobody, for so long."""
        if machine.member_id is not None:
            self.split({machine.member_id}, seconds)

    def _draw_cut(self, shape: str, ids: list[NodeId]) -> set[tuple[NodeId, NodeId]]:
        rng = self._world.rng
        shuffled = rng.sample(ids, len(ids))
        leaders = [m.member_id for m in self._cluster.machines if self._leads(m) and m.member_id]
        if leaders and self._world.chance(0.5):
            # Cut off the leader: it serves on for a moment, and another is elected.
            shuffled.remove(leaders[0])
            shuffled.insert(0, leaders[0])
        match shape:
            case "mute":
                return {(shuffled[0], other) for other in shuffled[1:]}
            case "deaf":
                return {(other, shuffled[0]) for other in shuffled[1:]}
            case "bridge":
                return {(shuffled[0], shuffled[-1]), (shuffled[-1], shuffled[0])}
            case "scattered":
                return {pair for pair in permutations(shuffled, 2) if self._world.chance(0.4)}
            case _:
                size = 1 if shape == "isolate" else rng.randint(1, len(ids) - 1)
                side, rest = shuffled[:size], shuffled[size:]
                return {pair for a in side for b in rest for pair in ((a, b), (b, a))}

    def _clog(self) -> None:
        """One direction between two members is held up for up to five seconds."""
        ids = self._ids()
        if len(ids) > 1:
            self.reached["clog"] += 1
            first, second = self._world.rng.sample(ids, 2)
            self._cluster.network.clog((first, second), self._world.rng.uniform(0.0, 5.0))

    def _swizzle(self) -> None:
        """Some members are clogged one after the other, and freed in another order."""
        ids = self._ids()
        if len(ids) < 2:
            return
        self.reached["swizzle"] += 1
        rng = self._world.rng
        for member in rng.sample(ids, rng.randint(1, len(ids))):
            begins, lasts = rng.uniform(0.0, 1.5), rng.uniform(0.2, 3.0)
            for other in ids:
                for link in ((member, other), (other, member)):
                    self._world.after(begins, partial(self._cluster.network.clog, link, lasts))

    def _slow_member(self) -> None:
        self.reached["slow member"] += 1
        ids = self._ids()
        member = self._world.rng.choice(ids) if ids and self._world.chance(0.7) else None
        self._cluster.network.slow_down(member)

    def _thin_pipe(self) -> None:
        ids = self._ids()
        if ids:
            self.reached["thin pipe"] += 1
            member = self._world.rng.choice(ids)
            rate = self._world.rng.choice((20_000.0, 200_000.0))
            self._cluster.network.narrow(member, rate)
            seconds = self._world.rng.uniform(0.5, 5.0)
            self._world.after(seconds, partial(self._cluster.network.narrow, member, None))
