"""Write the dashboards and the rules into the chart, or say which are out of date."""

import argparse
import sys
from pathlib import Path
from typing import Final

import yaml

from observability.alerts import rules
from observability.dashboards import dashboards

FILES: Final = Path(__file__).parents[1] / "charts" / "raftkv-operator" / "files"
RULES: Final = FILES / "alerts.yaml"
DASHBOARDS: Final = FILES / "dashboards"

_HEAD: Final = "# Made from observability/alerts.py by `make dashboards`. Do not edit.\n"


def wanted() -> dict[Path, str]:
    """Every file that is made, with its text."""
    texts = {DASHBOARDS / name: text for name, text in dashboards().items()}
    return {**texts, RULES: _HEAD + yaml.safe_dump(rules(), sort_keys=False, width=100)}


def outdated() -> list[Path]:
    """Files that are not as they would be made, and those that would not be made."""
    files = wanted()
    differing = [
        path for path, text in files.items() if not path.exists() or path.read_text() != text
    ]
    return differing + [path for path in DASHBOARDS.glob("*") if path not in files]


def main() -> int:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write instead of comparing")
    is_writing = parser.parse_args().write
    found = outdated()
    if is_writing:
        DASHBOARDS.mkdir(exist_ok=True)
        for path in found:
            path.unlink(missing_ok=True)
        for path, text in wanted().items():
            path.write_text(text)
    for path in found:
        sys.stdout.write(f"{path.name} {'written' if is_writing else 'differs'}\n")
    return int(bool(found) and not is_writing)


if __name__ == "__main__":
    sys.exit(main())
