"""The judgement is worth something: reads that may be stale do not pass it on a real cluster."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.linearizability.checker import Violation, find_violation
from tests.linearizability.history import Operation
from tests.linearizability.witness import find_revision_violation
from tests.process.cluster import Cluster, wait_until
from tests.process.load import Load

pytestmark = pytest.mark.process


async def test_local_reads_of_a_healthy_cluster_are_found_stale(tmp_path: Path) -> None:
    async with (
        Cluster(tmp_path) as cluster,
        Load(cluster.urls, pause_seconds=0.0, consistency="local") as load,
    ):
        # The search sees one key at a time, so it may need more evidence than the witness.
        await wait_until("the witness", lambda: refused(find_revision_violation, load), 30.0)
        await wait_until("the search", lambda: refused(find_violation, load), 30.0)


async def refused(find: Callable[[list[Operation]], Violation | None], load: Load) -> bool | None:
    """Whether a checker refuses what the load has seen so far; None: not yet."""
    found = len(load.history) > 500 and find(load.history) is not None
    return found or None
