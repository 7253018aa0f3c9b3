"""All scenarios, in the order in which a whole run goes through them."""

from tests.e2e.scenario import Scenario
from tests.e2e.scenarios import (
    bootstrap,
    changes,
    crashes,
    failures,
    install,
    lifecycle,
    losses,
    network,
    operators,
    refusals,
)

__all__ = ["LONG_SCENARIOS", "SCENARIOS", "Scenario"]

LONG_SCENARIOS: tuple[Scenario, ...] = (*changes.LONG_SCENARIOS, *crashes.LONG_SCENARIOS)

SCENARIOS: tuple[Scenario, ...] = (
    *install.SCENARIOS,
    *failures.SCENARIOS,
    *changes.SCENARIOS,
    *losses.SCENARIOS,
    *network.SCENARIOS,
    *operators.SCENARIOS,
    *crashes.SCENARIOS,
    *refusals.SCENARIOS,
    *bootstrap.SCENARIOS,
    *lifecycle.SCENARIOS,
)
