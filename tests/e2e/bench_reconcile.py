"""`make bench-reconcile`: what many idle clusters cost the operator and the API server.

Creates clusters of one small node each (or asleep: `--hibernated`), waits until the operator has
nothing left to do, and looks on for five minutes. The CPU time is that of the operator's process,
the requests are those of its own counter; that nothing was written shows in the objects: no
resourceVersion changed. The result goes to `docs/benchmarks/reconcile.json`, one entry a variant.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.e2e.environment import open_cluster
from tests.e2e.kubectl import E2EError, JsonObject, Kubectl, NotYetError, hold, wait_until
from tests.e2e.operator_install import NAMESPACE
from tests.e2e.scenarios.install import parse_samples
from tests.e2e.suite import CLUSTERS_NAMESPACE, Suite

_RESULT = Path(__file__).parents[2] / "docs" / "benchmarks" / "reconcile.json"
_KINDS = (
    "raftkvclusters,statefulsets,services,configmaps,serviceaccounts,poddisruptionbudgets,"
    "networkpolicies,persistentvolumeclaims,pods"
)
REQUESTS_MAX = 2.0  # of a cluster in a minute, without watches
CPU_MAX_PERCENT = 5.0  # of one core, for all
_FORM_SECONDS = 1800.0


@dataclass(frozen=True)
class Sample:
    """The operator's counters at a moment."""

    at: float
    cpu_seconds: float
    passes: float
    requests: Mapping[str, float]  # by verb


@dataclass(frozen=True)
class Result:
    """One variant, measured."""

    variant: str
    clusters: int
    replicas: int
    seconds: float
    operator_cpu_seconds: float
    operator_cpu_percent_of_core: float
    passes: int
    requests_by_verb: Mapping[str, int]
    requests_beyond_watches_per_cluster_minute: float
    objects: int
    objects_changed: int
    processors: int
    load_average: float
    at: str


def main() -> int:
    """Measure; 0 when the bars are held."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.bench_reconcile")
    parser.add_argument("--clusters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--hibernated", action="store_true", help="asleep, after they were formed")
    parser.add_argument("--image", default="raftkv:dev")
    options = parser.parse_args()
    try:
        with open_cluster(options.image, keep=False) as kubectl:
            suite = Suite(kubectl, options.image)
            suite.open()
            try:
                result = _measure(suite, options.clusters, options.seconds, options.hibernated)
            finally:
                suite.close()
    except E2EError as error:
        _say(f"cannot measure: {error}")
        return 1
    _keep(result)
    _say(json.dumps(asdict(result), indent=1))
    is_cheap = (
        result.requests_beyond_watches_per_cluster_minute <= REQUESTS_MAX
        and result.operator_cpu_percent_of_core <= CPU_MAX_PERCENT
        and result.objects_changed == 0
    )
    return 0 if is_cheap else 1


def _measure(suite: Suite, count: int, seconds: float, is_hibernated: bool) -> Result:
    suite.need_operator()
    suite.create_namespace(CLUSTERS_NAMESPACE)
    names = [f"idle-{number:02}" for number in range(count)]
    for name in names:
        suite.kubectl.apply(_cluster(suite, name))
    wait_until(
        f"{count} clusters serve",
        lambda: _require(suite.kubectl, count, "Available", "Serving"),
        seconds=_FORM_SECONDS,
        interval_seconds=5,
    )
    if is_hibernated:
        for name in names:
            suite.kubectl.patch(
                "raftkvcluster", name, CLUSTERS_NAMESPACE, {"spec": {"replicas": 0}}
            )
        wait_until(
            f"{count} clusters sleep",
            lambda: _require(suite.kubectl, count, "Available", "Hibernated"),
            seconds=_FORM_SECONDS,
            interval_seconds=5,
        )
    wait_until(
        "nothing is left to do",
        lambda: _require(suite.kubectl, count, "Progressing", "Settled"),
        seconds=_FORM_SECONDS,
        interval_seconds=5,
    )
    _say(f"{count} clusters are idle; watching for {seconds:.0f} s")
    hold(30)  # what was begun ends: endpoints, probes
    before, first = _versions(suite.kubectl), _sample(suite)
    hold(seconds)
    last, after = _sample(suite), _versions(suite.kubectl)
    elapsed = last.at - first.at
    requests = {
        verb: round(amount - first.requests.get(verb, 0)) for verb, amount in last.requests.items()
    }
    # The renewals of the operator's one Lease ("update") are counted as the clusters' share, too.
    beyond = sum(number for verb, number in requests.items() if verb != "watch")
    cpu_seconds = last.cpu_seconds - first.cpu_seconds
    return Result(
        variant="hibernated" if is_hibernated else "serving",
        clusters=count,
        replicas=0 if is_hibernated else 1,
        seconds=round(elapsed, 1),
        operator_cpu_seconds=round(cpu_seconds, 2),
        operator_cpu_percent_of_core=round(100 * cpu_seconds / elapsed, 2),
        passes=round(last.passes - first.passes),
        requests_by_verb=requests,
        requests_beyond_watches_per_cluster_minute=round(beyond / count / elapsed * 60, 3),
        objects=len(before),
        objects_changed=sum(after.get(key) != version for key, version in before.items()),
        processors=os.cpu_count() or 0,
        load_average=round(os.getloadavg()[1], 1),
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _cluster(suite: Suite, name: str) -> JsonObject:
    return {
        "apiVersion": "raftkv.io/v1alpha1",
        "kind": "RaftKVCluster",
        "metadata": {"name": name, "namespace": CLUSTERS_NAMESPACE},
        "spec": {
            "replicas": 1,
            "image": suite.image,
            "storage": {"size": "64Mi"},
            "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}},
        },
    }


def _require(kubectl: Kubectl, count: int, kind: str, reason: str) -> None:
    ready = 0
    for item in kubectl.items("raftkvclusters", "-n", CLUSTERS_NAMESPACE):
        status = item.get("status", {})
        conditions = {entry["type"]: entry["reason"] for entry in status.get("conditions", [])}
        is_current = status.get("observedGeneration") == item["metadata"]["generation"]
        ready += is_current and conditions.get(kind) == reason
    if ready < count:
        raise NotYetError(f"{ready} of {count}")


def _versions(kubectl: Kubectl) -> dict[str, str]:
    """The resourceVersion of every object, by kind and name."""
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for item in kubectl.items(_KINDS, "-n", CLUSTERS_NAMESPACE)
    }


def _sample(suite: Suite) -> Sample:
    pod = suite.operator.wait_running()["metadata"]["name"]
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/http:{pod}:8080/proxy/metrics"
    text = suite.kubectl("get", "--raw", path)
    samples = parse_samples(text)
    prefix = "raftkv_operator_api_requests_total{"
    requests = {
        line.partition('verb="')[2].partition('"')[0]: float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith(prefix)
    }
    return Sample(
        time.monotonic(),
        samples["process_cpu_seconds_total"],
        samples["raftkv_operator_reconcile_total"],
        requests,
    )


def _keep(result: Result) -> None:
    """Replace this variant's entry in the file."""
    kept = json.loads(_RESULT.read_text()) if _RESULT.exists() else []
    others = [item for item in kept if item["variant"] != result.variant]
    entries = sorted([*others, asdict(result)], key=lambda item: item["variant"], reverse=True)
    _RESULT.parent.mkdir(parents=True, exist_ok=True)
    _RESULT.write_text(json.dumps(entries, indent=1) + "\n")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the harness reports to its terminal


if __name__ == "__main__":
    sys.exit(main())
