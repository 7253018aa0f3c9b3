"""`make e2e`: RaftKV on a real Kubernetes, scenario by scenario, with a table at the end."""

import argparse
import os
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from itertools import groupby
from pathlib import Path

from tests.e2e import diagnostics
from tests.e2e.environment import open_cluster
from tests.e2e.kubectl import E2EError, Kubectl
from tests.e2e.operator_install import NAMESPACE as OPERATOR_NAMESPACE
from tests.e2e.report import Row, render, render_page
from tests.e2e.scenarios import LIGHT_SCENARIOS, LONG_SCENARIOS, SCENARIOS, Scenario
from tests.e2e.suite import CLUSTERS_NAMESPACE, Suite

_LIGHT_MAX = 3  # side by side


def main() -> int:
    """Run the scenarios; 0 when all passed."""
    options = _parse_options()
    known = (*SCENARIOS, *LONG_SCENARIOS)
    if options.list:
        for scenario in known:
            is_long = scenario in LONG_SCENARIOS
            _say(f"{scenario.name:36} {scenario.behaviour}{'  (--long)' if is_long else ''}")
        return 0
    names = {scenario.name for scenario in known}
    unknown = {*(options.only or ()), *options.without} - names
    if unknown:
        _say(f"no such scenario: {', '.join(sorted(unknown))}; see --list")
        return 2
    wanted = options.only or [item.name for item in (LONG_SCENARIOS if options.long else SCENARIOS)]
    chosen = [item for item in known if item.name in wanted and item.name not in options.without]
    began = time.monotonic()
    try:
        with open_cluster(options.image, keep=options.keep) as kubectl:
            rows = _run_all(kubectl, options.image, chosen, keep=options.keep)
    except E2EError as error:
        _say(f"cannot run: {error}")
        return 1
    failed = [row for row in rows if row.failure]
    _say(f"\n{render(rows)}\n")
    if options.report is not None:
        about = f"{os.cpu_count()} processors, {time.monotonic() - began:.0f} s in all"
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(render_page(rows, about))
    for row in failed:
        _say(f"FAILED {row.name}: {row.failure}")
    _say(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these scenarios only")
    parser.add_argument("--without", nargs="+", metavar="NAME", default=[], help="leave these out")
    parser.add_argument(
        "--long", action="store_true", help="the long scenarios, of `make e2e-long`"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--keep", action="store_true", help="leave everything as it is at the end")
    parser.add_argument("--image", default="raftkv:dev", help="image of operator and nodes")
    return parser.parse_args()


def _run_all(kubectl: Kubectl, image: str, chosen: list[Scenario], *, keep: bool) -> list[Row]:
    suite = Suite(kubectl, image)
    suite.open()
    rows: list[Row] = []
    began = time.monotonic()
    for is_light, group in groupby(chosen, lambda scenario: scenario in LIGHT_SCENARIOS):
        scenarios = list(group)
        if is_light:
            # A suite for each: what they share is made before.
            suite.need_operator()
            suite.client.wait_back()
            suites = [copy(suite) for _ in scenarios]
            with ThreadPoolExecutor(_LIGHT_MAX) as pool:
                rows += pool.map(partial(_run, began), suites, scenarios)
            continue
        rows += (_run(began, suite, scenario) for scenario in scenarios)
    if not keep:
        closing = Scenario("clean-up", "nothing is left and nothing hangs", _close)
        rows.append(_run(began, suite, closing))
    return rows


def _run(start: float, suite: Suite, scenario: Scenario) -> Row:
    _say(f"[{time.monotonic() - start:6.1f} s] {scenario.name}: {scenario.behaviour}")
    row = suite.row = Row(scenario.name, scenario.behaviour)
    began = time.monotonic()
    try:
        scenario.run(suite)
    except E2EError as error:
        row.failure = str(error)
    except Exception:  # noqa: BLE001 - one scenario's bug must not hide the others' results
        row.failure = traceback.format_exc()
    row.seconds = time.monotonic() - began
    if row.failure:
        _say(f"FAILED {row.name} after {row.seconds:.1f} s: {row.failure}")
        _say(diagnostics.collect(suite.kubectl, [CLUSTERS_NAMESPACE], OPERATOR_NAMESPACE))
    return row


def _close(suite: Suite) -> None:
    suite.close()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the harness reports to its terminal


if __name__ == "__main__":
    sys.exit(main())
