"""Three nodes answer made-up requests as their OpenAPI document says.

As many as `make test` has time for, as `make test-long` has, and for minutes in `make fuzz-http`.
"""

import re
from pathlib import Path

import pytest

from tests.process.cluster import Cluster
from tests.process.fuzz_http import fuzz

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("examples", "requests_min"), [(1, 200), pytest.param(10, 1000, marks=pytest.mark.long)]
)
async def test_no_request_meets_a_bug_or_an_answer_that_is_not_documented(
    tmp_path: Path, examples: int, requests_min: int
) -> None:
    pytest.importorskip("schemathesis")
    async with Cluster(tmp_path) as cluster:
        leader = await cluster.wait_leader()
        code, said = await fuzz(
            leader.url,
            tmp_path,
            *("--seed", "1", "--generation-deterministic", "--max-examples", str(examples)),
        )
        assert code == 0, said
        made_up = re.search(r"(\d+) generated", said)
        assert made_up is not None, said
        assert int(made_up[1]) > requests_min
        cluster.check_alive(cluster.nodes)
