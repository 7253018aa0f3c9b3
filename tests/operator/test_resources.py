"""The builders against golden files: a diff there is a change of what users get.

``REWRITE=1 pytest tests/operator/test_resources.py`` rewrites them.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from raftkv_operator.api import Cluster
from raftkv_operator.objects import JsonObject, key_of
from raftkv_operator.resources import Wanted, claimed_keys, desired_objects
from raftkv_operator.resources.stateful_set import build, pod_template, template_hash
from tests.operator.examples import cluster

TESTDATA = Path(__file__).parent / "testdata"

EVERYTHING: dict[str, Any] = {
    "replicas": 5,
    "image": "registry.example/raftkv:1",
    "storage": {"size": "20Gi", "storageClassName": "fast"},
    "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
    "raft": {"heartbeatIntervalMs": 100, "electionTimeoutMs": 1000},
    "service": {"type": "LoadBalancer", "annotations": {"example.com/internal": "true"}},
    "podTemplate": {
        "labels": {"team": "storage", "app.kubernetes.io/name": "mine"},
        "annotations": {"example.com/note": "x"},
        "affinity": {"nodeAffinity": {}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "priorityClassName": "high",
    },
    "restartAt": "2026-11-21T10:00:00Z",
    "networkPolicy": {
        "clientFrom": [{"namespaceSelector": {}}],
        "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
    },
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "pull"}],
    "monitoring": {"podMonitor": True},
}


def all_objects(wanted: Cluster, *, operator_namespace: str | None) -> list[JsonObject]:
    return desired_objects(
        wanted,
        Wanted(
            replicas=wanted.spec.replicas,
            voters=wanted.spec.replicas,
            operator_namespace=operator_namespace,
            has_pod_monitors=True,
        ),
    )


@pytest.mark.parametrize(
    ("name", "spec", "operator_namespace"),
    [
        ("defaults", {}, "raftkv-system"),
        ("everything", EVERYTHING, "raftkv-system"),
        ("one-voter-operator-outside", {"replicas": 1}, None),
    ],
)
def test_golden(name: str, spec: dict[str, Any], operator_namespace: str | None) -> None:
    built = all_objects(cluster(**spec), operator_namespace=operator_namespace)
    text = yaml.safe_dump_all(built, sort_keys=False, explicit_start=True)
    path = TESTDATA / f"{name}.yaml"
    if os.environ.get("REWRITE"):
        path.write_text(text)
    assert list(yaml.safe_load_all(path.read_text())) == list(yaml.safe_load_all(text))


def test_every_object_is_owned_labelled_and_claimed_by_name() -> None:
    wanted = cluster(**EVERYTHING)
    built = all_objects(wanted, operator_namespace=None)
    for item in built:
        (owner,) = item["metadata"]["ownerReferences"]
        assert owner["uid"] == wanted.uid
        assert item["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "raftkv-operator"
    claimed = {(kind.name, name) for kind, name in claimed_keys(wanted)}
    assert {tuple(key_of(item)) for item in built} == claimed


def test_rule_09_a_name_is_claimed_as_long_as_its_object_is_made() -> None:
    """Three members keep their budget when the spec asks for one replica."""
    wanted = cluster(replicas=1)
    built = desired_objects(
        wanted, Wanted(replicas=3, voters=3, operator_namespace=None, has_pod_monitors=True)
    )
    claimed = {(kind.name, name) for kind, name in claimed_keys(wanted)}
    assert {tuple(key_of(item)) for item in built} <= claimed


def test_rule_03_claims_are_retained_and_have_no_owner() -> None:
    spec = build(cluster(), replicas=3)["spec"]
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    assert "ownerReferences" not in spec["volumeClaimTemplates"][0]["metadata"]


def test_rule_04_replicas_are_present_even_when_zero() -> None:
    assert build(cluster(), replicas=0)["spec"]["replicas"] == 0


def test_rule_15_17_24_pods() -> None:
    spec = pod_template(cluster())["spec"]
    (container,) = spec["containers"]
    assert spec["terminationGracePeriodSeconds"] == 60
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert container["readinessProbe"]["periodSeconds"] == 1
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 600
    liveness = container["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] == 30
    assert "limits" not in container["resources"]
    assert "preStop" not in container.get("lifecycle", {})


def test_rule_18_hash_follows_what_needs_a_restart_and_nothing_else() -> None:
    plain = template_hash(cluster())
    restarting: list[dict[str, Any]] = [
        {"image": "raftkv:2"},
        {"resources": {"requests": {"cpu": "1"}}},
        {"raft": {"heartbeatIntervalMs": 50}},
        {"podTemplate": {"nodeSelector": {"disk": "ssd"}}},
        {"restartAt": "2026-11-21T10:00:00Z"},
    ]
    for change in restarting:
        assert template_hash(cluster(**change)) != plain
    harmless: list[dict[str, Any]] = [
        {"replicas": 5},
        {"paused": True},
        {"service": {"type": "NodePort"}},
        {"storage": {"size": "2Gi"}},
        {"raft": {"heartbeatIntervalMs": 80}},
        {"networkPolicy": {"enabled": False}},
    ]
    for change in harmless:
        assert template_hash(cluster(**change)) == plain


def test_rule_18_hash_of_a_given_spec_never_changes_with_the_operator() -> None:
    """Another value here would restart every pod of every user with the upgrade."""
    assert template_hash(cluster()) == "4a67d4cf9f240973"
    assert template_hash(cluster(**EVERYTHING)) == "a354e38d2bbfbfab"


def test_rule_18_user_labels_cannot_replace_those_that_select() -> None:
    labels = pod_template(cluster(**EVERYTHING))["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "raftkv"
    assert labels["team"] == "storage"


@pytest.mark.parametrize(
    ("voters", "allowed"), [(2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (7, 3), (9, 4)]
)
def test_rule_21_budget_spares_what_the_quorum_can(voters: int, allowed: int) -> None:
    built = all_objects(cluster(replicas=voters), operator_namespace=None)
    (budget,) = [item for item in built if item["kind"] == "PodDisruptionBudget"]
    assert budget["spec"]["maxUnavailable"] == allowed
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "IfHealthyBudget"


def test_rule_22_admin_port_is_the_operators_and_not_in_a_service() -> None:
    built = all_objects(cluster(), operator_namespace="raftkv-system")
    for item in built:
        if item["kind"] == "Service":
            assert 7403 not in [port["port"] for port in item["spec"]["ports"]]
    (policy,) = [item for item in built if item["kind"] == "NetworkPolicy"]
    by_port = {rule["ports"][0]["port"]: rule for rule in policy["spec"]["ingress"]}
    (admin,) = by_port[7403]["from"]
    assert admin["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "raftkv-system"
    }
    assert by_port[7401]["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"]
    assert "from" not in by_port[7400]
