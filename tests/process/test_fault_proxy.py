"""The proxy of `tests.process.proxied` does what it is told to, and counts what it did."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from raftkv.server.frames import PREAMBLE, Hello, encode
from tests.process.cluster import wait_until
from tests.process.fault_proxy import Fault, FaultProxy, Link, around, everywhere
from tests.process.ports import free_port

NAMES = ("n1", "n2")
THERE: Link = ("n1", "n2")
BACK: Link = ("n2", "n1")
SAID = b"0123456789" * 10


class Ends:
    """A connection of member 1, which is ``n1``, to ``n2``, through a proxy."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.sender: tuple[asyncio.StreamReader, asyncio.StreamWriter]
        self.node: tuple[asyncio.StreamReader, asyncio.StreamWriter]

    async def connect(self) -> None:
        """Open it, before the proxy can know who member 1 is."""
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        accepted = loop.create_future()
        server = await asyncio.start_server(
            lambda reader, writer: accepted.set_result((reader, writer)), "127.0.0.1", 0
        )
        port = free_port()
        await self.proxy.forward("n2", port, server.sockets[0].getsockname()[1])
        self.sender = await asyncio.open_connection("127.0.0.1", port)
        opening = PREAMBLE + b"".join(encode(Hello("c1", 1, 2, 0)))
        self.sender[1].write(opening)
        async with asyncio.timeout(10):
            self.node = await accepted
            assert await self.node[0].readexactly(len(opening)) == opening
        server.close()
        self.proxy.names[1] = "n1"

    async def say(self, link: Link) -> asyncio.StreamReader:
        """Send `SAID` in one direction; where it arrives."""
        (reader, _), (_, writer) = (
            (self.node, self.sender) if link == THERE else (self.sender, self.node)
        )
        writer.write(SAID)
        await writer.drain()
        return reader

    async def done(self, kind: str, link: Link) -> None:
        """Wait until it was done to the link."""

        async def look() -> bool | None:
            return self.proxy.done[kind, link] > 0 or None

        await wait_until(f"{kind} of {link}", look, 10.0)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ends = Ends(FaultProxy())
    await ends.connect()
    yield ends
    for _, writer in (ends.sender, ends.node):
        writer.transport.abort()
    await ends.proxy.close()


@pytest.mark.parametrize("link", [THERE, BACK])
async def test_a_link_that_is_older_than_what_is_known_of_its_ends_is_cut(
    ends: Ends, link: Link
) -> None:
    ends.proxy.set_faults(around(["n1"], NAMES))
    reader = await ends.say(link)
    await ends.done("cut", link)
    assert not ends.proxy.done["cut", link[::-1]]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    ends.proxy.heal()
    async with asyncio.timeout(10):
        assert await reader.readexactly(len(SAID)) == SAID


@pytest.mark.parametrize("link", [THERE, BACK])
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("delay", Fault(delay_seconds=0.001)),
        ("clog", Fault(clog_chance=1.0, clog_seconds=0.001)),
        ("thin", Fault(bytes_per_second=1_000_000)),
        ("slice", Fault(is_sliced=True)),
    ],
)
async def test_what_only_takes_time_changes_no_byte(
    ends: Ends, kind: str, fault: Fault, link: Link
) -> None:
    ends.proxy.set_faults({link: fault})
    reader = await ends.say(link)
    async with asyncio.timeout(10):
        assert await reader.readexactly(len(SAID)) == SAID
    assert ends.proxy.effects() == {kind: ends.proxy.done[kind, link]}


@pytest.mark.parametrize("link", [THERE, BACK])
async def test_one_bit_of_a_piece_is_flipped(ends: Ends, link: Link) -> None:
    ends.proxy.set_faults(everywhere(Fault(flip_chance=1.0), NAMES))
    reader = await ends.say(link)
    async with asyncio.timeout(10):
        heard = await reader.readexactly(len(SAID))
    flipped = int.from_bytes(heard, "big") ^ int.from_bytes(SAID, "big")
    # A piece is what came at once: all of it, as a rule.
    assert flipped.bit_count() == ends.proxy.done["flip", link] > 0


@pytest.mark.parametrize("link", [THERE, BACK])
async def test_a_connection_is_reset_amid_a_piece(ends: Ends, link: Link) -> None:
    ends.proxy.set_faults({link: Fault(reset_chance=1.0)})
    reader = await ends.say(link)
    await ends.done("reset", link)
    heard = b""
    async with asyncio.timeout(10):
        try:
            while piece := await reader.read(len(SAID)):
                heard += piece
        except ConnectionResetError:
            pass
    assert len(heard) < len(SAID)
    assert SAID.startswith(heard)


async def test_a_direction_without_a_fault_is_left_alone(ends: Ends) -> None:
    ends.proxy.set_faults({BACK: Fault(is_cut=True)})
    reader = await ends.say(THERE)
    async with asyncio.timeout(10):
        assert await reader.readexactly(len(SAID)) == SAID
    assert not ends.proxy.done
