import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.server.http import harness
from tests.server.http.harness import Served, serving


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """On uvloop, as a node runs; modules that say ``BOTH_LOOPS = True`` also on asyncio's loop.

    Those are about sockets, where the loops differ; what a call means does not depend on them.
    """
    module = item.getparent(pytest.Module)
    if module is not None and getattr(module.obj, "BOTH_LOOPS", False):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["fast", "aiohttp"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test on the short way, and with everything served by aiohttp."""
    way: str = request.param
    monkeypatch.setattr(harness, "is_fast", way == "fast")
    return way


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running
