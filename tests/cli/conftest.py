import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from tests.server.http.fake_driver import FakeDriver
from tests.server.http.harness import serving


@contextmanager
def serving_in_a_thread(driver: FakeDriver) -> Iterator[str]:
    """An endpoint with ``driver`` behind it; commands run loops of their own, so not in ours."""
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()

    async def serve() -> None:
        done = asyncio.Event()
        async with serving(driver) as served:
            ready.set_result((asyncio.get_running_loop(), done, served.port))
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="server")
    thread.start()
    loop, done, port = ready.result(timeout=10)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(timeout=10)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """A node that the commands find through RAFTKV_ENDPOINTS."""
    fake = FakeDriver()
    with serving_in_a_thread(fake) as endpoint:
        monkeypatch.setenv("RAFTKV_ENDPOINTS", endpoint)
        yield fake
