"""A listener on a real loopback socket with a `FakeDriver` behind it, and raw clients for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from raftkv.server.http.app import HttpServer, create_server
from raftkv.server.http.authorisation import Authenticate
from raftkv.server.http.routes import Listener
from raftkv.server.http.settings import HttpSettings
from raftkv.server.metrics import Metrics
from tests.server.http.fake_driver import FakeDriver

# Whether listeners serve keys on the short way where they can; `both_ways` tries the other too.
is_fast = True

# Every exchange with a loopback server ends within this, or the test fails.
SECONDS_MAX = 10.0


@dataclass(frozen=True)
class Answer:
    """One parsed answer."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def code(self) -> str:
        """The stable code of a problem; checks the shape that every problem has."""
        assert self.headers["Content-Type"] == "application/problem+json"
        problem = self.json()
        members = {"type", "title", "status", "detail", "code", "retryable", "outcome"}
        assert members <= set(problem) <= members | {"branch", "oldest_revision", "op", "reason"}
        assert problem["status"] == self.status
        code = problem["code"]
        assert isinstance(code, str)
        return code


class Raw:
    """A client that sends exactly the bytes it is given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, is_head: bool = False) -> Answer:
        """The next answer; interim answers are skipped."""
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
                status_line, *lines = head.strip().split("\r\n")
                status = int(status_line.split(" ")[1])
                if status >= 200:
                    break
            headers: CIMultiDict[str] = CIMultiDict()
            for line in lines:
                name, _, value = line.partition(": ")
                headers.add(name, value)
            has_body = not is_head and status != 304
            length = int(headers.get("Content-Length", "0")) if has_body else 0
            return Answer(status, headers, await self.reader.readexactly(length))

    async def until_closed(self) -> bytes:
        """Everything that still comes before the server closes the connection."""
        async with asyncio.timeout(SECONDS_MAX):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass(frozen=True)
class Served:
    """A running listener."""

    driver: FakeDriver
    server: HttpServer
    metrics: Metrics
    port: int

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Raw]:
        raw = Raw(*await asyncio.open_connection("127.0.0.1", self.port))
        try:
            yield raw
        finally:
            await raw.close()

    async def ask(
        self,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
    ) -> Answer:
        """One request on a connection of its own, with the target exactly as given."""
        lines = dict(headers).items() if isinstance(headers, dict) else headers or []
        head = f"{method} {target} HTTP/1.1\r\n"
        if not any(name.lower() == "host" for name, _ in lines):
            head += "Host: localhost\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines)
        if body is not None:
            head += f"Content-Length: {len(body)}\r\n"
        async with self.connect() as raw:
            raw.send(head.encode("latin-1") + b"\r\n" + (body or b""))
            return await raw.answer(is_head=method == "HEAD")


@asynccontextmanager
async def serving(
    driver: FakeDriver | None = None,
    *,
    listener: Listener = Listener.CLIENT | Listener.ADMIN,
    settings: HttpSettings | None = None,
    host: str = "127.0.0.1",
    authenticate: Authenticate | None = None,
) -> AsyncIterator[Served]:
    """Serve on a free port until the block ends. ``host`` is what the server believes."""
    driver = driver or FakeDriver()
    metrics = Metrics()
    settings = settings or HttpSettings(node_name="n1")
    server = create_server(
        listener,
        driver,
        settings,
        metrics,
        host=host,
        authenticate=authenticate,
        is_fast=is_fast,
    )
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield Served(driver, server, metrics, site.port)
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition()`` holds; fails after `SECONDS_MAX`."""
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110 the server under test has no event for it
            await asyncio.sleep(0.001)
