"""Simulated watchers: each follows the changes from some revision on, from node to node.

As `raftkv.server.http.calls.watch` does, a follower begins at the revision of a linearizable read
and then asks for what came after, now this node, now that one, whatever they have lived through.
At the end it must have been told the history: all of it since its beginning, in order, each change
once (I11), and nothing that was acknowledged before it asked may be missing from its beginning.
Some follow a range of keys. What happened is what the applied list says, and what a store tells.
"""

from collections import Counter
from collections.abc import Callable
from random import Random

from raftkv.kv.changes import Change, Changes, ChangesAfter, read_changes
from raftkv.kv.ranges import Page, Range
from raftkv.kv.store import Store
from raftkv.node.events import Answer, Consistency, ReadRequest, Stale
from raftkv.node.messages import Failure, FailureCode, RequestId
from tests.simulation.cluster import Cluster
from tests.simulation.oracle import Oracle

PATIENCE_SECONDS = 0.5
PAUSE_SECONDS_MAX = 0.4
RANGES: tuple[tuple[bytes, bytes | None], ...] = ((b"", None), (b"x/", b"x0"), (b"a", b"c"))


class Followers:
    """All watchers of a run."""

    def __init__(self, cluster: Cluster, oracle: Oracle, count: int) -> None:
        self._oracle = oracle
        self.random = Random(cluster.world.seed + 1)  # their own: they draw no weather
        self.reached: Counter[str] = Counter()
        self.followers = [
            _Follower(self, cluster, lambda: oracle.acknowledged, RANGES[number % len(RANGES)])
            for number in range(count)
        ]

    def start(self) -> None:
        """Let every follower begin."""
        for follower in self.followers:
            follower.pause()

    def have_reached(self, revision: int) -> bool:
        """Whether all have been told everything up to ``revision``."""
        return all(follower.after == revision for follower in self.followers)

    def check(self, store: Store) -> None:
        """Whether all were told what ``store`` says has happened.

        Raises:
            AssertionError: something was left out, doubled, or told in another order.
        """
        for follower in self.followers:
            start = max(follower.start or 0, store.compacted_revision)
            first, last = follower.keys
            wanted = ChangesAfter(start, first, last, 1 << 30, 1 << 40, with_previous=True)
            history = read_changes(store.engine, store.revision, wanted).changes
            assert follower.after is not None
            end = min(follower.after, store.revision)
            told = [change for change in follower.told if start < change.revision <= end]
            happened = [change for change in history if change.revision <= end]
            assert told == happened, f"I11: a follower from {start} to {end} was told otherwise"
            if follower.start is not None:
                self._oracle.check_told(follower.told, follower.start, end, first, last)


class _Follower:
    """One watcher."""

    def __init__(
        self,
        followers: Followers,
        cluster: Cluster,
        acknowledged: Callable[[], int],
        keys: tuple[bytes, bytes | None],
    ) -> None:
        self.keys = keys  # the range that it follows
        self._followers = followers
        self._cluster, self._world = cluster, cluster.world
        self._acknowledged = acknowledged
        self._try = 0  # answers to earlier ones come too late
        self._least = 0  # what the beginning must have seen
        self.start: int | None = None  # None: it has not begun
        self.after: int | None = None  # it was told everything up to here
        self.told: list[Change] = []

    def pause(self) -> None:
        """Ask again after some time."""
        self._try += 1
        seconds = self._followers.random.uniform(0.0, PAUSE_SECONDS_MAX)
        self._world.after(seconds, self._ask)

    def _ask(self) -> None:
        self._try += 1
        alive = [machine for machine in self._cluster.machines if machine.process is not None]
        if not alive:
            self.pause()
            return
        machine, try_ = self._followers.random.choice(alive), self._try
        self._least = self._acknowledged()
        until = self._cluster.clock(machine) + PATIENCE_SECONDS
        self._cluster.request(
            machine,
            lambda rid: self._request(rid, until),
            lambda answer: self._answered(try_, answer),
        )
        self._world.after(PATIENCE_SECONDS, lambda: self._give_up(try_))

    def _request(self, request_id: RequestId, deadline: float) -> ReadRequest:
        if self.after is None:
            nothing = Range(b"", b"")
            return ReadRequest(request_id, nothing, Consistency.LINEARIZABLE, 0, deadline)
        records_max = self._followers.random.choice((1, 3, 100))
        first, last = self.keys
        wanted = ChangesAfter(self.after, first, last, records_max=records_max, with_previous=True)
        return ReadRequest(request_id, wanted, Consistency.LOCAL, 0, deadline)

    def _give_up(self, try_: int) -> None:
        if try_ == self._try:
            self.pause()

    def _answered(self, try_: int, answer: Answer) -> None:
        if try_ != self._try:
            return
        found = answer.found if isinstance(answer, Stale) else answer
        match found:
            case Page():
                assert found.revision >= self._least, "I11: it began before what was acknowledged"
                self.start = self.after = found.revision
            case Changes():
                assert self.after is not None
                self.told += found.changes
                self.after = found.revision
            case Failure(code=FailureCode.COMPACTED):
                self._followers.reached["compacted under a follower"] += 1
                self.start = self.after = found.revision
                self.told.clear()
            case Failure(code=FailureCode.FUTURE_REVISION):
                self._followers.reached["follower ahead of a node"] += 1
            case _:
                assert isinstance(found, Failure), found
        self.pause()
