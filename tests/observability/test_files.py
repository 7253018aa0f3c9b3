"""Dashboards and rules: from Python, about metrics that exist, each alert with a runbook."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability.__main__ import outdated
from observability.alerts import ALERTS
from observability.dashboards import dashboards
from raftkv.server.metrics import Metrics
from raftkv_operator.metrics import Metrics as OperatorMetrics
from tests.operator import render_manifests as rendered

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
DASHBOARDS = {name: json.loads(text) for name, text in dashboards().items()}
_METRIC = re.compile(r"\b(?:raftkv|process)_[a-z_]+")
# Of the metrics themselves they are about processes of any kind.
_SUFFIXES = ("_bucket", "_count", "_sum")


def test_chart_holds_what_the_builder_makes() -> None:
    """`make dashboards` was forgotten if this fails."""
    assert outdated() == []


def known_metrics() -> set[str]:
    metrics = Metrics()
    metrics.watch_frames_dropped({})
    families = [*metrics.registry.collect(), *OperatorMetrics().registry.collect()]
    return {
        f"{family.name}_total" if family.type == "counter" else family.name for family in families
    }


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_dashboards_and_alerts_ask_for_metrics_that_exist() -> None:
    known = known_metrics()
    asked = [expr for dashboard in DASHBOARDS.values() for expr in queries(dashboard)]
    for expr in [*asked, *(alert.expr for alert in ALERTS)]:
        names = set(_METRIC.findall(expr))
        for name in names:
            family = next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), name)
            assert family in known or name in known, expr


def test_every_metric_of_ours_is_on_a_dashboard_or_in_an_alert() -> None:
    text = "\n".join(expr for page in DASHBOARDS.values() for expr in queries(page))
    text += "\n" + "\n".join(alert.expr for alert in ALERTS)
    ours = {name for name in known_metrics() if name.startswith("raftkv_")}
    unseen = {name for name in ours if not re.search(rf"\b{name}(_bucket|_count|_sum)?\b", text)}
    assert unseen == {
        # For looking things up by hand.
        "raftkv_build_info",
        "raftkv_operator_build_info",
        "raftkv_state",
        "raftkv_is_leader",
        "raftkv_is_learner",
        "raftkv_peer_connections_refused_total",
        "raftkv_tls_handshakes_failed_total",
        "raftkv_reloads_total",
    }


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_dashboard_can_be_imported_anywhere(name: str) -> None:
    """No data source of ours is named, ids are unique, and panels do not overlap."""
    dashboard = DASHBOARDS[name]
    variables = [item["name"] for item in dashboard["templating"]["list"]]
    assert variables == ["datasource", "job"]
    assert dashboard["uid"].startswith("raftkv-")
    taken: set[tuple[int, int]] = set()
    for panel in panels(dashboard):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in panels(dashboard)]
    assert len(ids) == len(set(ids))
    assert all("$job" in query for query in queries(dashboard))


def test_every_alert_has_a_runbook() -> None:
    sections = {
        found.group(1): found.group(2)
        for found in re.finditer(
            r"^### (RaftKV\w+)\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL
        )
    }
    assert list(sections) == [alert.name for alert in ALERTS]
    for alert in ALERTS:
        text = sections[alert.name]
        assert alert.severity in text
        assert f"`{alert.hold}`" in text
        assert "**Means.**" in text
        assert "**Do.**" in text


@pytest.mark.skipif(not rendered.has_helm(), reason="helm is not installed")
def test_chart_renders_rules_and_dashboards() -> None:
    values = "prometheusRule.enabled=true,dashboards.enabled=true"
    text = rendered.render_chart("--set", f"{values},prometheusRule.for.RaftKVNodeDown=7m")
    objects = [item for item in yaml.safe_load_all(text) if item]
    (rule,) = [item for item in objects if item["kind"] == "PrometheusRule"]
    found = {rule["alert"]: rule for group in rule["spec"]["groups"] for rule in group["rules"]}
    assert found == {
        alert.name: alert.rule("7m" if alert.name == "RaftKVNodeDown" else None) for alert in ALERTS
    }
    maps = [item for item in objects if item["kind"] == "ConfigMap"]
    assert all(item["metadata"]["labels"]["grafana_dashboard"] == "1" for item in maps)
    shown = {key: json.loads(text) for item in maps for key, text in item["data"].items()}
    assert shown == {f"raftkv-{name}": dashboard for name, dashboard in DASHBOARDS.items()}


@pytest.mark.skipif(not rendered.has_helm(), reason="helm is not installed")
def test_chart_refuses_a_duration_for_an_alert_that_is_not_there() -> None:
    options = ("--set", "prometheusRule.enabled=true,prometheusRule.for.NoSuch=7m")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        rendered.render_chart(*options)
    assert "there is no alert NoSuch" in failed.value.stderr
