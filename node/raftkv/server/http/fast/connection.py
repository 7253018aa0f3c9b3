"""One client's connection on the short way: order, flow control, deadlines, handing over.

Answers leave in the order of their requests. Reads of a pipeline are asked side by side, up to a
bound; a write begins when everything before it is answered, and nothing begins before it is
(RFC 9112, section 9.3.2). What waits is not parsed, and beyond `READ_BUFFER_BYTES` not read.

Source: reference/faults.md, section 6, rows 1 to 6.
"""

import asyncio
import sys
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, cast

from raftkv.node.events import Answer, ReadResult, Stale
from raftkv.server.http.connection import READ_BUFFER_BYTES, keep_alive, limit_unread
from raftkv.server.http.fast.exchange import Exchange, Owner
from raftkv.server.http.fast.head import END, HEAD_BYTES_MAX, match_line, may_become_head

if TYPE_CHECKING:
    from raftkv.server.http.fast.path import FastPath

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

# Reads of one connection that are asked side by side, unless the answers are large.
PIPELINED_MAX = 32
_LARGE_ANSWER_BYTES = 16 << 10
# Pieces in which a head may come before it is left to aiohttp.
_HEAD_PIECES_MAX = 8


class FastConnection(Owner, asyncio.Protocol):
    """See the module docstring."""

    __slots__ = (
        "_awaiting", "_body", "_buffer", "_deadline", "_head_pieces", "_idle_since", "_is_blocked",
        "_is_ended", "_is_paused", "_missing", "_must_hand_over", "_path",
        "_pipelined_max", "_queue", "_transport",
    )  # fmt: skip

    def __init__(self, path: "FastPath") -> None:
        self._path = path
        self._transport: asyncio.Transport | None = None  # None before, after, and elsewhere
        self._queue: deque[Exchange] = deque()  # begun and not answered
        self._buffer = b""  # not judged yet
        self._awaiting: Exchange | None = None  # its body is not complete
        self._body = bytearray()  # as far as it came
        self._missing = 0  # bytes of the body, or, once ended, of what is discarded
        self._head_pieces = 0
        self._pipelined_max = PIPELINED_MAX
        self._deadline: float | None = None  # loop time; of a head, a body or the end
        self._idle_since = perf_counter()
        self._is_paused = False  # not reading
        self._is_blocked = False  # the client does not read
        self._is_ended = False  # what still comes is discarded
        self._must_hand_over = False  # once all answers have left

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request and owes no answer."""
        if self._queue or self._awaiting is not None or self._transport is None:
            return False
        return not self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close when what was written has left."""
        if self._transport is not None:
            self._transport.close()

    def end(self) -> None:
        """Close at once if idle, else after the answers that are owed; judge nothing more."""
        self._is_ended = True
        self._buffer = b""
        self._must_hand_over = False
        if not self._queue and self._awaiting is None:
            self.close()

    # ---- asyncio's interface ----------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of asyncio's
        path = self._path
        if not path.add(self, transport):
            return
        self._transport = transport
        keep_alive(transport)
        limit_unread(transport, path.settings.unread_seconds_max)
        self._expect_within(path.settings.head_seconds_max)

    @override
    def data_received(self, data: bytes) -> None:
        if self._awaiting is not None:
            self._take_body(data)
        elif self._is_ended:
            self._discard(len(data))
        elif self._must_hand_over:
            self._keep(self._buffer + data)
        elif self._buffer:
            self._head_pieces += 1
            self._take(self._buffer + data)
        else:
            self._take(data)

    @override
    def pause_writing(self) -> None:
        self._is_blocked = True

    @override
    def resume_writing(self) -> None:
        self._is_blocked = False
        self._go_on()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._awaiting = None
        self._path.remove(self)
        for exchange in self._queue:
            if exchange.raw is None:
                self._path.driver.forget(exchange.request_id)
        self._queue.clear()

    # ---- requests ---------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """Begin the requests in ``data`` as far as they are whole and may begin."""
        path, queue, position, size = self._path, self._queue, 0, len(data)
        while position < size and not (
            self._is_blocked or len(queue) >= self._pipelined_max or (queue and queue[0].is_write)
        ):
            line = match_line(data, position)
            after_line = position if line is None else line.end()
            head_end = data.find(END, max(position, after_line - 2))
            if line is None or head_end < 0:
                if head_end < 0 and self._is_patient(data[position:]):
                    break
                self._hand_over(data[position:])
                return
            block = data[after_line : head_end + 2]
            verdict = path.known_blocks.get(block) or path.judge(block)
            body_at = head_end + 4
            exchange = None
            if verdict is not None and body_at - position <= HEAD_BYTES_MAX:
                exchange = path.exchange(self, line, verdict)
            if exchange is None:
                self._hand_over(data[position:])
                return
            if exchange.is_write and queue:
                break
            self._head_pieces = 0
            position = body_at + exchange.body_bytes
            if position > size:
                self._await_body(exchange, data[body_at:])
                return
            if self._deadline is not None:
                self._expect_nothing()
            queue.append(exchange)
            exchange.ask(path.at, data[body_at:position])
        if position < size or self._buffer:
            self._keep(data[position:])

    def _keep(self, rest: bytes) -> None:
        """Keep what cannot be begun now."""
        self._buffer = rest
        # While the client does not read, what is kept may be whole requests: theirs is no deadline.
        if rest and not self._queue and not self._is_blocked and self._deadline is None:
            self._expect_within(self._path.settings.head_seconds_max)
        self._pace()

    def _pace(self) -> None:
        """Read no more than there is room for."""
        must_pause = len(self._buffer) > READ_BUFFER_BYTES
        transport = self._transport
        if must_pause == self._is_paused or transport is None or transport.is_closing():
            return
        self._is_paused = must_pause
        if must_pause:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _is_patient(self, start: bytes) -> bool:
        """Whether the rest of a head that begins so is waited for here."""
        return self._head_pieces < _HEAD_PIECES_MAX and may_become_head(start)

    def _await_body(self, exchange: Exchange, part: bytes) -> None:
        self._buffer = b""
        self._awaiting = exchange
        self._body = bytearray(part)
        self._missing = exchange.body_bytes - len(part)
        self._expect_within(self._path.settings.body_seconds_max)
        self._pace()

    def _take_body(self, data: bytes) -> None:
        missing = self._missing
        if len(data) < missing:
            self._body += data
            self._missing = missing - len(data)
            return
        exchange = self._awaiting
        assert exchange is not None
        self._body += data[:missing]
        body = bytes(self._body)
        self._body = bytearray()
        self._awaiting = None
        self._expect_nothing()
        self._queue.append(exchange)
        exchange.ask(self._path.at, body)
        self._keep(data[missing:])

    def _go_on(self) -> None:
        """Something that others waited for is over."""
        if self._transport is None or self._transport.is_closing():
            return  # what is begun now would be done, and never answered
        self._ask_again()
        if self._must_hand_over:
            self._hand_over(self._buffer)
        elif self._buffer and len(self._queue) * 2 <= self._pipelined_max:
            self._take(self._buffer)

    # ---- answers ----------------------------------------------------------------------------

    @override
    def answered(self, exchange: Exchange, answer: Answer | None) -> None:
        """See `Owner`. Raises nothing: the caller is in the middle of a turn of the node."""
        transport = self._transport
        if transport is None or not self._queue:
            return  # nobody takes it: also what came too late to be forgotten
        try:
            self._answer(transport, exchange, answer)
        except Exception as error:  # noqa: BLE001 - a bug ends this connection, not the node
            self._path.log_bug(error)
            transport.abort()

    def _answer(
        self, transport: asyncio.Transport, exchange: Exchange, answer: Answer | None
    ) -> None:
        path, queue = self._path, self._queue
        if (self._is_blocked or queue[0] is not exchange) and _is_large(answer):
            # Many large answers that nobody reads would be held at once.
            exchange.is_put_off = True
            return
        raw, closes = path.render(exchange, answer)
        if queue[0] is not exchange:
            exchange.raw = raw, closes
            return
        while True:
            queue.popleft()
            transport.write(raw)
            self._pipelined_max = PIPELINED_MAX if len(raw) < _LARGE_ANSWER_BYTES else 1
            if closes or (self._is_ended and not queue):
                self._end_now(transport)
                return
            if not queue or queue[0].raw is None:
                break
            raw, closes = queue[0].raw
        self._idle_since = path.now
        if self._buffer or self._must_hand_over:
            self._go_on()
        else:
            self._ask_again()

    def _ask_again(self) -> None:
        """Ask the first read anew if its answer was put off and can be sent now."""
        if self._queue and self._queue[0].is_put_off and not self._is_blocked:
            first = self._queue[0]
            first.is_put_off = False
            first.ask(self._path.at, b"")

    def _end_now(self, transport: asyncio.Transport) -> None:
        """The last answer is written."""
        self._is_ended = True
        self._buffer = b""
        for exchange in self._queue:
            self._path.driver.forget(exchange.request_id)
        self._queue.clear()
        transport.close()

    # ---- deadlines --------------------------------------------------------------------------

    def _expect_within(self, seconds: float) -> None:
        self._deadline = self._path.deadline(self, seconds)

    def _expect_nothing(self) -> None:
        self._deadline = None
        self._path.timed.discard(self)

    def expire(self, now: float) -> None:
        """Called from time to time while something is expected."""
        if self._deadline is None or now < self._deadline:
            return
        self._expect_nothing()
        exchange, transport = self._awaiting, self._transport
        if exchange is None or transport is None:
            self.close()
            return
        # The answer should be seen: what still comes of the body is taken for a while.
        self._awaiting = None
        self._body = bytearray()
        self._is_ended = True
        transport.write(self._path.body_timeout(exchange))
        self._expect_within(self._path.settings.linger_seconds)

    def expire_idle(self, since: float) -> None:
        """Close if nothing was asked since then."""
        if self._idle_since < since and self._deadline is None and self.is_idle:
            self.close()

    def _discard(self, size: int) -> None:
        self._missing -= size
        if self._missing <= 0 and self._deadline is not None:
            self._expect_nothing()
            self.close()

    # ---- handing over -----------------------------------------------------------------------

    def _hand_over(self, rest: bytes) -> None:
        """Let aiohttp have the connection, from ``rest`` on, once all answers have left."""
        transport = self._transport
        if self._queue or self._is_blocked or transport is None:
            self._must_hand_over = True
            self._keep(rest)
            return
        self._buffer = b""
        self._transport = None
        deadline = self._deadline
        self._path.remove(self)
        if self._is_paused:
            transport.resume_reading()
        self._path.hand_over(transport, rest, deadline)


def _is_large(answer: Answer | None) -> bool:
    found = answer.found if type(answer) is Stale else answer
    if type(found) is not ReadResult or found.item is None:
        return False
    return len(found.item.value) >= _LARGE_ANSWER_BYTES
