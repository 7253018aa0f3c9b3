"""The leader is killed again and again under load: nothing acknowledged is lost, no read lies."""

from pathlib import Path
from statistics import median
from time import monotonic_ns

import pytest

from tests.linearizability.history import Operation
from tests.process.cluster import Cluster, NodeProcess, wait_until
from tests.process.judge import judge, summary
from tests.process.load import Load

pytestmark = pytest.mark.process

# As many as `make test` has time for, as `make test-long` has, and as `make chaos` has.
KILLS = (2, pytest.param(8, marks=pytest.mark.long), pytest.param(20, marks=pytest.mark.slow))
FAILOVER_SECONDS_MEDIAN_MAX = 1.0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kills", KILLS)
async def test_killing_the_leader_again_and_again_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kills: int
) -> None:
    gaps_seconds: list[float] = []
    async with Cluster(tmp_path) as cluster:
        async with Load(cluster.urls) as load:
            for _ in range(kills):
                leader = await cluster.wait_leader()
                gaps_seconds.append(await kill_and_time(load, leader))
                leader.start()
                await cluster.wait_ready()
                await wait_for_traffic(load)
        await load.read_back()
    judge(load.history, tmp_path)
    with capsys.disabled():
        print(  # noqa: T201 the numbers are what the run is for
            f"\n{kills} kills of the leader: first accepted write after "
            f"{median(gaps_seconds):.2f} s (median), {min(gaps_seconds):.2f} to "
            f"{max(gaps_seconds):.2f} s; {summary(load.history)}"
        )
    assert median(gaps_seconds) <= FAILOVER_SECONDS_MEDIAN_MAX


async def kill_and_time(load: Load, leader: NodeProcess) -> float:
    """SIGKILL; the seconds until a write called after it was acknowledged."""
    killed_ns = monotonic_ns()
    leader.kill()
    accepted = await wait_for_failover(load)
    assert accepted.return_ns is not None
    return (accepted.return_ns - killed_ns) / 1e9


async def wait_for_failover(load: Load) -> Operation:
    """The first acknowledged of the writes called from now on."""
    now_ns = monotonic_ns()

    async def look() -> Operation | None:
        return load.first_write_called_after(now_ns)

    return await wait_until("a write accepted by a new leader", look, 15.0)


async def wait_for_traffic(load: Load) -> None:
    """Until every client made some requests, so that each kill meets a busy cluster."""
    enough = len(load.history) + 20 * load.clients

    async def look() -> bool | None:
        return len(load.history) >= enough or None

    await wait_until("the load goes on", look, 15.0)
