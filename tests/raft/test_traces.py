"""The golden traces: one fact a file, see `tests.raft.trace_runner`."""

import os
from pathlib import Path

import pytest

from tests.raft.trace_runner import parse_trace, run_file

TRACES = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_trace(path: Path) -> None:
    text, actual = run_file(path)
    if os.environ.get("REWRITE_TRACES") == "1":
        path.write_text(actual)
    else:
        assert text == actual


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_trace_opens_with_the_fact_it_proves(path: Path) -> None:
    trace = parse_trace(path.read_text())
    assert trace.fact[0].isupper()
    assert trace.fact.endswith(".")
    assert any(block.expected != ["ok"] for block in trace.blocks)


def test_every_rule_of_the_bug_catalogue_that_is_the_cores_has_its_trace() -> None:
    names = [path.stem for path in TRACES]
    for rule in range(1, 18):
        assert any(name.startswith(f"rule_{rule:02}_") for name in names), rule
    assert len(names) >= 40
