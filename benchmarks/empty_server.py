"""`python -m benchmarks.empty_server PORT`: answers every put at once, to test the load generator.

What the generator measures of it is what the generator itself costs. It counts requests by their
blank lines, so it is for `benchmarks.open_loop` only.
"""

import asyncio
import sys
from typing import Final, cast

import uvloop
from typing_extensions import override

_ANSWER: Final = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 2\r\n\r\n{}'


class _Empty(asyncio.Protocol):
    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if count := data.count(b"\r\n\r\n"):
            self._transport.write(_ANSWER * count)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Empty, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
