"""Read everything that one pass needs, once, into an `Observed`.

Called by `raftkv_operator.reconcile`. Objects and pods come from the watch caches; an object that
should exist but is not cached is asked for, since a foreign one carries no label of ours (rule 9).
Nodes are asked in parallel and by IP; an answer under another name is no answer (rule 14).
"""

import asyncio
import logging
from datetime import datetime

from raftkv_operator import names
from raftkv_operator.api import Cluster
from raftkv_operator.clusters import ClusterKey
from raftkv_operator.endpoints import Endpoints, Routing
from raftkv_operator.errors import NodeError, NotFoundError
from raftkv_operator.kube import Kube
from raftkv_operator.node_client import Nodes
from raftkv_operator.objects import (
    JsonObject,
    Kind,
    ObjectKey,
    annotations_of,
    controller_of,
    is_deleting,
    key_of,
)
from raftkv_operator.observed import UNKNOWN_ID, NodeCluster, NodeStatus, Observed, PodView
from raftkv_operator.pod_status import is_ready, lost_seconds, trouble
from raftkv_operator.resources import (
    CLAIM,
    ENDPOINT_SLICE,
    OWNED_KINDS,
    POD,
    POD_DISRUPTION_BUDGET,
    POD_MONITOR,
    STATEFUL_SET,
    claimed_keys,
)
from raftkv_operator.watch import Caches

logger = logging.getLogger(__name__)


async def observe(
    cluster: Cluster,
    *,
    kube: Kube,
    caches: Caches,
    nodes: Nodes,
    endpoints: Endpoints,
    now: datetime,
) -> Observed:
    """Look at the objects, pods, claims and nodes of ``cluster``.

    Raises:
        KubeError: an object could not be read; then nothing is known for sure.
    """
    pod_monitors = caches.of(POD_MONITOR.name, cluster.namespace)
    assert pod_monitors is not None
    if cluster.spec.monitoring.pod_monitor and not pod_monitors.is_served:
        pod_monitors.look_for_kind()
    objects = await _objects(cluster, kube, caches)
    stateful_set = objects.get(ObjectKey(STATEFUL_SET.name, names.stateful_set(cluster.name)))
    pods = _pods(cluster, caches, stateful_set)
    routing = endpoints.look(
        ClusterKey(cluster.namespace, cluster.name), pods, _slices(cluster, caches)
    )
    statuses = await asyncio.gather(*(_ask_status(nodes, pod) for pod in pods))
    configs = await asyncio.gather(
        *(
            _ask_cluster(nodes, pod, status)
            for pod, status in zip(pods, _whom_to_ask(statuses), strict=True)
        )
    )
    return Observed(
        objects=objects,
        pods=tuple(
            _pod_view(
                cluster,
                pod,
                status=status,
                config=config,
                routing=routing[pod["metadata"]["uid"]],
                now=now,
            )
            for pod, status, config in zip(pods, statuses, configs, strict=True)
        ),
        has_pod_monitors=pod_monitors.is_served,
        claims=_claims(cluster, caches),
        now_seconds=now.timestamp(),
    )


def _is_never_made(cluster: Cluster, kind: Kind) -> bool:
    """Whether no pass over this spec makes such an object: then nobody's need be looked for.

    A single voter has no disruption budget (rule 21), whether it runs or sleeps. Asking for one
    in each pass would be all that an idle cluster costs the API server.
    """
    if kind != POD_DISRUPTION_BUDGET:
        return False
    if cluster.spec.replicas > 0:
        return cluster.spec.replicas == 1
    record = cluster.status.bootstrap
    voters = [member.name for member in cluster.status.members if member.voter]
    return record is not None and len(voters or record.members) <= 1


def _claims(cluster: Cluster, caches: Caches) -> dict[str, JsonObject]:
    """The volume claims of the cluster's pods, by name."""
    cache = caches.of(CLAIM.name, cluster.namespace)
    assert cache is not None
    return {
        item["metadata"]["name"]: item
        for item in cache.of_cluster(cluster.namespace, cluster.name)
        if names.claimant(cluster.name, item["metadata"]["name"]) is not None
    }


def _slices(cluster: Cluster, caches: Caches) -> list[JsonObject]:
    cache = caches.of(ENDPOINT_SLICE.name, cluster.namespace)
    assert cache is not None
    return cache.of_cluster(cluster.namespace, cluster.name)


