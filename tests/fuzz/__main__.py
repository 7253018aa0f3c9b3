"""Fuzz every target under atheris, one after the other (`make fuzz`).

    python -m tests.fuzz --seconds 60
    python -m tests.fuzz --only wal_recovery --seconds 600

Corpora begin with `tests.fuzz.seeds` and are kept in build/fuzz, to go on from. An input that
breaks a promise is left there as `NAME/crash-*`; `python -m tests.fuzz.one NAME FILE` tries it
again. Needs the packages of requirements/fuzz.lock.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.fuzz.seeds import seeds_of
from tests.fuzz.targets import TARGETS

_PLACE = Path("build/fuzz")
_INPUT_BYTES_MAX = {"snapshot_header": 70_000}


def fuzz(name: str, seconds: int, seed: int) -> int:
    """Fuzz one target; the fuzzer's exit code."""
    corpus = _PLACE / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds_of(name)):
        (corpus / f"seed-{number}").write_bytes(data)
    print(f"--- {name}", flush=True)  # noqa: T201 the report
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.one", name, str(corpus)),
            *(f"-max_total_time={seconds}", f"-artifact_prefix={corpus}/", f"-seed={seed}"),
            *(f"-max_len={_INPUT_BYTES_MAX.get(name, 4096)}", "-rss_limit_mb=2048"),
            *("-timeout=20", "-verbosity=0", "-print_final_stats=1"),
        ],
        check=False,
    )
    return ended.returncode


def main() -> int:
    """The exit code: 1 if any target broke a promise."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--only", choices=sorted(TARGETS), action="append")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    names = arguments.only or list(TARGETS)
    each = max(1, arguments.seconds // len(names))
    broken = [name for name in names if fuzz(name, each, arguments.seed)]
    print(f"broken: {', '.join(broken) or 'none'}")  # noqa: T201 the report
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
