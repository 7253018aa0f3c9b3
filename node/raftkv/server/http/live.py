"""What an answer without end is written to. Implemented by `raftkv.server.http.app`."""

from typing import Final, Protocol

#: Bytes that a client may leave unread before it is cut off, beyond what one write holds.
UNREAD_BYTES_MAX: Final = 1 << 20


class LiveConnection(Protocol):
    """The body of one answer. Its client may go away: then whoever writes is cancelled."""

    async def write(self, raw: bytes) -> None:
        """Send when the client has room for it. Raises ConnectionError: it is gone."""
        ...

    def push(self, raw: bytes, chunk: bytes) -> bool:
        """Send at once ``raw``, which is ``chunk`` as HTTP/1.1 frames it.

        False, and nothing is sent, if the client has left more than `UNREAD_BYTES_MAX` unread.
        """
        ...

    def abort(self) -> None:
        """Cut the connection."""
        ...
