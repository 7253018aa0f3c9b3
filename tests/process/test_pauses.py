"""A leader that is stopped and comes back must not answer from the past (SIGSTOP, SIGCONT).

The requests that clients sent it meanwhile wait in its sockets: it answers them after it woke,
before it can have heard of its successor.
"""

import signal
from pathlib import Path

import pytest

from tests.process.cluster import Cluster
from tests.process.judge import judge
from tests.process.load import Load
from tests.process.test_leader_kills import wait_for_failover, wait_for_traffic

pytestmark = pytest.mark.process

# As many as `make test` has time for, and as `make test-long` has.
PAUSES = (1, pytest.param(4, marks=pytest.mark.long))


@pytest.mark.parametrize("pauses", PAUSES)
async def test_paused_leader_serves_no_stale_read(tmp_path: Path, pauses: int) -> None:
    async with Cluster(tmp_path) as cluster:
        async with Load(cluster.urls) as load:
            for _ in range(pauses):
                leader = await cluster.wait_leader()
                leader.send_signal(signal.SIGSTOP)
                await wait_for_failover(load)
                leader.send_signal(signal.SIGCONT)
                await wait_for_traffic(load)
                await cluster.wait_ready()
        await load.read_back()
    judge(load.history, tmp_path)
