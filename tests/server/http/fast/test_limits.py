"""Limits at speed: overload is told at once and ends when it is over; idle sockets cost little."""

import asyncio
import tracemalloc
from contextlib import AsyncExitStack
from random import Random

from raftkv.node.events import Effect, Event, ReadRequest, ReadResult, Reply, WriteRequest
from raftkv.server.driver import Driver
from raftkv.server.http.app import create_server
from raftkv.server.http.fast.connection import FastConnection
from raftkv.server.http.routes import Listener
from raftkv.server.http.settings import HttpSettings
from raftkv.server.metrics import Metrics
from tests.server.fakes import FakeDisk, FakeMetrics, FakeNode
from tests.server.http.harness import SECONDS_MAX, serving, until

BOTH_LOOPS = True

GET = b"GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
PENDING_MAX = 10


class LazyNode(FakeNode):
    """Answers nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__(react=self.ask)
        self.asked: list[Event] = []
        self.is_awake = False

    def ask(self, event: Event) -> list[Effect]:
        if isinstance(event, ReadRequest | WriteRequest):
            self.asked.append(event)
        return self.answers() if self.is_awake else []

    def answers(self) -> list[Effect]:
        asked, self.asked = self.asked, []
        reads = (event for event in asked if isinstance(event, ReadRequest))
        return [Reply(read.id, ReadResult(None, 1)) for read in reads]


async def test_ten_times_too_many_requests_are_told_so_at_once_and_then_served_again() -> None:
    node = LazyNode()
    disk, metrics = FakeDisk(), FakeMetrics()
    most = PENDING_MAX
    driver = Driver(node, disk, metrics, Random(1), tick_seconds=60, pending_requests_max=most)
    server = create_server(Listener.CLIENT, driver, HttpSettings("n1"), Metrics(), host="127.0.0.1")
    sockets = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    port = sockets.sockets[0].getsockname()[1]

    async def ask() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            statuses = []
            for _ in range(2):
                writer.write(GET)
                head = await reader.readuntil(b"\r\n\r\n")
                statuses.append(int(head.split(b" ")[1]))
                await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
            return statuses[0]
        finally:
            writer.close()

    async with asyncio.timeout(SECONDS_MAX):
        asking = [asyncio.create_task(ask()) for _ in range(10 * PENDING_MAX)]
        refused = 9 * PENDING_MAX
        await until(lambda: sum(task.done() for task in asking) == refused)
        # What is in flight is bounded, and nobody else waits.
        assert len(node.asked) == driver.pending_count == PENDING_MAX
        assert {task.result() for task in asking if task.done()} == {429}
        node.is_awake = True
        for effect in node.answers():
            driver._perform[type(effect)](effect)
        statuses = [await task for task in asking]
        assert statuses.count(404) == PENDING_MAX
        assert driver.pending_count == 0
    sockets.close()
    await server.shutdown(1.0)
    await driver.close()


# In one process each has two descriptors, of which 1024 are a common limit.
SOCKETS = 400


async def test_idle_connections_stay_and_others_are_served() -> None:
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving())
        idle = [await stack.enter_async_context(served.connect()) for _ in range(SOCKETS)]
        for raw in idle:
            raw.send(GET)
        for raw in idle:
            assert (await raw.answer()).status == 404
        assert served.server.connection_count == SOCKETS
        assert served.server.in_flight == 0
        assert (await served.ask("GET", "/v1/kv/a")).status == 404
        assert served.server._fast is not None
        assert not served.server._fast.timed


COUNT = 2000


async def test_an_idle_connection_takes_little_memory() -> None:
    """Of ours: sockets and their transports are the loop's and the kernel's."""
    async with serving() as served:
        fast = served.server._fast
        assert fast is not None
        transport = asyncio.Transport()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            connections = [FastConnection(fast) for _ in range(COUNT)]
            for connection in connections:
                connection.connection_made(transport)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(fast.connections) == COUNT
        assert (after - before) / COUNT < 2000
        for connection in connections:
            connection.connection_lost(None)
        assert not fast.connections
        assert not fast.timed
