"""What long answers share: patience with endpoints, and lines of a stream of bytes."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from raftkv.client.endpoints import Endpoint
from raftkv.client.errors import ClientError, UnreachableError
from raftkv.client.transport import (
    InterruptedRequestError,
    NotSentError,
    Request,
    Transport,
)
from raftkv.client.wire import Answer, failure


class BrokenStreamError(Exception):
    """The answer ended before its end; what came until then is good."""


class Streams:
    """Opens the same kind of answer again and again, on whichever endpoint gives one.

    Without any progress for the time that calls may take it gives up.
    """

    def __init__(
        self,
        transport: Transport,
        content_type: str,
        *,
        silence_seconds: float,
        is_endless: bool = False,
    ) -> None:
        """``is_endless``: once something came, never give up."""
        self._transport = transport
        self._content_type = content_type
        self._endpoint: Endpoint | None = None  # of the present answer
        self._silence_seconds = silence_seconds
        self._is_endless = is_endless
        self._deadline: float | None = self._new_deadline()

    def _new_deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._transport.timeout_seconds

    def progressed(self) -> None:
        """Something came: be patient anew."""
        self._deadline = None if self._is_endless else self._new_deadline()

    def leave(self, why: ClientError) -> None:
        """The present answer is of no more use: ask elsewhere. Raises ``why`` if it is time to."""
        if self._endpoint is not None:
            self._failed(self._endpoint)
        self._give_up_in_time(why)

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer (200), whose body is still to be read.

        Raises:
            BrokenStreamError: from inside the block; open again, from where it broke.
            ClientError: no node gives that answer.
        """
        while True:
            endpoint = self._endpoint = await self._next_endpoint()
            is_good = False
            try:
                async with self._transport.stream(
                    endpoint.url, request, silence_seconds=self._silence_seconds
                ) as response:
                    if response.status == 200 and response.content_type == self._content_type:
                        is_good = True
                        self._transport.pool.succeeded(endpoint)
                        yield response
                        return
                    body = await response.read()
                    answer = Answer(response.status, response.headers.copy(), body)
                self._refused(endpoint, answer)
            except (NotSentError, InterruptedRequestError) as error:
                self._failed(endpoint)
                if is_good:
                    raise BrokenStreamError(str(error)) from error
                what = "cannot connect to" if isinstance(error, NotSentError) else "no answer from"
                self._give_up_in_time(UnreachableError(f"{what} {_named(endpoint, error)}"))

    async def _next_endpoint(self) -> Endpoint:
        loop = asyncio.get_running_loop()
        endpoint, wait_seconds = self._transport.pool.pick(loop.time())
        if wait_seconds:
            await asyncio.sleep(wait_seconds)
        return endpoint

    def _refused(self, endpoint: Endpoint, answer: Answer) -> None:
        error = failure(answer, is_write=False)
        problem = answer.problem()
        if answer.status < 429 or (problem is not None and not problem.retryable):
            raise error
        self._failed(endpoint, answer.retry_after_seconds())
        self._give_up_in_time(error)

    def _failed(self, endpoint: Endpoint, retry_after_seconds: float = 0.0) -> None:
        now = asyncio.get_running_loop().time()
        self._transport.pool.failed(endpoint, now, retry_after_seconds)

    def _give_up_in_time(self, error: ClientError) -> None:
        if self._deadline is not None and asyncio.get_running_loop().time() >= self._deadline:
            raise error


async def lines(chunks: AsyncIterable[bytes], line_bytes_max: int) -> AsyncIterator[bytes]:
    """The lines of a stream without their ends; what follows the last end is dropped.

    Raises `BrokenStreamError` when a line is longer than ``line_bytes_max``.
    """
    pending: list[bytes] = []
    size = 0
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pending.append(first)
        size += len(first)
        for other in others:
            yield b"".join(pending).removesuffix(b"\r")
            pending, size = [other], len(other)
        if size > line_bytes_max:
            raise BrokenStreamError(f"a line is longer than {line_bytes_max} bytes")


def _named(endpoint: Endpoint, error: Exception) -> str:
    origin = str(endpoint.url.origin())
    return str(error) if str(error).startswith(origin) else f"{origin}: {error}"
