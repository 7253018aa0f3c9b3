"""What the leader adds to the log by itself: log time, what ends by it, and compaction.

Commands of the leader travel in front of a batch of clients, or alone when there is none: first
the `Stamp` that lets log time advance (rule 21), then `Expire` and `Sweep` for what the store says
is due, then `Compact` for history that was kept long enough (rule 25). Apply checks each of them
again, so one that is late, doubled or from a deposed leader does no harm; here they are only
bounded, and not proposed again while they are under way.

Every node notes which revision there was at which log time, so that a new leader knows how old the
history is. What was before this process began is not known, and is kept a little longer.

Owned by `raftkv.node.requests`; is shown core and store once a turn.
"""

from collections import deque
from typing import Final

import msgspec

from raftkv.kv.commands import Compact, LeaderCommand, Stamp, encode_command
from raftkv.kv.store import Store
from raftkv.node.log_clock import LogClock
from raftkv.node.settings import NodeSettings
from raftkv.raft import RawNode
from raftkv.raft.messages import Index

# Without writes that carry it, log time advances so often, and only if something ends by it.
IDLE_STAMP_SECONDS: Final = 0.5
# Commands under way; how many keys they delete is bounded by `Store.due`.
UNDER_WAY_MAX: Final = 64
# History is sampled so often in the time that it is kept, hence kept longer by this share.
_SAMPLES: Final = 32
# However young they are, no more revisions are kept; and they are forgotten so many at a time.
REVISIONS_MAX: Final = 1_000_000
_REVISIONS_STEP: Final = 10_000


class Chores(msgspec.Struct, frozen=True):
    """Commands to be put into the log in front of others, encoded."""

    commands: tuple[bytes, ...] = ()
    stamp_ms: int = 0
    names: tuple[bytes, ...] = ()  # of those not to be proposed again while under way

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.commands


#: Nothing to do.
NO_CHORES: Final = Chores()


class Upkeep:
    """See the module docstring."""

    def __init__(self, settings: NodeSettings) -> None:
        self._clock = LogClock(settings.tick_seconds)
        self._tick_seconds = settings.tick_seconds
        # Log time lags behind the leader's clock by what is not stamped yet. Entries without a
        # stamp may begin something in that time: it is due by so much later.
        self._margin_ms = int(settings.tick_seconds * 1000) + 1
        self._keep_ms = settings.history_keep_ms
        # Log time and revision, ascending.
        self._samples: deque[tuple[int, int]] = deque(maxlen=2 * _SAMPLES)
        self._under_way: dict[bytes, Index] = {}
        self._is_look_due = False

    def tick(self) -> None:
        """A tick passed: the store may be asked again what is due."""
        self._is_look_due = True

    def applied(self, store: Store) -> None:
        """Entries were applied: note how far history is, and what is done."""
        if self._under_way:
            index = store.applied_index
            done = [name for name, at in self._under_way.items() if at <= index]
            for name in done:
                del self._under_way[name]
            self._is_look_due = self._is_look_due or bool(done)
        if self._keep_ms > 0:
            last_ms = self._samples[-1][0] if self._samples else -1
            if last_ms < 0 or store.log_time_ms - last_ms >= self._keep_ms // _SAMPLES:
                self._samples.append((store.log_time_ms, store.revision))

    def chores(self, raft: RawNode, store: Store, now: float, *, has_batch: bool) -> Chores:
        """What to propose now, on the leader; nothing is noted before `proposed`.

        To be called in every turn in which this node leads. ``has_batch``: commands of clients
        will be proposed in any case.
        """
        if self._clock.lead(raft.term, now):
            self._under_way.clear()
            self._is_look_due = True
        commands: list[bytes] = []
        names: tuple[bytes, ...] = ()
        if self._is_look_due:
            self._is_look_due = False
            names = tuple(encode_command(command) for command in self._due(store))
            commands += names
        unstamped_seconds = self._clock.unstamped_seconds
        is_stamp_due = unstamped_seconds >= self._tick_seconds and (has_batch or bool(commands))
        is_idle_stamp_due = unstamped_seconds >= IDLE_STAMP_SECONDS and store.is_time_needed
        stamp_ms = self._clock.unstamped_ms if is_stamp_due or is_idle_stamp_due else 0
        if stamp_ms:
            commands.insert(0, encode_command(Stamp(stamp_ms)))
        return Chores(tuple(commands), stamp_ms, names) if commands else NO_CHORES

    def rest(self) -> None:
        """A turn in which this node does not lead."""
        self._clock.rest()

    def proposed(self, chores: Chores, index: Index) -> None:
        """The commands are in the entry at ``index`` of this leader's log."""
        self._clock.stamped(chores.stamp_ms)
        for name in chores.names:
            self._under_way[name] = index

    def dropped(self, chores: Chores) -> None:
        """The core took no entry: look again."""
        self._is_look_due = self._is_look_due or bool(chores.names)

    def _due(self, store: Store) -> list[Compact | LeaderCommand]:
        wanted: list[Compact | LeaderCommand] = []
        oldest_kept = self._oldest_kept(store)
        if oldest_kept > store.compacted_revision:
            wanted.append(Compact(oldest_kept))
        wanted += store.due(max(0, store.log_time_ms - self._margin_ms), UNDER_WAY_MAX)
        room = UNDER_WAY_MAX - len(self._under_way)
        return [c for c in wanted if encode_command(c) not in self._under_way][:room]

    def _oldest_kept(self, store: Store) -> int:
        """The revision up to which history is to be forgotten; 0: none."""
        if self._keep_ms == 0:
            return 0
        samples, until_ms = self._samples, store.log_time_ms - self._keep_ms
        while len(samples) > 1 and samples[1][0] <= until_ms:
            samples.popleft()
        revision = samples[0][1] if samples and samples[0][0] <= until_ms else 0
        # In steps, lest every look proposes a compaction of its own.
        most = (store.revision - REVISIONS_MAX) // _REVISIONS_STEP * _REVISIONS_STEP
        return max(revision, most)
