"""Short slices of `make chaos`: links that lie and are cut in every shape, and a killed leader.

Which harms, is said here, and each fails that does not bite (`EFFECTS`).
"""

from pathlib import Path

import pytest

from tests.process.chaos import (
    EFFECTS,
    HARMS,
    Harm,
    bridge,
    chaos,
    flipped_bits,
    isolate_leader,
    kill_one,
    one_after_the_other,
    one_way,
)

pytestmark = pytest.mark.process

SLICES: tuple[tuple[Harm, ...], ...] = (
    (one_way, flipped_bits, kill_one),
    (isolate_leader, bridge),
)


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("harms", SLICES, ids=lambda each: "-".join(harm.__name__ for harm in each))
async def test_all_promises_hold_while_links_are_cut_and_broken(
    tmp_path: Path, harms: tuple[Harm, ...]
) -> None:
    print(await chaos(tmp_path, one_after_the_other(*harms), seed=11))  # noqa: T201 pytest shows it with a failure


def test_every_harm_has_an_effect_to_be_seen() -> None:
    assert set(HARMS) == set(EFFECTS)
