"""For all tests: what failed comparisons show, the order of tests for workers, no empty runs."""

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option for targets of which all may be skipped where the machine lacks something."""
    parser.addoption("--some-must-run", action="store_true", help="fail if all tests are skipped")


def _has_run_in_vain(config: pytest.Config, exitstatus: int) -> bool:
    """Whether a success is one for which nothing was tested, although something was to be."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not config.getoption("--some-must-run") or exitstatus or reporter is None:
        return False
    return not any(reporter.stats.get(outcome) for outcome in ("passed", "xfailed"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn it into a failure."""
    if _has_run_in_vain(session.config, exitstatus):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Say why a run without a failed test has failed."""
    if _has_run_in_vain(terminalreporter.config, exitstatus):
        terminalreporter.section("NOTHING WAS TESTED", red=True)
        terminalreporter.line("All that was to run was skipped, for the reasons below.", red=True)
