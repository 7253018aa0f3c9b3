"""A run that was to test something fails when all of it was skipped."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SKIPPED = """
import pytest
def test_what_cannot_be_done_here():
    pytest.skip("no such disk")
"""
PASSED = "def test_what_can(): pass\n"


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        (SKIPPED, ("--some-must-run",), pytest.ExitCode.NO_TESTS_COLLECTED),
        (SKIPPED + PASSED, ("--some-must-run",), pytest.ExitCode.OK),
        (SKIPPED, (), pytest.ExitCode.OK),
    ],
)
def test_a_run_of_which_all_is_skipped_fails_where_something_must_run(
    tmp_path: Path, text: str, options: tuple[str, ...], code: pytest.ExitCode
) -> None:
    (tmp_path / "test_it.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugins = ("-p", "tests.conftest", "-p", "no:cacheprovider")
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *plugins, *options),
            *("-c", str(tmp_path / "pytest.ini"), str(tmp_path)),
        ],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code, ended.stdout
    assert ("NOTHING WAS TESTED" in ended.stdout) == (code != pytest.ExitCode.OK)
