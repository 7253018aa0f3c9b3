"""docs/cli.md says what `--help` says."""

import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_current() -> None:
    # A process of its own: click keeps what other tests made it say.
    command = [sys.executable, "-m", "raftkv.cli.reference"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    hint = "run: .venv/bin/python -m raftkv.cli.reference > docs/cli.md"
    assert PAGE.read_text() == done.stdout, hint
