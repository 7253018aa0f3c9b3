"""For all tests: what failed comparisons show, and the order in which workers take the tests."""

import os

import pytest

# They compare on behalf of several test modules; pytest shows operands only where it is told to.
pytest.register_assert_rewrite("tests.kv.against_model", "tests.operator.scenarios")


@pytest.hookimpl(trylast=True)  # after the choice by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give all workers but one an equal part of the tests of real processes, to begin with.

    They are the longest, and wait while others compute; one worker computes from the start. A
    worker's first share of the tests is an unbroken piece of the list.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    with_processes = [item for item in items if item.get_closest_marker("process")]
    others = [item for item in items if not item.get_closest_marker("process")]
    starting = max(1, workers - 1)
    share, rest = divmod(len(items), workers)
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        piece = with_processes[worker::starting] if worker < starting else []
        computing = share + (worker < rest) - len(piece)
        ordered += piece + others[:computing]
        del others[:computing]
    items[:] = ordered
