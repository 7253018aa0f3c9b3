"""Values that the operator's tests share: a cluster, its pods, and what its nodes say.

The default world is `demo` in the namespace `default`: three pods whose nodes answer.
"""

from typing import Any

from raftkv_operator import names
from raftkv_operator.api import BootstrapMember, BootstrapRecord, Cluster, Status, parse_cluster
from raftkv_operator.objects import JsonObject, ObjectKey, key_of
from raftkv_operator.observed import (
    NodeCluster,
    NodeMember,
    NodeStatus,
    Observed,
    PodView,
)
from raftkv_operator.plan import Plan, plan
from raftkv_operator.resources import Wanted, desired_objects
from raftkv_operator.resources.stateful_set import template_hash

UID = "11111111-1111-1111-1111-111111111111"
STATEFUL_SET_UID = "22222222-2222-2222-2222-222222222222"
CLUSTER_ID = "c" * 32
NEW_CLUSTER_ID = "d" * 32
NOW = "2026-11-21T10:00:00Z"
LATER = "2026-11-21T11:00:00Z"


def body(*, name: str = "demo", status: JsonObject | None = None, **spec: Any) -> JsonObject:
    """A RaftKVCluster as the API server returns it."""
    return {
        "apiVersion": names.CLUSTER_KIND.api_version,
        "kind": names.CLUSTER_KIND.name,
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
        },
        "spec": {"image": "raftkv:dev", **spec},
        **({"status": status} if status is not None else {}),
    }


def cluster(*, status: Status | None = None, name: str = "demo", **spec: Any) -> Cluster:
    """The same, parsed."""
    parsed = parse_cluster(body(name=name, **spec))
    return Cluster(
        name=parsed.name,
        namespace=parsed.namespace,
        uid=parsed.uid,
        generation=parsed.generation,
        is_deleting=False,
        spec=parsed.spec,
        status=status or Status(),
    )


def member_id(ordinal: int, *, life: int = 0) -> str:
    """The id of the node on a pod's volume; another ``life`` is another volume."""
    return f"{life:08x}{ordinal:08x}"


def record(voters: int = 3, *, adopted: bool = False) -> BootstrapRecord:
    """A recorded bootstrap of the default cluster."""
    return BootstrapRecord(
        cluster_id=CLUSTER_ID,
        members=tuple(
            BootstrapMember(pod=f"demo-{ordinal}", member_id=member_id(ordinal))
            for ordinal in range(voters)
        ),
        adopted=adopted,
    )


def recorded(voters: int = 3, *, adopted: bool = False, **status: Any) -> Status:
    """The status right after the record was written."""
    return Status(cluster_id=CLUSTER_ID, bootstrap=record(voters, adopted=adopted), **status)


def node(
    ordinal: int,
    *,
    cluster_id: str | None = None,
    leader: int | None = None,
    state: str | None = None,
    life: int = 0,
) -> NodeStatus:
    """A node's status; without ``cluster_id`` its volume is empty."""
    return NodeStatus(
        name=f"demo-{ordinal}",
        member_id=member_id(ordinal, life=life),
        cluster_id=cluster_id,
        state=state or ("uninitialised" if cluster_id is None else "running"),
        role="leader" if leader == ordinal else "follower",
        term=7,
        leader=None if leader is None else member_id(leader),
        version="0.1.0",
    )


def config(
    voters: int = 3,
    *,
    cluster_id: str | None = CLUSTER_ID,
    leader: int | None = 0,
    unhealthy: tuple[int, ...] = (),
    name: str = "demo",
) -> NodeCluster:
    """A node's view of its cluster."""
    return NodeCluster(
        cluster_id=cluster_id,
        leader=None if leader is None else member_id(leader),
        term=7,
        config_index=1,
        voters=tuple(member_id(ordinal) for ordinal in range(voters)),
        members=tuple(
            NodeMember(
                id=member_id(ordinal),
                name=f"{name}-{ordinal}",
                role="leader" if leader == ordinal else "follower",
                voter=True,
                healthy=None if leader is None else ordinal not in unhealthy,
                lag_entries=None if leader is None else 0,
            )
            for ordinal in range(voters)
        ),
    )


def pod(
    ordinal: int,
    status: NodeStatus | None = None,
    view: NodeCluster | None = None,
    *,
    is_deleting: bool = False,
    trouble: str | None = None,
    template: str | None = None,
) -> PodView:
    """A pod; without ``status`` its node does not answer."""
    return PodView(
        name=f"demo-{ordinal}",
        ordinal=ordinal,
        uid=f"pod-{ordinal}",
        ip=f"10.0.0.{ordinal + 1}",
        is_ready=status is not None and status.cluster_id is not None,
        is_deleting=is_deleting,
        template_hash=template or template_hash(cluster()),
        trouble=trouble,
        node=status,
        config=view,
        is_routed=status is not None and status.cluster_id is not None,
        routing_seconds=60.0,
    )


def empty_pods(count: int = 3) -> tuple[PodView, ...]:
    """Pods whose nodes say that their volume is empty."""
    return tuple(pod(ordinal, node(ordinal)) for ordinal in range(count))


def running_pods(count: int = 3, *, leader: int = 0) -> tuple[PodView, ...]:
    """Pods of a formed cluster; the leader tells of the members."""
    return tuple(
        pod(
            ordinal,
            node(ordinal, cluster_id=CLUSTER_ID, leader=leader),
            config(count, leader=leader) if ordinal == leader else None,
        )
        for ordinal in range(count)
    )


def live(item: JsonObject) -> JsonObject:
    """An object as it lives: with a uid."""
    uid = STATEFUL_SET_UID if item["kind"] == "StatefulSet" else f"uid-{item['kind']}"
    return {**item, "metadata": {**item["metadata"], "uid": uid}}


def live_objects(
    wanted_cluster: Cluster, *, without: tuple[str, ...] = (), replicas: int | None = None
) -> dict[ObjectKey, JsonObject]:
    """Every object as the operator made it for ``wanted_cluster``, except kinds ``without``."""
    bootstrap = wanted_cluster.status.bootstrap
    voters = wanted_cluster.spec.replicas if bootstrap is None else len(bootstrap.members)
    wanted = Wanted(
        replicas=voters if replicas is None else replicas,
        voters=voters,
        operator_namespace="raftkv-system",
        has_pod_monitors=False,
    )
    items = map(live, desired_objects(wanted_cluster, wanted))
    return {key_of(item): item for item in items if item["kind"] not in without}


def observed(
    wanted_cluster: Cluster,
    pods: tuple[PodView, ...],
    *,
    is_serving: bool = False,
    objects: dict[ObjectKey, JsonObject] | None = None,
) -> Observed:
    """What a pass sees: all objects in order, the client Service only with ``is_serving``."""
    seen = dict(live_objects(wanted_cluster) if objects is None else objects)
    if not is_serving:
        seen.pop(ObjectKey("Service", wanted_cluster.name), None)
    return Observed(objects=seen, pods=pods)


def make_plan(wanted_cluster: Cluster, seen: Observed) -> Plan:
    """The plan for what was seen."""
    return plan(
        wanted_cluster, seen, operator_namespace="raftkv-system", new_cluster_id=NEW_CLUSTER_ID
    )
