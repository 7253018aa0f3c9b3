from collections.abc import AsyncIterator, Mapping

import pytest

from tests.server.event_loops import LoopFactory, loops_for
from tests.server.http import harness
from tests.server.http.harness import Served, serving


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, LoopFactory]:
    """As a node runs, since what a call means does not depend on the loop."""
    return loops_for(item, "uvloop")


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
