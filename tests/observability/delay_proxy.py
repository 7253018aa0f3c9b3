"""A TCP proxy on loopback that hands bytes on late: a slow network in front of one node."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

_PIECE_BYTES = 65536
_QUEUED_MAX = 10_000


class DelayProxy:
    """Listens on ``port`` and forwards to ``target_port``; both on 127.0.0.1."""

    def __init__(self, port: int, target_port: int) -> None:
        self._port = port
        self._target_port = target_port
        self.delay_seconds = 0.0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forward(reader, there[1]))
            group.create_task(self._forward(there[0], writer))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Each piece leaves when it has waited for the delay, in order."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_MAX)

        async def send() -> None:
            while True:
                due_at, piece = await queue.get()
                await asyncio.sleep(max(0.0, due_at - loop.time()))
                if not piece:
                    return
                writer.write(piece)
                await writer.drain()

        sending = asyncio.create_task(send())
        with suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                await queue.put((loop.time() + self.delay_seconds, piece))
        await queue.put((loop.time(), b""))
        try:
            with suppress(OSError):
                await sending
        finally:
            sending.cancel()
            writer.close()
