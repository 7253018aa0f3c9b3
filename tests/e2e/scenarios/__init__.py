"""All scenarios, in the order in which a whole run goes through them."""

from tests.e2e.scenario import Scenario
from tests.e2e.scenarios import bootstrap, changes, failures, install, lifecycle, refusals

__all__ = ["SCENARIOS", "Scenario"]

SCENARIOS: tuple[Scenario, ...] = (
    *install.SCENARIOS,
    *failures.SCENARIOS,
    *changes.SCENARIOS,
    *refusals.SCENARIOS,
    *bootstrap.SCENARIOS,
    *lifecycle.SCENARIOS,
)
