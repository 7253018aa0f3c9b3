from collections.abc import AsyncIterator

import pytest

from tests.server.http.harness import Served, serving


@pytest.fixture
async def served_page() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running
