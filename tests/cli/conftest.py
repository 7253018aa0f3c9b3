import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

import pytest

from raftkv.cli import common
from tests.client.contract_server import ContractServer, contract_server
from tests.server.http.fake_driver import FakeDriver
from tests.server.http.harness import serving

Served = TypeVar("Served")


@contextmanager
def in_a_thread(serve: Callable[[], AbstractAsyncContextManager[Served]]) -> Iterator[Served]:
    """What is served on a loop of its own; commands run loops of their own, so not in ours."""
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, Served]] = Future()

    async def run() -> None:
        done = asyncio.Event()
        async with serve() as served:
            ready.set_result((asyncio.get_running_loop(), done, served))
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="server")
    thread.start()
    loop, done, served = ready.result(timeout=10)
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(timeout=10)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """A node that the commands find through RAFTKV_ENDPOINTS."""
    fake = FakeDriver()
    with in_a_thread(lambda: serving(fake)) as served:
        monkeypatch.setenv("RAFTKV_ENDPOINTS", f"http://127.0.0.1:{served.port}")
        yield fake


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ContractServer]:
    """A server that keeps the contract, found through RAFTKV_ENDPOINTS."""
    with in_a_thread(contract_server) as served:
        monkeypatch.setenv("RAFTKV_ENDPOINTS", served.url)
        yield served


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are printed as for a person."""
    monkeypatch.setattr(common, "is_terminal", lambda: True)