async def _objects(cluster: Cluster, kube: Kube, caches: Caches) -> dict[ObjectKey, JsonObject]:
    """The live objects under the names of the cluster's children, whoever owns them."""
    objects: dict[ObjectKey, JsonObject] = {}
    for kind in OWNED_KINDS:
        cache = caches.of(kind.name, cluster.namespace)
        assert cache is not None
        for item in cache.of_cluster(cluster.namespace, cluster.name):
            objects[key_of(item)] = item
    for kind, name in claimed_keys(cluster):
        key = ObjectKey(kind.name, name)
        cache = caches.of(kind.name, cluster.namespace)
        assert cache is not None
        if key in objects or not cache.is_served or _is_never_made(cluster, kind):
            continue
        try:
            objects[key] = await kube.get(kind, cluster.namespace, name)
        except NotFoundError:
            continue
    return objects


def _pods(cluster: Cluster, caches: Caches, stateful_set: JsonObject | None) -> list[JsonObject]:
    """The pods of the live StatefulSet, or those it is about to adopt, by ordinal.

    While a StatefulSet is made anew around its pods (rule 10), they have no owner.
    """
    cache = caches.of(POD.name, cluster.namespace)
    assert cache is not None
    uid = None if stateful_set is None else stateful_set["metadata"]["uid"]
    pods = [
        pod
        for pod in cache.of_cluster(cluster.namespace, cluster.name)
        if (controller_of(pod) or {}).get("uid") in (None, uid)
        and names.ordinal_of(cluster.name, pod["metadata"]["name"]) is not None
    ]
    pods.sort(key=lambda pod: names.ordinal_of(cluster.name, pod["metadata"]["name"]) or 0)
    return pods


async def _ask_status(nodes: Nodes, pod: JsonObject) -> NodeStatus | None:
    """What the node in ``pod`` says of itself; None when it does not answer by its own name."""
    ip = pod.get("status", {}).get("podIP")
    if ip is None:
        return None
    name = pod["metadata"]["name"]
    try:
        status = await nodes.status(ip)
    except NodeError as error:
        logger.debug("%s at %s: %s", name, ip, error)
        return None
    if status.name != name:
        logger.warning("%s was asked at %s, but %s answered", name, ip, status.name)
        return None
    if status.member_id == UNKNOWN_ID:
        # It starts. Taken for an answer, its volume would look like another one.
        logger.debug("%s has not read its volume yet", name)
        return None
    return status


def _whom_to_ask(statuses: list[NodeStatus | None]) -> list[NodeStatus | None]:
    """For each pod, its status if its configuration is worth asking for, else None.

    The leaders if there are any (two, for a moment, after an election); else every node that
    belongs to a cluster.
    """
    leaders = [
        status if status is not None and status.leader == status.member_id else None
        for status in statuses
    ]
    if any(leaders):
        return leaders
    return [
        status if status is not None and status.cluster_id is not None else None
        for status in statuses
    ]


async def _ask_cluster(
    nodes: Nodes, pod: JsonObject, status: NodeStatus | None
) -> NodeCluster | None:
    if status is None:
        return None
    try:
        return await nodes.cluster(pod["status"]["podIP"])
    except NodeError as error:
        logger.debug("%s: %s", status.name, error)
        return None


def _pod_view(
    cluster: Cluster,
    pod: JsonObject,
    *,
    status: NodeStatus | None,
    config: NodeCluster | None,
    routing: Routing,
    now: datetime,
) -> PodView:
    metadata = pod["metadata"]
    ordinal = names.ordinal_of(cluster.name, metadata["name"])
    assert ordinal is not None
    return PodView(
        name=metadata["name"],
        ordinal=ordinal,
        uid=metadata["uid"],
        ip=pod.get("status", {}).get("podIP"),
        is_ready=is_ready(pod),
        is_deleting=is_deleting(pod),
        template_hash=annotations_of(pod).get(names.ANNOTATION_TEMPLATE_HASH),
        trouble=trouble(pod),
        node=status,
        config=config,
        lost_seconds=lost_seconds(pod, now),
        is_routed=routing.is_routed,
        routing_seconds=routing.seconds,
    )
