"""The dashboards' own queries, asked of a Prometheus."""

import json
import math
from typing import Any

from observability.__main__ import DASHBOARDS
from tests.observability.prometheus import Prometheus

#: What stands for Grafana's variable: four scrapes at least, and some more.
RATE_INTERVAL = "30s"


def panels(dashboard: str) -> list[dict[str, Any]]:
    """The panels of a dashboard's file; rows are none."""
    found = json.loads((DASHBOARDS / f"{dashboard}.json").read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def expressions(panel: dict[str, Any], job: str) -> list[str]:
    """The panel's queries, as Grafana would send them."""
    return [
        target["expr"].replace("$job", job).replace("$__rate_interval", RATE_INTERVAL)
        for target in panel["targets"]
    ]


async def values(prometheus: Prometheus, expr: str, seconds: float) -> list[float]:
    """All values of all series, without those that are none."""
    series = await prometheus.query_range(expr, seconds)
    found = [float(text) for item in series for _, text in item["values"]]
    return [value for value in found if not math.isnan(value)]


async def empty_panels(prometheus: Prometheus, dashboard: str, job: str) -> list[str]:
    """Panels of which some query has no value within the last minute."""
    return [
        f"{dashboard} / {panel['title']}: {expr}"
        for panel in panels(dashboard)
        for expr in expressions(panel, job)
        if not await values(prometheus, expr, 60.0)
    ]


async def panel_values(
    prometheus: Prometheus, dashboard: str, title: str, job: str, seconds: float
) -> list[float]:
    """What a panel shows of the last ``seconds``."""
    found = [panel for panel in panels(dashboard) if panel["title"] == title]
    assert found, f"{dashboard} has no panel {title!r}"
    return [
        value
        for panel in found
        for expr in expressions(panel, job)
        for value in await values(prometheus, expr, seconds)
    ]
