"""The judgement is worth something: reads that may be stale do not pass it on a real cluster."""

from pathlib import Path

import pytest

from tests.linearizability.checker import find_violation
from tests.linearizability.witness import find_revision_violation
from tests.process.cluster import Cluster, wait_until
from tests.process.load import Load

pytestmark = pytest.mark.process


async def test_local_reads_of_a_healthy_cluster_are_found_stale(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        async with Load(cluster.urls, pause_seconds=0.0, consistency="local") as load:
            await wait_until("a stale read", lambda: stale(load), 30.0)
        assert find_violation(load.history) is not None


async def stale(load: Load) -> bool | None:
    """Whether a read showed an older revision than an answer before it; looked at in steps."""
    found = len(load.history) > 500 and find_revision_violation(load.history) is not None
    return found or None
