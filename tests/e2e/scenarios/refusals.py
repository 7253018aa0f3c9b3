"""What the operator and the API server refuse, and what stays as it was meanwhile."""

import json

from tests.e2e.kubectl import CommandError, E2EError, JsonObject
from tests.e2e.scenario import Scenario
from tests.e2e.suite import Suite

_LONG_NAME = "a" * 41


def broken_resources(suite: Suite) -> None:
    """What can never be right is refused with a sentence a person understands."""
    suite.need_operator()
    refused: tuple[tuple[str, JsonObject, str], ...] = (
        ("many", {"replicas": 10}, "replicas must be between 0 (hibernate) and 9"),
        ("negative", {"replicas": -1}, "replicas must be between 0 (hibernate) and 9"),
        (
            "hasty",
            {"raft": {"heartbeatIntervalMs": 100, "electionTimeoutMs": 250}},
            "raft.electionTimeoutMs must be at least 3 times raft.heartbeatIntervalMs",
        ),
        ("my-peers", {}, "the name must not end in '-peers'"),
        (_LONG_NAME, {}, "the name must be a DNS label of at most 40 characters"),
        ("1st", {}, "the name must be a DNS label of at most 40 characters"),
        ("imageless", {"image": ""}, "spec.image"),
        ("odd-size", {"storage": {"size": "much"}}, "spec.storage.size"),
        ("typo", {"service": {"type": "External"}}, "spec.service.type"),
    )
    for name, spec, sentence in refused:
        _expect_refusal(suite, suite.cluster(name).manifest(**spec), sentence)
    made = suite.kubectl.items("raftkvclusters", "-n", suite.cluster("x").namespace)
    broken = {item["metadata"]["name"] for item in made} & {name for name, _, _ in refused}
    if broken:
        raise E2EError(f"refused, but created all the same: {broken}")


def broken_changes(suite: Suite) -> None:
    """Changes that would lose data are refused; the running cluster is untouched."""
    demo = suite.need_demo()
    before = demo.stateful_set()["spec"]
    for spec, sentence in (
        ({"storage": {"size": "1Mi"}}, "storage.size may only grow"),
        ({"storage": {"storageClassName": "other"}}, "storage.storageClassName cannot be changed"),
    ):
        try:
            demo.patch_spec(**spec)
        except CommandError as error:
            if sentence not in error.stderr:
                raise E2EError(f"{spec}: refused with {error.stderr!r}") from None
        else:
            raise E2EError(f"{spec} was accepted")
    if demo.stateful_set()["spec"] != before:
        raise E2EError("a refused change reached the StatefulSet")


def foreign_object(suite: Suite) -> None:
    """A user's Service that has the cluster's name is reported and left alone (rule 9)."""
    suite.need_operator()
    cluster = suite.cluster("taken")
    service: JsonObject = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": cluster.name, "namespace": cluster.namespace},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]},
    }
    suite.kubectl.apply(service)
    before = suite.kubectl.get("service", cluster.name, "-n", cluster.namespace)
    cluster.apply()
    cluster.wait_condition("Degraded", "True", "NameConflict", seconds=20)
    if cluster.pods():
        raise E2EError("pods were made in spite of the conflict")
    cluster.delete()
    after = suite.kubectl.get("service", cluster.name, "-n", cluster.namespace)
    if after != before:
        raise E2EError("the user's Service was changed")
    suite.kubectl.delete("service", cluster.name, "-n", cluster.namespace)


def _expect_refusal(suite: Suite, manifest: JsonObject, sentence: str) -> None:
    try:
        suite.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    except CommandError as error:
        if sentence not in error.stderr:
            raise E2EError(f"wanted {sentence!r}, got {error.stderr.strip()!r}") from None
        return
    name = manifest["metadata"]["name"]
    suite.kubectl.delete("raftkvcluster", name, "-n", manifest["metadata"]["namespace"])
    raise E2EError(f"{manifest['spec']} was accepted; wanted {sentence!r}")


LIGHT_SCENARIOS = (
    Scenario("broken-resources", "each refused with a sentence", broken_resources),
    Scenario("broken-changes", "shrinking storage is refused", broken_changes),
    Scenario("foreign-object", "a user's object of that name is left alone", foreign_object),
)
