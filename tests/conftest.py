"""For all tests: the order in which parallel workers take them."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each worker an equal part of the tests of real processes, to begin with.

    They are the longest, and wait while others compute. A worker's first share of the tests is an
    unbroken piece of the list.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    with_processes = [item for item in items if item.get_closest_marker("process")]
    others = [item for item in items if not item.get_closest_marker("process")]
    items[:] = [
        item
        for worker in range(workers)
        for part in (with_processes, others)
        for item in part[worker::workers]
    ]
