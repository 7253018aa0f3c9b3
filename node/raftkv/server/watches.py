"""All watches and long polls of a node: one feed of changes, handed to whoever wants them.

Owns who watches what. A new revision is read once, each change is encoded once and looked up (keys
in a dictionary, prefixes by their lengths), and the same bytes are written to all connections that
want the same: what a watch costs is one write to a socket, and no lookup of its own.

    Driver.on_revision --> feed: read, encode, match --> Topic --> Stream.push, waiting polls

A stream that is behind the feed (it asked for the past) reads for itself, with flow control, until
it has caught up (`raftkv.server.http.calls.watch`); then it joins, and is *live*.

Invariants: a live stream was sent everything it wants up to the feed's position, or up to its own
if that is beyond; the feed moves on only when all were told; so nobody misses or repeats anything.
Nothing is buffered without bound: a stream that has left too much unread is cut, and its client
goes on behind the last id that it read.

Telling many streams takes long, and the node has other work: it is done in slices, and then the
feed rests for as much time as the loop worked meanwhile. So it never takes more than half of the
loop, what comes meanwhile is told together, and while few watch nothing is delayed. Source:
reference/performance.md.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from time import thread_time
from typing import Final, NamedTuple, Protocol

from raftkv.kv.changes import Change, Changes, ChangesAfter
from raftkv.kv.ranges import end_of_prefix
from raftkv.node.events import Consistency, Stale
from raftkv.node.messages import Failure, FailureCode
from raftkv.node.status import State, Status
from raftkv.server.driver_api import DriverApi
from raftkv.server.http.problems import OVERLOADED, Refused
from raftkv.server.metrics import Metrics
from raftkv.server.watch_events import Encoder, Part, Told, encode_change, part_of

_LOG: Final = logging.getLogger(__name__)

# What the feed reads at once: about 2 ms (node design, rule 26).
FEED_RECORDS_MAX: Final = 500
FEED_BYTES_MAX: Final = 256 << 10
# Streams that are written to before the loop gets its turn.
SLICE_STREAMS: Final = 64
# Streams whose own reads the node answers in one turn.
CATCHING_UP_MAX: Final = 4
# How often tokens are checked again, and whether the node drains or is cut off.
LOOK_SECONDS: Final = 1.0
# A node that has not heard of a leader for so long has nothing to tell.
LEADER_SEEN_SECONDS_MAX: Final = 10.0
_READ_SECONDS_MAX: Final = 5.0
_RETRY_SECONDS: Final = 0.05
# A rest that would be shorter is none.
_REST_SECONDS_MIN: Final = 0.001


def is_cut_off(status: Status) -> bool:
    """Whether what the node knows may be long out of date, and its watchers would not notice."""
    seen = status.seconds_since_leader
    return seen is None or seen > LEADER_SEEN_SECONDS_MAX


class Wanted(NamedTuple):
    """What a watch is about."""

    key: bytes  # or the prefix of all keys meant
    is_prefix: bool
    with_previous: bool = False

    @property
    def bounds(self) -> tuple[bytes, bytes | None]:
        """The range of keys meant, as `ChangesAfter` takes it."""
        return self.key, end_of_prefix(self.key) if self.is_prefix else self.key + b"\0"


class Connection(Protocol):
    """Where a stream goes."""

    def push(self, raw: bytes, chunk: bytes) -> bool:
        """Send a `Part` at once; False, and nothing is sent, if too much is still unread."""
        ...

    def abort(self) -> None:
        """Cut the connection."""
        ...


class Stream:
    """One watch: made by `Watches.stream`."""

    def __init__(
        self, wanted: Wanted, position: int, connection: Connection, check: Callable[[], None]
    ) -> None:
        """``check`` raises Refused when the client may no longer see what it wants."""
        self.wanted = wanted
        #: Everything up to here was sent; of a live stream: or up to the feed's position.
        self.position = position
        self.connection = connection
        self.check = check
        #: The last bytes to be sent, when the stream is over.
        self.ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def end(self, last_words: bytes = b"") -> None:
        """No more is to come but ``last_words``."""
        if not self.ended.done():
            self.ended.set_result(last_words)

    def cut(self) -> None:
        """The client reads too slowly."""
        self.connection.abort()
        self.end()


class _Topic:
    """All who want the same."""

    __slots__ = ("polls", "streams", "wanted")

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.streams: set[Stream] = set()  # live ones
        self.polls: set[asyncio.Future[int]] = set()


class Watches:
    """The watches and long polls that one listener serves. Used on the event loop's thread only."""

    def __init__(
        self, driver: DriverApi, metrics: Metrics, *, count_max: int, progress_seconds: float
    ) -> None:
        self.progress_seconds = progress_seconds
        self._driver = driver
        self._metrics = metrics
        self._count_max = count_max
        self._loop = asyncio.get_running_loop()
        self._streams: set[Stream] = set()  # all, also those that are catching up
        self._topics: dict[Wanted, _Topic] = {}
        self._topics_of_key: dict[bytes, list[_Topic]] = {}
        self._topics_of_prefix: dict[bytes, list[_Topic]] = {}
        self._prefix_lengths: list[int] = []  # ascending
        self._poll_count = 0
        # Everything up to here was told to all live streams.
        self._position = 0
        self._is_telling = False  # between reading changes and having told them
        # Streams that want previous items, and whether what is being told has them.
        self._previous_count = 0
        self._tells_previous = False
        self._target = 0  # the store's revision
        # Loop time at which the store went ahead of the feed; None: it is not.
        self._behind_since: float | None = None
        self._woken = asyncio.Event()
        #: For streams that read for themselves: the node answers all reads of a turn together.
        self.catching_up = asyncio.Semaphore(CATCHING_UP_MAX)
        self._feed: asyncio.Task[None] | None = None
        self._encoder: Encoder | None = None
        self._was_draining = False
        self._is_closing = False
        driver.on_revision = self.on_revision
        metrics.watch_watchers(lambda: self.count)

    # ---- who watches ------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Watches and long polls."""
        return len(self._streams) + self._poll_count

    def check_room(self) -> None:
        """Refuse with 429 when as many are served as may be."""
        if self.count >= self._count_max:
            detail = f"this node serves {self._count_max} watches already"
            raise Refused(OVERLOADED, detail)

    @asynccontextmanager
    async def stream(self, stream: Stream, encoder: Encoder) -> AsyncIterator[None]:
        """Know ``stream``, so that it can be ended, until the block is left."""
        self._encoder = encoder
        self._streams.add(stream)
        self._previous_count += stream.wanted.with_previous
        if self._is_closing:
            stream.end(encoder.bye(stream.position))
        self._run()
        try:
            yield
        finally:
            self._leave(stream)

    def join(self, stream: Stream) -> bool:
        """Make ``stream`` live; False if it is behind the feed and must catch up first."""
        if not self._is_telling and not self._topics:
            self._position = stream.position  # nobody else to be told
        if stream.position < self._position:
            return False
        if self._is_telling and stream.wanted.with_previous and not self._tells_previous:
            return False  # what is told next will have them, since this stream is known
        self._topic(stream.wanted).streams.add(stream)
        self._woken.set()
        return True

    @asynccontextmanager
    async def poll(self, key: bytes) -> AsyncIterator[asyncio.Future[int]]:
        """A future of the next revision that changes ``key``; 0: stop waiting, the node leaves.

        What changes after the block was entered is noticed; so look at the key inside it.
        """
        if not self._is_telling and not self._topics:
            self._position = self._driver.status().revision
        wanted = Wanted(key, is_prefix=False)
        changed: asyncio.Future[int] = self._loop.create_future()
        self._topic(wanted).polls.add(changed)
        self._poll_count += 1
        if self._is_closing:
            changed.set_result(0)
        self._run()
        try:
            yield changed
        finally:
            self._poll_count -= 1
            if (topic := self._topics.get(wanted)) is not None:
                topic.polls.discard(changed)
                self._drop_if_empty(topic)

    def close(self) -> None:
        """End all that there are and that are to come: the node serves nobody any more."""
        self._is_closing = True
        self._woken.set()

    def _leave(self, stream: Stream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)
            self._previous_count -= stream.wanted.with_previous
        if (topic := self._topics.get(stream.wanted)) is not None:
            topic.streams.discard(stream)
            self._drop_if_empty(topic)
        if not self._streams:
            self._woken.set()

    def _topic(self, wanted: Wanted) -> _Topic:
        topic = self._topics.get(wanted)
        if topic is None:
            topic = self._topics[wanted] = _Topic(wanted)
            index = self._topics_of_prefix if wanted.is_prefix else self._topics_of_key
            index.setdefault(wanted.key, []).append(topic)
            self._prefix_lengths = sorted({len(prefix) for prefix in self._topics_of_prefix})
        return topic

    def _drop_if_empty(self, topic: _Topic) -> None:
        wanted = topic.wanted
        if topic.streams or topic.polls or self._topics.get(wanted) is not topic:
            return
        del self._topics[wanted]
        index = self._topics_of_prefix if wanted.is_prefix else self._topics_of_key
        index[wanted.key].remove(topic)
        if not index[wanted.key]:
            del index[wanted.key]
            self._prefix_lengths = sorted({len(prefix) for prefix in self._topics_of_prefix})

    # ---- the feed ---------------------------------------------------------------------------

    def on_revision(self, revision: int) -> None:
        """The store has reached ``revision``."""
        self._target = revision
        if self._topics:
            if self._behind_since is None:
                self._behind_since = self._loop.time()
            self._woken.set()

    def _run(self) -> None:
        """See that the feed runs as long as there is anybody to be told."""
        if self._feed is None or self._feed.done():
            self._was_draining = self._driver.status().state is State.DRAINING
            self._feed = self._loop.create_task(self._tell_everybody())
            self._feed.add_done_callback(self._feed_ended)

    def _feed_ended(self, feed: asyncio.Task[None]) -> None:
        if feed.cancelled() or (error := feed.exception()) is None:
            return
        # Silence would look like a store in which nothing happens.
        _LOG.critical("the feed of changes failed in a way that is a bug", exc_info=error)
        for stream in list(self._streams):
            stream.cut()
        self._end_all()

    async def _tell_everybody(self) -> None:
        progress_at = self._loop.time() + self.progress_seconds
        look_at = self._loop.time() + LOOK_SECONDS
        while self.count:
            try:
                async with asyncio.timeout_at(min(progress_at, look_at)):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            if self._is_closing:
                self._end_all()
                return
            now = self._loop.time()
            if now >= look_at:
                look_at = now + LOOK_SECONDS
                self._target = max(self._target, self._driver.status().revision)
                await self._look()
            if self._topics and self._target > self._position:
                await self._go_on()
            if now >= progress_at:
                progress_at = now + self.progress_seconds
                await self._tell_progress()

    async def _go_on(self) -> None:
        """Read what follows the feed's position, and tell it."""
        after = self._position
        self._is_telling, self._tells_previous = True, self._previous_count > 0
        try:
            answer = await self._driver.read(
                ChangesAfter(
                    after,
                    records_max=FEED_RECORDS_MAX,
                    bytes_max=FEED_BYTES_MAX,
                    with_previous=self._tells_previous,
                ),
                Consistency.LOCAL,
                0,
                _READ_SECONDS_MAX,
            )
            if isinstance(answer, Failure):
                await self._failed(answer)
                return
            found = answer.found if isinstance(answer, Stale) else answer
            assert isinstance(found, Changes)
            if found.revision < found.store_revision:
                self._woken.set()
            began_at, worked_seconds = self._loop.time(), thread_time()
            # From here on who is at the new position may join, and is not told this.
            self._position = found.revision
            await self._tell(found.changes, after)
            worked_seconds = thread_time() - worked_seconds
            if self._behind_since is not None:
                self._metrics.watch_lag_seconds.observe(self._loop.time() - self._behind_since)
                is_behind = self._target > self._position
                self._behind_since = began_at if is_behind else None
        finally:
            self._is_telling = False
        if worked_seconds >= _REST_SECONDS_MIN:
            await asyncio.sleep(worked_seconds)

    async def _failed(self, failure: Failure) -> None:
        assert self._encoder is not None or not self._streams
        match failure.code:
            case FailureCode.COMPACTED:
                # This node took over a snapshot: what was between is not known to it.
                _LOG.info("watches end: %s", failure.detail)
                # Who polls on keeps its topic; the feed must not look for the gap again.
                self._position = self._driver.status().revision
                for topic in list(self._topics.values()):
                    for stream in topic.streams:
                        assert self._encoder is not None
                        stream.end(self._encoder.compacted(failure.revision))
                    topic.streams.clear()
                    self._wake_polls(topic, failure.revision)
                    self._drop_if_empty(topic)
            case FailureCode.STOPPED:
                self._end_all()
            case _:
                self._woken.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _tell(self, changes: Iterable[Change], after: int) -> None:
        matched = self._match(changes)
        encoded: dict[tuple[int, bool], Told] = {}

        def encode(change: Change, with_previous: bool) -> Told:
            known = encoded.get((id(change), with_previous))
            if known is None:
                known = encode_change(change, with_previous=with_previous)
                encoded[id(change), with_previous] = known
            return known

        sends: list[tuple[Stream, Part]] = []
        for topic, wanted in matched.items():
            self._wake_polls(topic, wanted[-1].revision)
            if not topic.streams:
                continue
            assert self._encoder is not None
            told = [encode(change, topic.wanted.with_previous) for change in wanted]
            part = part_of(self._encoder.events(told))
            for stream in topic.streams:
                if stream.position <= after:
                    sends.append((stream, part))
                    continue
                # It joined while this was being read, and knows some of it already.
                rest = [each for each in told if each.revision > stream.position]
                if rest:
                    sends.append((stream, part_of(self._encoder.events(rest))))
        await self._send(sends)

    def _match(self, changes: Iterable[Change]) -> dict[_Topic, list[Change]]:
        """What is to be told to whom."""
        matched: dict[_Topic, list[Change]] = {}
        of_key, of_prefix = self._topics_of_key, self._topics_of_prefix
        for change in changes:
            key = change.key
            for topic in of_key.get(key, ()):
                matched.setdefault(topic, []).append(change)
            for length in self._prefix_lengths:
                if length > len(key):
                    break
                for topic in of_prefix.get(key[:length], ()):
                    matched.setdefault(topic, []).append(change)
        return matched

    async def _send(self, sends: list[tuple[Stream, Part]]) -> None:
        """Write to all, and let the loop have its turn now and then."""
        for number, (stream, part) in enumerate(sends, start=1):
            if not stream.ended.done() and not stream.connection.push(*part):
                stream.cut()
                self._metrics.watches_cut.inc()
                self._leave(stream)
            if number % SLICE_STREAMS == 0:
                await asyncio.sleep(0)

    async def _tell_progress(self) -> None:
        live = [stream for topic in self._topics.values() for stream in topic.streams]
        parts: dict[int, Part] = {}
        sends: list[tuple[Stream, Part]] = []
        for stream in live:
            assert self._encoder is not None
            at = max(stream.position, self._position)
            if at not in parts:
                parts[at] = part_of(self._encoder.progress(at))
            sends.append((stream, parts[at]))
        await self._send(sends)

    # ---- the end ----------------------------------------------------------------------------

    async def _look(self) -> None:
        """End the streams of revoked tokens; all, when the node begins to drain or is cut off."""
        status = self._driver.status()
        is_draining = status.state is State.DRAINING
        if (is_draining and not self._was_draining) or is_cut_off(status):
            self._end_all()
        self._was_draining = is_draining
        for number, stream in enumerate(list(self._streams), start=1):
            try:
                stream.check()
            except Refused:
                self._leave(stream)
                stream.end()
            if number % SLICE_STREAMS == 0:
                await asyncio.sleep(0)

    def _end_all(self) -> None:
        """Say good-bye to all there are; they find all that is missing at another node."""
        live = {stream for topic in self._topics.values() for stream in topic.streams}
        for stream in self._streams:
            assert self._encoder is not None
            at = max(stream.position, self._position) if stream in live else stream.position
            stream.end(self._encoder.bye(at))
        for topic in list(self._topics.values()):
            topic.streams.clear()
            self._wake_polls(topic, 0)
            self._drop_if_empty(topic)

    @staticmethod
    def _wake_polls(topic: _Topic, revision: int) -> None:
        for changed in topic.polls:
            if not changed.done():
                changed.set_result(revision)
