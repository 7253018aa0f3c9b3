"""docs/cli.md says what `--help` says."""

from pathlib import Path

from raftkv.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_current() -> None:
    hint = "run: .venv/bin/python -m raftkv.cli.reference > docs/cli.md"
    assert PAGE.read_text() == reference(), hint
