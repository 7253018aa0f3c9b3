"""How a node's process uses Python (node design, rules 26 and 27), seen from within a real one."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.process.ports import free_port

# A node of no cluster, which tells about itself once it serves, and ends.
_PROBE = """
import gc, json, os, sys
from raftkv.server import process

class Probed(process.NodeProcess):
    async def _start(self):
        said = {"frozen_before": gc.get_freeze_count(), "thresholds_before": gc.get_threshold()}
        await super()._start()
        watched = {id(each) for each in gc.get_objects()}
        fresh = [[]]
        runs = self._gc_runs()
        gc.collect()
        said |= {
            "switch_seconds": sys.getswitchinterval(),
            "enabled": gc.isenabled(),
            "frozen": gc.get_freeze_count(),
            "thresholds": gc.get_threshold(),
            "recovered_is_watched": id(self._driver._node.core) in watched,
            "fresh_is_watched": id(fresh) in {id(each) for each in gc.get_objects()},
            "pauses_observed": self._gc_runs() - runs,
        }
        print(json.dumps(said), file=sys.stderr)
        self._on_signal(0.0)

    def _gc_runs(self):
        (family,) = self._metrics.gc_pause_seconds.collect()
        return max(each.value for each in family.samples if each.name.endswith("_count"))

process.NodeProcess = Probed
from raftkv.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the process tells."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    arguments = ("--data", str(tmp_path_factory.mktemp("n1")), "--id", "n1")
    ended = subprocess.run(
        [
            *(sys.executable, "-c", _PROBE, "node", *arguments),
            *("--addr", addresses[0], "--peer-addr", addresses[1]),
        ],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    line = next(line for line in ended.stderr.splitlines() if line.startswith("{"))
    told: dict[str, Any] = json.loads(line)
    return told


def test_rule_26_a_thread_waits_half_a_millisecond_for_the_interpreter(
    said: dict[str, Any],
) -> None:
    assert said["switch_seconds"] == pytest.approx(0.0005)


def test_rule_27_what_lives_from_the_start_on_is_never_collected_again(
    said: dict[str, Any],
) -> None:
    assert said["frozen_before"] == 0
    assert said["frozen"] > 10_000
    assert not said["recovered_is_watched"]
    # What comes later is collected as ever, but seldom.
    assert said["fresh_is_watched"]
    assert said["enabled"]
    assert said["thresholds"][0] >= 20 * said["thresholds_before"][0]


def test_rule_27_pauses_of_the_collector_are_exported(said: dict[str, Any]) -> None:
    assert said["pauses_observed"] == 1
