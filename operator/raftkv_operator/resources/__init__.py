"""One module per child object, each a pure ``build(cluster, ...)`` to a dict.

`desired_objects` is the ordered list of all of them; `raftkv_operator.plan` compares it with what
lives. A builder leaves out what is empty: the API server does too, and an empty value would look
like drift for ever. To add a child: its builder here, its kind in `OWNED_KINDS`, its verbs in the
chart's role, its golden file in tests/operator/testdata.
"""

import hashlib
import json

from msgspec import Struct

from raftkv_operator import names
from raftkv_operator.api import Cluster
from raftkv_operator.objects import JsonObject, Kind
from raftkv_operator.resources import (
    client_service,
    config_map,
    network_policy,
    peer_service,
    pod_disruption_budget,
    pod_monitor,
    service_account,
    stateful_set,
)

STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
SERVICE = Kind("v1", "Service", "services")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
POD_DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
POD_MONITOR = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors")

POD = Kind("v1", "Pod", "pods")  # made by the StatefulSet, watched by us
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")  # likewise
# Made for our Services; Kubernetes copies the labels of a Service to its slices, so the same
# selector finds them.
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
WATCHED_KINDS = (POD, CLAIM, ENDPOINT_SLICE)

OWNED_KINDS = (
    SERVICE_ACCOUNT,
    CONFIG_MAP,
    SERVICE,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    STATEFUL_SET,
    POD_MONITOR,
)

# Objects that a setting can switch off. The others are never deleted while the cluster lives.
SWITCHED_KINDS = (NETWORK_POLICY, POD_DISRUPTION_BUDGET, POD_MONITOR)

# Kinds that not every API server knows: they come with an operator of their own.
OPTIONAL_KINDS = (POD_MONITOR,)


class Wanted(Struct, frozen=True, kw_only=True):
    """What the planner decided about the objects; builders never decide."""

    replicas: int  # of the StatefulSet (rule 4)
    voters: int  # for the disruption budget
    operator_namespace: str | None  # None: the operator runs outside of Kubernetes
    has_pod_monitors: bool
    live_stateful_set: JsonObject | None = None


def desired_objects(cluster: Cluster, wanted: Wanted) -> list[JsonObject]:
    """All objects that should exist now, in the order in which they are applied.

    What pods need comes before the StatefulSet, so that no pod starts without its settings or
    without its network policy. The client Service comes last, and the planner holds it back until
    the initial voters formed (rule 25).
    """
    spec = cluster.spec
    desired = [
        service_account.build(cluster),
        config_map.build(cluster),
        peer_service.build(cluster),
    ]
    if spec.network_policy.enabled:
        desired.append(network_policy.build(cluster, operator_namespace=wanted.operator_namespace))
    if spec.pod_disruption_budget.enabled and wanted.voters > 1:
        desired.append(pod_disruption_budget.build(cluster, voters=wanted.voters))
    desired.append(
        stateful_set.build(
            cluster,
            replicas=wanted.replicas,
            live=wanted.live_stateful_set,
        )
    )
    if spec.monitoring.pod_monitor and wanted.has_pod_monitors:
        desired.append(pod_monitor.build(cluster))
    desired.append(client_service.build(cluster))
    return [_finish(cluster, item) for item in desired]


def claimed_keys(cluster: Cluster) -> list[tuple[Kind, str]]:
    """Kind and name of everything that the spec makes ours, whether it exists or not."""
    name, spec = cluster.name, cluster.spec
    keys = [
        (SERVICE_ACCOUNT, names.service_account(name)),
        (CONFIG_MAP, names.config_map(name)),
        (SERVICE, names.peer_service(name)),
        (SERVICE, names.client_service(name)),
        (STATEFUL_SET, names.stateful_set(name)),
    ]
    if spec.network_policy.enabled:
        keys.append((NETWORK_POLICY, names.network_policy(name)))
    if spec.pod_disruption_budget.enabled:  # by the members that there are, not by the spec
        keys.append((POD_DISRUPTION_BUDGET, names.pod_disruption_budget(name)))
    if spec.monitoring.pod_monitor:
        keys.append((POD_MONITOR, names.pod_monitor(name)))
    return keys


def _finish(cluster: Cluster, item: JsonObject) -> JsonObject:
    """Add what all children share: namespace, labels, owner, and the hash of what is applied."""
    metadata = dict(item["metadata"])
    metadata["namespace"] = cluster.namespace
    metadata["labels"] = names.labels(cluster.name)
    metadata["ownerReferences"] = [names.owner_reference(cluster.name, cluster.uid)]
    built = {**item, "metadata": metadata}
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        names.ANNOTATION_APPLIED_HASH: _digest(built),
    }
    return built


def _digest(built: JsonObject) -> str:
    """Hash of what is applied, except claim templates: those are what lives, not our choice."""
    spec = built.get("spec") or {}
    chosen = {name: value for name, value in spec.items() if name != "volumeClaimTemplates"}
    text = json.dumps({**built, "spec": chosen}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
