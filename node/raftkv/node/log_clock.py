"""How much log time the leader may let pass (node design, rule 21).

Log time is a counter in the state machine that only entries advance, so that all replicas agree on
when a lease ends. The leader adds what its own monotonic clock counted since its last stamp. What
it cannot vouch for does not count: the time before it led, and all but two ticks between two of
its turns, since a process that did not run could serve no keepalive either. So log time never runs
ahead of any clock that kept time all along, and what ends by it lives longer, never shorter.

Owned by `raftkv.node.upkeep`; is told the time.
"""

from raftkv.raft.messages import Term


class LogClock:
    """The time that passed and was not stamped yet."""

    def __init__(self, tick_seconds: float) -> None:
        self._turn_seconds_max = 2 * tick_seconds
        self._term: Term | None = None  # in which this node leads
        self._seen_at = 0.0
        self.unstamped_seconds = 0.0

    def lead(self, term: Term, now: float) -> bool:
        """A turn in which this node leads ``term``; True in the first one of the term."""
        is_new = term != self._term
        if is_new:
            self._term = term
            self.unstamped_seconds = 0.0
        else:
            self.unstamped_seconds += min(now - self._seen_at, self._turn_seconds_max)
        self._seen_at = now
        return is_new

    def rest(self) -> None:
        """A turn in which this node does not lead."""
        self._term = None

    @property
    def unstamped_ms(self) -> int:
        """What a stamp may add now."""
        return int(self.unstamped_seconds * 1000)

    def stamped(self, elapsed_ms: int) -> None:
        """A stamp of so much is in the log."""
        self.unstamped_seconds -= elapsed_ms / 1000
