"""`raftkv status`: one line for each node, and whether any answered."""

import json
import os

import pytest
from click.testing import CliRunner, Result

from raftkv.cli import common
from raftkv.cli.main import main
from tests.server.http.fake_driver import LEADER_ID, FakeDriver

NOBODY = "http://127.0.0.1:9"


def status(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["status", *arguments], catch_exceptions=False)


def test_through_a_pipe_a_line_of_fields_for_each_node(driver: FakeDriver) -> None:
    driver.change(role="follower", leader=LEADER_ID, leader_name=None)
    endpoint = os.environ["RAFTKV_ENDPOINTS"]
    shown = status("--endpoint", endpoint, "--endpoint", NOBODY)
    assert shown.exit_code == 0
    first, second = shown.stdout.splitlines()
    assert first.split("\t") == [
        endpoint, "n1", "running", "follower", "7", "-", "12", "11", "13", "100",
    ]  # fmt: skip
    assert second.split("\t") == [NOBODY, *"-" * 9]


def test_json(driver: FakeDriver) -> None:
    endpoint = os.environ["RAFTKV_ENDPOINTS"]
    shown = status("-o", "json", "--endpoint", endpoint, "--endpoint", NOBODY)
    first, second = json.loads(shown.stdout)
    assert (first["endpoint"], first["name"], first["term"]) == (endpoint, "n1", 7)
    assert second == {
        "endpoint": NOBODY,
        "error": f"cannot connect to {NOBODY}: connection refused",
    }


def test_a_table_for_people_fits_80_columns(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    header, row, failed = status(
        "--endpoint", os.environ["RAFTKV_ENDPOINTS"], "--endpoint", NOBODY
    ).stdout.splitlines()
    assert header.split()[:5] == ["endpoint", "node", "state", "role", "term"]
    assert row.split()[1:] == [
        "n1", "running", "leader", "7", "n1", "12", "11", "13", "100",
    ]  # fmt: skip
    assert "no answer" in failed


def test_when_no_node_answers_it_exits_with_1() -> None:
    shown = status("--endpoint", NOBODY)
    assert shown.exit_code == 1
    assert shown.stderr == f"Error: cannot connect to {NOBODY}: connection refused\n"
