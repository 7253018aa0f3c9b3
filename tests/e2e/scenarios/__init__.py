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

__all__ = ["LIGHT_SCENARIOS", "LONG_SCENARIOS", "SCENARIOS", "Scenario"]

# Without load and on clusters of their own: they run side by side.
LIGHT_SCENARIOS: tuple[Scenario, ...] = (
    *refusals.LIGHT_SCENARIOS,
    *changes.LIGHT_SCENARIOS,
    *operators.LIGHT_SCENARIOS,
)

SCENARIOS: tuple[Scenario, ...] = (
    *install.SCENARIOS,
    *failures.SCENARIOS,
    *changes.SCENARIOS,
    *losses.SCENARIOS,
    *network.SCENARIOS,
    *operators.SCENARIOS,
    *LIGHT_SCENARIOS,
    *crashes.SCENARIOS,
    *bootstrap.SCENARIOS,
    *lifecycle.SCENARIOS,
)

LONG_SCENARIOS: tuple[Scenario, ...] = (
    *changes.LONG_SCENARIOS,
    *losses.LONG_SCENARIOS,
    *operators.LONG_SCENARIOS,
    *bootstrap.LONG_SCENARIOS,
    *crashes.LONG_SCENARIOS,
)
