"""A short slice of `make chaos`: links that lie, hang and are cut one way, and a killed leader."""

from pathlib import Path

import pytest

from tests.process.chaos import (
    chaos,
    flipped_bits,
    kill_one,
    one_after_the_other,
    one_way,
)

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(240)]


async def test_all_promises_hold_while_links_are_cut_and_broken(tmp_path: Path) -> None:
    harms = one_after_the_other(one_way, flipped_bits, kill_one)
    print(await chaos(tmp_path, harms, seed=11))  # noqa: T201 pytest shows it with a failure
