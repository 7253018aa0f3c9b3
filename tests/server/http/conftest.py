import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.server.http import harness
from tests.server.http.harness import Served, serving


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Each asynchronous test on both loops: the node runs on uvloop where there is one."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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
