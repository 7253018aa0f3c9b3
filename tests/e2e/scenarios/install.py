"""The main job: install the chart, apply the example, read and write, look at it."""

import time
from collections.abc import Mapping

from tests.e2e.kubectl import E2EError, JsonObject
from tests.e2e.operator_install import EXAMPLE, NAMESPACE
from tests.e2e.raft_cluster import METRICS_PORT, RaftCluster
from tests.e2e.scenario import Scenario
from tests.e2e.suite import CLUSTERS_NAMESPACE, Suite

_AVAILABLE_SECONDS = 60.0
_COLUMNS = ("NAME", "REPLICAS", "READY", "LEADER", "TERM", "TOLERANCE", "IMAGE", "AGE")
_METRICS = (
    "raftkv_has_leader",
    "raftkv_is_leader",
    "raftkv_term",
    "raftkv_commit_index",
    "raftkv_applied_index",
    "raftkv_leader_changes_total",
    "raftkv_proposals_committed_total",
    "raftkv_wal_fsync_seconds_count",
    "raftkv_http_requests_total",
    "raftkv_db_bytes",
    "raftkv_revision",
    "process_resident_memory_bytes",
)


def install(suite: Suite) -> None:
    """`helm install`, `kubectl apply` of the example, Available; write and read; every object."""
    suite.create_namespace(NAMESPACE)
    suite.uninstall_operator()
    suite.need_operator()
    demo = suite.cluster("demo")
    began = time.monotonic()
    apply_example(suite)
    demo.wait_condition("Available", "True", seconds=_AVAILABLE_SECONDS)
    suite.row.notes.append(f"Available in {time.monotonic() - began:.1f} s")
    demo.wait_settled()
    write_and_read(demo)
    _check_objects(demo)
    _check_columns(demo)
    _check_events(demo)


def apply_example(suite: Suite) -> None:
    """Apply the project's own example, with the image under test."""
    text = EXAMPLE.read_text().replace("raftkv:dev", suite.image)
    suite.kubectl("apply", "-n", CLUSTERS_NAMESPACE, "-f", "-", stdin=text)


def write_and_read(cluster: RaftCluster) -> None:
    """Write through the Service, then read the value on every node."""
    cluster.put("greeting", "hello")
    for pod in cluster.pods():
        url = cluster.pod_url(pod["metadata"]["name"])
        answer = cluster.client.request("GET", f"{url}/v1/kv/greeting")
        if (answer.status, answer.body) != (200, "hello"):
            raise E2EError(f"{url} answers {answer.status} {answer.body!r}")


def metrics(suite: Suite) -> None:
    """Every pod's metrics can be scraped, and exactly one node says that it leads."""
    demo = suite.need_demo()
    leaders = 0.0
    for pod in demo.pods():
        url = demo.pod_url(pod["metadata"]["name"], METRICS_PORT)
        answer = suite.client.request("GET", f"{url}/metrics")
        if answer.status != 200:
            raise E2EError(f"{url}/metrics: {answer.status} {answer.body[:200]}")
        samples = parse_samples(answer.body)
        missing = [name for name in _METRICS if name not in samples]
        if missing:
            raise E2EError(f"{url}/metrics lacks {', '.join(missing)}")
        if samples["raftkv_has_leader"] != 1:
            raise E2EError(f"{url}/metrics says that it knows no leader")
        leaders += samples["raftkv_is_leader"]
    if leaders != 1:
        raise E2EError(f"{leaders:g} nodes say that they lead")


def parse_samples(text: str) -> dict[str, float]:
    """Prometheus text: the sum of each metric over its labels."""
    samples: dict[str, float] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            series, value = line.rsplit(" ", 1)
            name = series.partition("{")[0]
            samples[name] = samples.get(name, 0.0) + float(value)
    return samples


def _check_objects(demo: RaftCluster) -> None:
    """Every object of the contract exists, with the labels and, but for claims, the owner."""
    owner_uid = demo.object()["metadata"]["uid"]
    for kind, name in (
        ("statefulset", "demo"),
        ("service", "demo"),
        ("service", "demo-peers"),
        ("configmap", "demo-config"),
        ("serviceaccount", "demo-node"),
        ("poddisruptionbudget", "demo"),
        ("networkpolicy", "demo"),
    ):
        item = demo.kubectl.get(kind, name, "-n", demo.namespace)
        _check_labels(item)
        owners = [owner["uid"] for owner in item["metadata"].get("ownerReferences", [])]
        if owners != [owner_uid]:
            raise E2EError(f"{kind} {name} is owned by {owners}, not by the cluster")
    for ordinal in range(3):
        _check_labels(demo.pod(f"demo-{ordinal}"))
        claim = demo.kubectl.get("pvc", f"data-demo-{ordinal}", "-n", demo.namespace)
        _check_labels(claim)
        owners = claim["metadata"].get("ownerReferences", [])
        if owners:
            raise E2EError(f"claim data-demo-{ordinal} is owned by {owners}: data would go with it")
    _check_stateful_set(demo.stateful_set()["spec"])


def _check_stateful_set(spec: JsonObject) -> None:
    seen = {
        "policy": spec["podManagementPolicy"],
        "update": spec["updateStrategy"]["type"],
        "retention": spec["persistentVolumeClaimRetentionPolicy"],
    }
    wanted = {
        "policy": "Parallel",
        "update": "OnDelete",
        "retention": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    }
    if seen != wanted:
        raise E2EError(f"the StatefulSet has {seen}, not {wanted}")


def _check_labels(item: JsonObject) -> None:
    wanted = {
        "app.kubernetes.io/name": "raftkv",
        "app.kubernetes.io/instance": "demo",
        "app.kubernetes.io/component": "node",
        "app.kubernetes.io/managed-by": "raftkv-operator",
    }
    labels: Mapping[str, str] = item["metadata"].get("labels") or {}
    if not wanted.items() <= labels.items():
        kind, name = item["kind"], item["metadata"]["name"]
        raise E2EError(f"{kind} {name} has the labels {labels}, not {wanted}")


def _check_columns(demo: RaftCluster) -> None:
    """`kubectl get rkv` prints what the contract says."""
    header, row = demo.kubectl("get", "rkv", "demo", "-n", demo.namespace).splitlines()
    if tuple(header.split()) != _COLUMNS:
        raise E2EError(f"kubectl get rkv prints the columns {header}")
    cells = row.split()
    wanted = ["demo", "3", "3", demo.leader(), cells[4], "1", demo.image]
    if cells[:7] != wanted or not cells[4].isdecimal():
        raise E2EError(f"kubectl get rkv prints {row!r}, not {wanted}")


def _check_events(demo: RaftCluster) -> None:
    """`kubectl describe rkv` tells the story."""
    described = demo.kubectl("describe", "rkv", "demo", "-n", demo.namespace)
    events = described.partition("\nEvents:")[2]
    if "raftkv" not in events:
        raise E2EError(f"kubectl describe rkv shows no events of the operator: {events!r}")


SCENARIOS = (
    Scenario("install", "helm install, kubectl apply, read and write", install),
    Scenario("metrics", "every pod's metrics are scraped", metrics),
)
