"""Server-Sent Events as RaftKV sends them. No I/O.

All events of one revision come together, and only the last has an id: a group is what lies between
two ids, so that a broken connection never leaves half a revision behind.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import msgspec


class SseEvent(msgspec.Struct, frozen=True):
    """One event of the stream."""

    kind: str
    data: bytes
    id: str | None  # None: more of the same revision follows


class SseParser:
    """Lines in, events out."""

    def __init__(self) -> None:
        self._kind = ""
        self._data: list[bytes] = []
        self._id: str | None = None

    def feed(self, line: bytes) -> SseEvent | None:
        """Take a line without its end; the event that it completes."""
        if not line:
            return self._complete()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"event":
                self._kind = value.decode(errors="replace")
            case b"data":
                self._data.append(value)
            case b"id" if b"\x00" not in value:
                self._id = value.decode(errors="replace")
            case _:
                pass  # a comment keeps the connection alive; other fields are for browsers
        return None

    def _complete(self) -> SseEvent | None:
        event = SseEvent(self._kind, b"\n".join(self._data), self._id)
        is_empty = not (self._kind or self._data or self._id)
        self._kind, self._data, self._id = "", [], None
        return None if is_empty else event
