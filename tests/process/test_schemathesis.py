"""Three nodes answer made-up requests as their OpenAPI document says (`make fuzz-http`: longer)."""

import re
from pathlib import Path

import pytest

from tests.process.cluster import Cluster
from tests.process.fuzz_http import fuzz

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


async def test_no_request_meets_a_bug_or_an_answer_that_is_not_documented(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    async with Cluster(tmp_path) as cluster:
        leader = await cluster.wait_leader()
        code, said = await fuzz(
            leader.url,
            tmp_path,
            *("--seed", "1", "--generation-deterministic", "--max-examples", "10"),
        )
        assert code == 0, said
        made_up = re.search(r"(\d+) generated", said)
        assert made_up is not None, said
        assert int(made_up[1]) > 1000
        cluster.check_alive(cluster.nodes)
