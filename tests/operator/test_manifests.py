"""The generated files agree with their sources: types, CRD, chart, plain manifests."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raftkv.server.settings import Flags, resolve
from raftkv_operator.api import Spec, Status, parse_cluster
from raftkv_operator.crd import build_crd
from raftkv_operator.resources import OWNED_KINDS, WATCHED_KINDS, config_map
from tests.operator import render_manifests as rendered
from tests.operator.examples import cluster

NEEDS_HELM = pytest.mark.skipif(not rendered.has_helm(), reason="helm is not installed")


def test_rule_23_crd_in_the_chart_is_made_of_the_types() -> None:
    assert rendered.CRD_IN_CHART.read_text() == rendered.crd_yaml()
    assert rendered.CRD.read_text() == rendered.crd_yaml()


def test_rule_23_uninstalling_the_chart_keeps_the_crd() -> None:
    annotations = build_crd()["metadata"]["annotations"]
    assert annotations["helm.sh/resource-policy"] == "keep"


def test_install_manifest_was_rendered_from_this_chart() -> None:
    """Holds without Helm too: `make manifests` was forgotten if this fails."""
    assert rendered.stored_digest() == rendered.chart_digest()


@NEEDS_HELM
def test_install_manifest_equals_the_rendered_chart() -> None:
    assert rendered.INSTALL.read_text() == rendered.install_yaml()


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within ``schema``, with its path."""
    yield path, schema
    for name, inner in (schema.get("properties") or {}).items():
        yield from schemas(inner, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from schemas(schema["items"], f"{path}[]")


ROOT = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


@pytest.mark.parametrize("bound", ["minimum", "maximum"])
def test_a_node_starts_with_every_timing_that_the_crd_lets_through(bound: str) -> None:
    raft = ROOT["properties"]["spec"]["properties"]["raft"]["properties"]
    timing = {name: raft[name][bound] for name in ("heartbeatIntervalMs", "electionTimeoutMs")}
    told = config_map.settings(cluster(raft=timing))
    flags = Flags(
        data=Path("data"),
        heartbeat_ms=int(told["RAFTKV_HEARTBEAT_MS"]),
        election_ms=int(told["RAFTKV_ELECTION_MS"]),
    )
    assert resolve(flags, "demo-0").election_ms == timing["electionTimeoutMs"]


def test_rule_23_nested_defaults_stand_in_the_outer_default() -> None:
    for path, schema in schemas(ROOT["properties"]["spec"]):
        inner = {
            name: part["default"]
            for name, part in (schema.get("properties") or {}).items()
            if "default" in part
        }
        if path and inner:
            assert schema.get("default") == inner, path


def test_rule_13_api_server_adds_nothing_to_a_status() -> None:
    """Or it would differ from what the operator wrote, and be written for ever."""
    status = ROOT["properties"]["status"]
    assert [path for path, schema in schemas(status) if "default" in schema] == []


def test_schema_is_closed_but_for_what_belongs_to_kubernetes() -> None:
    is_open = {
        path for path, schema in schemas(ROOT) if "x-kubernetes-preserve-unknown-fields" in schema
    }
    assert is_open == {
        ".spec.podTemplate.affinity",
        ".spec.podTemplate.tolerations[]",
        ".spec.podTemplate.topologySpreadConstraints[]",
        ".spec.networkPolicy.clientFrom[]",
        ".spec.networkPolicy.metricsFrom[]",
    }


def test_every_field_of_the_types_is_in_the_schema() -> None:
    spec, status = ROOT["properties"]["spec"], ROOT["properties"]["status"]
    assert set(spec["properties"]) == set(Spec.__struct_encode_fields__)
    assert set(status["properties"]) == set(Status.__struct_encode_fields__)
    assert spec["required"] == ["image"]


def test_example_cluster_is_valid() -> None:
    example = yaml.safe_load((rendered.ROOT / "manifests" / "example-cluster.yaml").read_text())
    example["metadata"] |= {"namespace": "default", "uid": "u"}
    parsed = parse_cluster(example)
    assert (parsed.name, parsed.spec.replicas, parsed.spec.image) == ("demo", 3, "raftkv:dev")
    known = set(ROOT["properties"]["spec"]["properties"])
    assert set(example["spec"]) <= known


# ---- the chart, as it stands in install.yaml ------------------------------------------------

INSTALLED = [item for item in yaml.safe_load_all(rendered.INSTALL.read_text()) if item]


def one(kind: str, name: str | None = None) -> dict[str, Any]:
    found = [
        item
        for item in INSTALLED
        if item["kind"] == kind and name in (None, item["metadata"]["name"])
    ]
    (item,) = found
    return dict(item)


def test_rights_hold_no_wildcard_and_no_secrets() -> None:
    for kind in ("ClusterRole", "Role"):
        for rule in one(kind)["rules"]:
            granted = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in granted
            assert not {"secrets", "pods/exec", "nodes"} & set(rule["resources"])


def test_rights_cover_every_kind_that_is_applied() -> None:
    rules = one("ClusterRole")["rules"]
    for kind in OWNED_KINDS:
        group = kind.api_version.rpartition("/")[0]
        verbs = {
            verb
            for rule in rules
            if group in rule["apiGroups"] and kind.plural in rule["resources"]
            for verb in rule["verbs"]
        }
        assert verbs >= {"get", "list", "watch", "create", "patch"}, kind


def test_rights_cover_every_kind_that_is_watched() -> None:
    rules = one("ClusterRole")["rules"]
    for kind in WATCHED_KINDS:
        group = kind.api_version.rpartition("/")[0] if "/" in kind.api_version else ""
        verbs = {
            verb
            for rule in rules
            if group in rule["apiGroups"] and kind.plural in rule["resources"]
            for verb in rule["verbs"]
        }
        assert verbs >= {"get", "list", "watch"}, kind


def test_rule_24_operator_pod_leaves_a_lost_node_within_a_minute() -> None:
    spec = one("Deployment")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    pod = spec["template"]["spec"]
    assert [item["tolerationSeconds"] for item in pod["tolerations"]] == [30, 30]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@NEEDS_HELM
def test_namespaced_install_has_a_role_in_each_namespace_and_no_cluster_rights() -> None:
    text = rendered.render_chart("--set", "watchNamespaces={team-a,team-b}")
    items = [item for item in yaml.safe_load_all(text) if item]
    assert not [item for item in items if item["kind"].startswith("ClusterRole")]
    roles = [item["metadata"]["namespace"] for item in items if item["kind"] == "Role"]
    assert sorted(roles) == ["raftkv-system", "team-a", "team-b"]
    (deployment,) = [item for item in items if item["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (setting,) = [item for item in container["env"] if item["name"] == "RAFTKV_OPERATOR_NAMESPACES"]
    assert setting["value"] == "team-a,team-b"


@NEEDS_HELM
@pytest.mark.parametrize(
    ("option", "present"), [("crds.install=false", False), ("crds.install=true", True)]
)
def test_crd_has_a_switch(option: str, present: bool) -> None:
    text = rendered.render_chart("--set", option)
    assert ("kind: CustomResourceDefinition" in text) is present


@NEEDS_HELM
def test_chart_passes_helms_own_checks() -> None:
    everything = "serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboards.enabled=true"
    for options in ("crds.install=true", everything, "watchNamespaces={a,b}"):
        command = ["helm", "lint", "--strict", str(rendered.CHART), "--set", options]
        linted = subprocess.run(command, capture_output=True, text=True, check=False)
        assert linted.returncode == 0, linted.stdout + linted.stderr


@NEEDS_HELM
def test_scraped_metrics_keep_the_namespace_of_their_cluster() -> None:
    """Else Prometheus writes the operator's own namespace over it, and alerts name that."""
    text = rendered.render_chart("--set", "serviceMonitor.enabled=true")
    (monitor,) = [
        item
        for item in yaml.safe_load_all(text)
        if item is not None and item["kind"] == "ServiceMonitor"
    ]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True


@NEEDS_HELM
@pytest.mark.parametrize(
    "option", ["imagee.tag=1", "image.pullPolicy=Sometimes", "log.level=loud", "watchNamespaces=a"]
)
def test_value_that_cannot_be_right_is_refused(option: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        rendered.render_chart("--set", option)
    assert "values don't meet the specifications of the schema" in refused.value.stderr


def test_operator_pod_meets_the_restricted_standard_and_is_probed() -> None:
    pod = one("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {next(iter(set(item) - {"name"})) for item in pod["volumes"]} == {"emptyDir"}
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {"livenessProbe", "readinessProbe"} <= set(container)
    assert set(container["resources"]) == {"requests"}  # a CPU limit would only slow it


def test_the_notes_can_be_pasted() -> None:
    """A here-document ends at its word only where the line begins."""
    notes = (rendered.CHART / "templates" / "NOTES.txt").read_text().splitlines()
    assert any(line.endswith("<<'YAML'") for line in notes)
    assert "YAML" in notes
