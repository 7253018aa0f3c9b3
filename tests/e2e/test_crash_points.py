"""Every point where the operator can die has a scenario that kills it there."""

from raftkv_operator.failpoints import crash_points
from tests.e2e.scenarios import SCENARIOS
from tests.e2e.scenarios.crashes import LONG_SCENARIOS, unprovoked


def test_every_crash_point_is_provoked() -> None:
    assert not unprovoked(crash_points())


def test_an_action_without_a_scenario_is_found() -> None:
    assert unprovoked(["before:new-action"]) == {"new-action"}


def test_no_scenario_has_the_name_of_another() -> None:
    names = [scenario.name for scenario in (*SCENARIOS, *LONG_SCENARIOS)]
    assert len(names) == len(set(names))
