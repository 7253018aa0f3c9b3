"""For all tests: the order in which workers take them."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of real processes first: they are the longest, and wait while others compute."""
    items.sort(key=lambda item: item.get_closest_marker("process") is None)
