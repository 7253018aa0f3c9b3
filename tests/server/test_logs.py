"""Log lines: what each carries, and what none may show."""

import json
import logging
from collections.abc import Iterator

import pytest

from raftkv.server.logs import LogContext, configure_logging

SECRET = "a-clients-value"


@pytest.fixture(autouse=True)
def _restored_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str], log_format: str, level: str = "info") -> list[str]:
    """What two lines and a traceback look like."""
    context = LogContext("n1")
    configure_logging(context, log_format, level)
    log = logging.getLogger("raftkv.server.test")
    log.info("founding cluster %s", "c1")
    context.term, context.role = 3, "leader"
    log.debug("not shown")
    try:
        _fail(SECRET)
    except ValueError:
        log.exception("a bug")
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def _fail(value: str) -> None:
    raise ValueError(len(value))


def test_json_lines_carry_node_term_and_role(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (json.loads(line) for line in lines(capsys, "json"))
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "founding cluster c1",
        "level": "info",
        "node": "n1",
        "term": 0,
        "role": "starting",
    }
    assert (second["term"], second["role"], second["level"]) == (3, "leader", "error")
    assert "ValueError" in second["exception"]


def test_text_lines_carry_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    first = lines(capsys, "text")[0]
    for part in ("founding cluster c1", "node=n1", "term=0", "role=starting"):
        assert part in first


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_shows_no_variables(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    assert SECRET not in "\n".join(lines(capsys, log_format))


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    [only] = lines(capsys, "json", "error")
    assert json.loads(only)["event"] == "a bug"
