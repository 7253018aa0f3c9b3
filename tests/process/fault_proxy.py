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
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import cast

from raftkv.server.frames import FrameReader, Hello, ProtocolError, decode_opening

_PIECE_BYTES = 64 << 10
# Of a piece that goes byte by byte; the rest follows at once, or nothing would ever get through.
_SLICED_BYTES = 64

#: From whom to whom, names of nodes.
Link = tuple[str, str]


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


def around(names: Iterable[str], among: Iterable[str]) -> dict[Link, Fault]:
    """``names`` are cut off from the others, both ways."""
    inside, everybody = set(names), list(among)
    return {
        (a, b): Fault(is_cut=True)
        for a in everybody
        for b in everybody
        if (a in inside) is not (b in inside)
    }


def everywhere(fault: Fault, among: Iterable[str]) -> dict[Link, Fault]:
    """Every direction suffers the same."""
    names = list(among)
    return {(a, b): fault for a in names for b in names if a != b}


@dataclass
class FaultProxy:
    """Forwards to the peer ports of nodes, and does ``faults`` to them on the way."""

    seed: int = 0
    faults: dict[Link, Fault] = field(default_factory=dict)
    #: member id -> name. Who is not known suffers nothing until it is: names are learned from
    #: nodes that are up, and their links are older.
    names: dict[int, str] = field(default_factory=dict)
    #: What was done to which link, for tests that must not pass because nothing happened.
    done: Counter[tuple[str, Link]] = field(default_factory=Counter)

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

    def set_faults(self, faults: dict[Link, Fault]) -> None:
        """From now on these, and no others."""
        self.faults = faults
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def heal(self) -> None:
        """All is well again; what was held goes on."""
        self.set_faults({})

    def effects(self) -> Counter[str]:
        """How often each thing was done, to whichever link."""
        total: Counter[str] = Counter()
        for (kind, _), count in self.done.items():
            total[kind] += count
        return total

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
            begun, sender = await self._introduction(reader)

            # Asked for each piece: most connections are older than what is known of their ends.
            def to_node() -> Link:
                return self.names.get(sender, ""), name

            def to_sender() -> Link:
                return name, self.names.get(sender, "")

            await self._pass(to_node)
            back, onward = await asyncio.open_connection("127.0.0.1", target_port)
            onward.write(begun)
            there = asyncio.create_task(self._pump(reader, onward, to_node))
            here = asyncio.create_task(self._pump(back, writer, to_sender))
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

    async def _introduction(self, reader: asyncio.StreamReader) -> tuple[bytes, int]:
        """The bytes up to the end of the first frame, and the id of who sent them."""
        begun, frames = b"", FrameReader(expects_preamble=True)
        while True:
            piece = await reader.read(_PIECE_BYTES)
            if not piece:
                raise EOFError
            begun += piece
            for body in frames.feed(piece):
                opening = decode_opening(body)
                # What asks who is there belongs to nobody's link.
                return begun, opening.sender if isinstance(opening, Hello) else 0

    async def _pass(self, direction: Callable[[], Link]) -> tuple[Fault, Link]:
        """Wait until the direction is open; what it suffers then, and which one it is."""
        while (fault := self.faults.get(link := direction(), WELL)).is_cut:
            self.done["cut", link] += 1
            await self._changed.wait()
        return fault, link

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: Callable[[], Link],
    ) -> None:
        random = self._random
        with suppress(ConnectionError):
            while data := await reader.read(_PIECE_BYTES):
                fault, link = await self._pass(direction)
                if fault is WELL:
                    writer.write(data)
                    await writer.drain()
                    continue
                wait_seconds = fault.delay_seconds
                if wait_seconds:
                    self.done["delay", link] += 1
                if random.random() < fault.clog_chance:
                    self.done["clog", link] += 1
                    wait_seconds += fault.clog_seconds
                if fault.bytes_per_second:
                    self.done["thin", link] += 1
                    wait_seconds += len(data) / fault.bytes_per_second
                if wait_seconds:
                    await asyncio.sleep(wait_seconds)
                if random.random() < fault.flip_chance:
                    self.done["flip", link] += 1
                    changed = bytearray(data)
                    changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
                    data = bytes(changed)
                if random.random() < fault.reset_chance:
                    self.done["reset", link] += 1
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    _reset(writer)
                    return
                if fault.is_sliced:
                    self.done["slice", link] += 1
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
