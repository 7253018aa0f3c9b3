"""What the benchmarks read from the output of others is what those print."""

import sys

import pytest
from click.testing import CliRunner

from benchmarks.alone import steps_per_second
from benchmarks.tool import output_of
from tests.simulation.__main__ import main


def test_the_speed_of_the_simulation_is_read_from_its_own_words() -> None:
    said = CliRunner().invoke(main, ["--seeds", "1", "--length", "short", "--jobs", "1"])
    assert said.exit_code == 0, said.output
    assert steps_per_second(said.output) > 0
    with pytest.raises(RuntimeError, match="said no speed"):
        steps_per_second("0 passed, 1 failed")


async def test_a_tool_that_fails_or_hangs_is_told_and_ended() -> None:
    python = sys.executable
    assert await output_of((python, "-c", "print('fine')"), 30) == "fine\n"
    with pytest.raises(RuntimeError, match="failed with 3: bad"):
        await output_of((python, "-c", "import sys; print('bad'); sys.exit(3)"), 30)
    with pytest.raises(TimeoutError):
        await output_of((python, "-c", "import time; time.sleep(60)"), 0.1)
