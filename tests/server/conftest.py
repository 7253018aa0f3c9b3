from collections.abc import Mapping

import pytest

from tests.server.event_loops import LoopFactory, loops_for


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, LoopFactory]:
    return loops_for(item, "asyncio")
