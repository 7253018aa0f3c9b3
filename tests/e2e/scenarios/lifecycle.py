"""Deleting and coming back: with kept claims, without the operator, from the plain manifest."""

import time

from tests.e2e.kubectl import E2EError
from tests.e2e.operator_install import NAMESPACE
from tests.e2e.raft_cluster import RaftCluster
from tests.e2e.scenario import Scenario
from tests.e2e.scenarios.install import apply_example, write_and_read
from tests.e2e.suite import CLUSTERS_NAMESPACE, Suite

# Kubernetes itself looks at a namespace whose claims are not gone yet only every 15 s.
_GONE_SECONDS = 120.0


def delete_and_return(suite: Suite) -> None:
    """The object is deleted and applied again over kept claims: same cluster, same data."""
    demo = suite.need_demo()
    demo.put("kept", "through deletion")
    cluster_id = demo.cluster_id()
    # Also those that members left which are gone: scaling down keeps claims.
    kept = _claims(suite, demo)
    began = time.monotonic()
    demo.delete()
    suite.row.notes.append(f"gone in {time.monotonic() - began:.1f} s")
    if _claims(suite, demo) != kept:
        raise E2EError(f"of {kept} the claims {_claims(suite, demo)} are left")
    apply_example(suite)
    demo.wait_settled()
    if demo.cluster_id() != cluster_id:
        raise E2EError(f"came back as cluster {demo.cluster_id()}, not {cluster_id}")
    if demo.get("kept") != "through deletion":
        raise E2EError(f"came back with {demo.get('kept')!r}")


def _claims(suite: Suite, demo: RaftCluster) -> list[str]:
    items = suite.kubectl.items("pvc", "-n", demo.namespace, "-l", demo.selector)
    return sorted(item["metadata"]["name"] for item in items)


def delete_without_operator(suite: Suite) -> None:
    """With the operator uninstalled, deleting the object and its namespace does not hang."""
    demo = suite.need_demo()
    suite.uninstall_operator()
    demo.put("served", "without operator")
    began = time.monotonic()
    demo.delete(seconds=_GONE_SECONDS)
    suite.kubectl.delete("namespace", demo.namespace, seconds=_GONE_SECONDS)
    suite.row.notes.append(f"gone in {time.monotonic() - began:.1f} s")


def plain_manifest(suite: Suite) -> None:
    """The core once more, with `kubectl apply -f manifests/install.yaml`."""
    suite.uninstall_operator()
    suite.kubectl.delete("namespace", NAMESPACE, seconds=_GONE_SECONDS)
    suite.create_namespace(NAMESPACE)
    suite.operator.apply_manifest()
    demo = suite.cluster("demo")
    apply_example(suite)
    demo.wait_settled()
    write_and_read(demo)
    demo.delete()
    suite.kubectl.delete("namespace", CLUSTERS_NAMESPACE, seconds=_GONE_SECONDS)
    suite.operator.delete_manifest()


SCENARIOS = (
    Scenario("delete-and-return", "deleted, applied again: the data is there", delete_and_return),
    Scenario("delete-without-operator", "object and namespace go", delete_without_operator),
    Scenario("plain-manifest", "the core with manifests/install.yaml", plain_manifest),
)
