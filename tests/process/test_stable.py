"""Nobody is elected while all is well, however busy the machine is (`make test-stable`).

Node rule 17: with the default times no leader changes in ten minutes in which every core is busy
and some node's disk hangs for half a second every ten.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from time import monotonic

import pytest

from tests.process.cluster import Cluster
from tests.process.judge import judge
from tests.process.load import Load
from tests.process.volume import go_on, volumes

SECONDS = float(os.environ.get("STABLE_SECONDS", "600"))
STALL_SECONDS = 0.5
EVERY_SECONDS = 10.0
SETTLE_SECONDS = 5.0

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(SECONDS + 300)]


@contextmanager
def busy_cores() -> Iterator[None]:
    """A process for each core that does nothing but compute."""
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


async def test_rule_17_no_leader_changes_at_full_cpu_and_with_stalled_disks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with volumes(tmp_path, 3, 640 << 20) as made:
        async with Cluster(tmp_path) as cluster:
            try:
                await cluster.wait_leader()
                await asyncio.sleep(SETTLE_SECONDS)
                leader = await cluster.wait_leader()
                before = await cluster.status(leader)
                assert before is not None
                nodes = cycle(cluster.nodes)
                stalls = 0
                with busy_cores():
                    async with Load(cluster.urls, clients=4, pause_seconds=0.02) as load:
                        end_at = monotonic() + SECONDS
                        while monotonic() < end_at:
                            await asyncio.sleep(min(EVERY_SECONDS, SECONDS / 4))
                            volume = made.of(next(nodes))
                            volume.stall()
                            await asyncio.sleep(STALL_SECONDS)
                            volume.go_on()
                            stalls += 1
            finally:
                go_on(cluster, made)
            after = await cluster.status(await cluster.wait_leader())
            assert after is not None
            await load.read_back()
    judge(load.history, tmp_path)
    changes = after["term"] - before["term"]
    with capsys.disabled():
        print(  # noqa: T201 the figures are what the run is for
            f"\n{SECONDS:g} s, {stalls} stalls of {STALL_SECONDS} s, {len(load.history)} requests, "
            f"machine's load {os.getloadavg()[0]:.1f}: {changes} changes of leader"
        )
    assert (after["term"], after["name"]) == (before["term"], before["name"])
