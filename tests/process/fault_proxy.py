"""A TCP proxy between the nodes that does to their links what networks do.

Every node advertises the proxy's port in place of its own. The proxy reads who speaks from the
first frame of a connection (`Hello`, or `Probe`), so each *direction* between two nodes has faults
of its own: a one-way cut, a bridge. Bytes are delayed, held, cut short, flipped or reset; they are
never lost within a connection that lives on, since TCP does not do that either.
"""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import cast

from raftkv.server.frames import FrameReader, Hello, ProtocolError, decode_opening

_PIECE_BYTES = 64 << 10
# Of a piece that goes byte by byte; the rest follows at once, or nothing would ever get through.
_SLICED_BYTES = 64


@dataclass(frozen=True)
class Fault:
    """What happens to the bytes of one direction."""

    is_cut: bool = False  # nothing passes; it waits, as behind a firewall that drops
    delay_seconds: float = 0.0  # for each piece
    clog_chance: float = 0.0  # that a piece waits for `clog_seconds`: lost segments, sent again
    clog_seconds: float = 0.2
    reset_chance: float = 0.0  # that the connection is reset in the middle of a piece
    flip_chance: float = 0.0  # that one bit of a piece is another
    is_sliced: bool = False  # a byte at a time
    bytes_per_second: int = 0  # 0: as fast as it goes


WELL = Fault()


@dataclass
class FaultProxy:
    """Forwards to the peer ports of nodes; ``faults`` by (from, to), names of nodes."""

    seed: int = 0
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    #: member id -> name, as far as it is known; who is not known suffers nothing.
    names: dict[int, str] = field(default_factory=dict)
    #: What was done, for tests that must not pass because nothing happened.
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._changed = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def forward(self, name: str, port: int, target_port: int) -> None:
        """Listen at ``port`` for the node ``name``, whose own peer port is ``target_port``."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(name, target_port, reader, writer)

        self._servers.append(await asyncio.start_server(serve, "127.0.0.1", port))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- faults ----------------------------------------------------------------------------

    def set_faults(self, faults: dict[tuple[str, str], Fault]) -> None:
        """From now on these, and no others."""
        self.faults = faults
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def heal(self) -> None:
        """All is well again; what was held goes on."""
        self.set_faults({})

    def isolate(self, names: Iterable[str], among: Iterable[str]) -> None:
        """Cut ``names`` off from the others, both ways."""
        inside = set(names)
        pairs = [(a, b) for a in among for b in among if (a in inside) is not (b in inside)]
        self.set_faults(dict.fromkeys(pairs, Fault(is_cut=True)))

    def everywhere(self, fault: Fault, among: Iterable[str]) -> None:
        """Every direction suffers the same."""
        names = list(among)
        self.set_faults({(a, b): fault for a in names for b in names if a != b})

    # ---- connections -----------------------------------------------------------------------

    async def _serve(
        self,
        name: str,
        target_port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        onward: asyncio.StreamWriter | None = None
        try:
            begun, speaker = await self._introduction(reader)
            await self._pass((speaker, name))
            back, onward = await asyncio.open_connection("127.0.0.1", target_port)
            onward.write(begun)
            there = asyncio.create_task(self._pump(reader, onward, (speaker, name)))
            here = asyncio.create_task(self._pump(back, writer, (name, speaker)))
            try:
                await asyncio.wait({there, here}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                there.cancel()
                here.cancel()
                await asyncio.gather(there, here, return_exceptions=True)
        except (OSError, EOFError, ProtocolError, asyncio.CancelledError):
            pass  # the end of a connection, or of the proxy
        finally:
            self._tasks.discard(task)
            for each in (writer, onward):
                if each is not None:
                    each.transport.abort()

    async def _introduction(self, reader: asyncio.StreamReader) -> tuple[bytes, str]:
        """The bytes up to the end of the first frame, and the name of who sent them."""
        begun, frames = b"", FrameReader(expects_preamble=True)
        while True:
            piece = await reader.read(_PIECE_BYTES)
            if not piece:
                raise EOFError
            begun += piece
            for body in frames.feed(piece):
                opening = decode_opening(body)
                # What asks who is there belongs to nobody's link.
                sender = opening.sender if isinstance(opening, Hello) else 0
                return begun, self.names.get(sender, "")

    async def _pass(self, link: tuple[str, str]) -> Fault:
        """Wait until the direction is open; what it suffers then."""
        while (fault := self.faults.get(link, WELL)).is_cut:
            self.done["cut"] += 1
            await self._changed.wait()
        return fault

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: tuple[str, str]
    ) -> None:
        random = self._random
        with suppress(ConnectionError):
            while data := await reader.read(_PIECE_BYTES):
                fault = await self._pass(link)
                if fault is WELL:
                    writer.write(data)
                    await writer.drain()
                    continue
                wait_seconds = fault.delay_seconds
                if random.random() < fault.clog_chance:
                    self.done["clog"] += 1
                    wait_seconds += fault.clog_seconds
                if fault.bytes_per_second:
                    wait_seconds += len(data) / fault.bytes_per_second
                if wait_seconds:
                    await asyncio.sleep(wait_seconds)
                if random.random() < fault.flip_chance:
                    self.done["flip"] += 1
                    changed = bytearray(data)
                    changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
                    data = bytes(changed)
                if random.random() < fault.reset_chance:
                    self.done["reset"] += 1
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    _reset(writer)
                    return
                if fault.is_sliced:
                    self.done["slice"] += 1
                    for place in range(min(len(data), _SLICED_BYTES)):
                        writer.write(data[place : place + 1])
                        await asyncio.sleep(0)
                    data = data[_SLICED_BYTES:]
                writer.write(data)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a RST: what the other end has not read is gone."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
