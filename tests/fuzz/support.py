"""What targets share: the fuzzer's bytes as choices, and a socket that keeps what is written."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

Target = Callable[[bytes], None]


class Taken:
    """Cuts the fuzzer's bytes into choices."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def number(self, size: int) -> int:
        """The next ``size`` bytes; zeros if there are none left."""
        taken, self.rest = self.rest[:size], self.rest[size:]
        return int.from_bytes(taken, "little")

    def pieces(self) -> list[bytes]:
        """The rest, cut at every two bytes ``fe fd``: what a fuzzer finds and keeps."""
        return self.rest.split(b"\xfe\xfd")


def must(promised: object) -> None:
    """Of an error that was expected: what else must hold of it."""
    assert promised


class Sink(asyncio.Transport):
    """A socket that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False
        self.is_reading_paused = False
        self.closed: Callable[[], None] = lambda: None
        self.protocol: asyncio.BaseProtocol | None = None

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    @override
    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    @override
    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.closed()

    @override
    def abort(self) -> None:
        self.close()

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    @override
    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    @override
    def is_closing(self) -> bool:
        return self.is_closed

    @override
    def get_write_buffer_size(self) -> int:
        return 0

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _NoSocket() if name == "socket" else default

    @override
    def pause_reading(self) -> None:
        self.is_reading_paused = True

    @override
    def resume_reading(self) -> None:
        self.is_reading_paused = False

    @override
    def is_reading(self) -> bool:
        return not self.is_reading_paused


class _NoSocket:
    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Any option is taken."""

    family, type = 2, 1
