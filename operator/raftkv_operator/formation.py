"""How far the cluster is from existing: the one place that decides about bootstrap and adoption.

Called by the planner, which acts on the answer, and by the conditions, which report it. Pure.

Two clusters must never form, whatever dies and whenever (rules 1 and 2). Therefore: the list of
first members is recorded before the bootstrap call; the call goes only to the first of that list,
and only while its volume is still the recorded one; nothing is recorded as new while any pod is
silent, since a silent pod may hold data; data that is found is adopted or reported, never
overwritten.
"""

from collections.abc import Iterable

from msgspec import Struct

from raftkv_operator import names
from raftkv_operator.api import BootstrapMember, BootstrapRecord, Cluster
from raftkv_operator.objects import is_controlled_by
from raftkv_operator.observed import UNINITIALISED, NodeCluster, NodeStatus, Observed, PodView


class Waiting(Struct, frozen=True):
    """Nothing can be decided yet."""

    reason: str
    message: str


class Fresh(Struct, frozen=True):
    """Every wanted pod said in this pass that its volume is empty: a new cluster may be recorded.

    The first of ``members`` will be asked to found it.
    """

    members: tuple[BootstrapMember, ...]


class Adoptable(Struct, frozen=True):
    """The nodes already are a cluster with a quorum, left by an earlier object of this name."""

    cluster_id: str
    members: tuple[BootstrapMember, ...]


class Foreign(Struct, frozen=True):
    """Volumes hold data that can neither be adopted nor be overwritten."""

    message: str


class Unconfirmed(Struct, frozen=True):
    """Recorded, but the founder has not acted on it yet: the call is made, again if need be."""

    record: BootstrapRecord


class TargetLost(Struct, frozen=True):
    """The founder lost its volume between record and confirmation: nobody may choose another."""

    message: str


class Formed(Struct, frozen=True):
    """The recorded cluster exists."""

    record: BootstrapRecord


Formation = Waiting | Fresh | Adoptable | Foreign | Unconfirmed | TargetLost | Formed


def assess_formation(cluster: Cluster, observed: Observed) -> Formation:
    """Derive the state from what is recorded and what every pod said in this pass."""
    record = cluster.status.bootstrap
    if record is None:
        return _before_record(cluster, observed)
    return _after_record(cluster, observed, record)


def foreign_pods(cluster: Cluster, observed: Observed) -> list[PodView]:
    """Pods whose volume belongs to another cluster than the recorded one."""
    record = cluster.status.bootstrap
    return [
        pod
        for pod, node in _answering(observed.pods)
        if record is not None and node.cluster_id not in (None, record.cluster_id)
    ]


def is_quorum(present: Iterable[str], voters: tuple[str, ...]) -> bool:
    """Whether ``present`` holds a majority of ``voters``; an empty configuration has none."""
    return len(set(voters) & set(present)) > len(voters) // 2


# ---- before the record ----------------------------------------------------------------------


def _before_record(cluster: Cluster, observed: Observed) -> Formation:
    wanted = [names.pod(cluster.name, ordinal) for ordinal in range(cluster.spec.replicas)]
    if any(node.cluster_id is not None for _, node in _answering(observed.pods)):
        return _existing_data(cluster, observed, wanted)
    if not wanted:
        return Waiting("Hibernated", "spec.replicas is 0: no pods are wanted")
    silent = _silent(observed, wanted)
    if silent:
        return Waiting("WaitingForPods", f"waiting for {silent}")
    members = []
    for name in wanted:
        pod = observed.pod(name)
        assert pod is not None
        assert pod.node is not None
        if pod.node.state != UNINITIALISED:
            return Waiting("WaitingForPods", f"{name} reports the state {pod.node.state}")
        members.append(BootstrapMember(pod=name, member_id=pod.node.member_id))
    return Fresh(tuple(members))


def _existing_data(cluster: Cluster, observed: Observed, wanted: list[str]) -> Formation:
    """Some volume already knows a cluster: adopt it whole, or say why not (rule 2)."""
    holders = [(pod, node) for pod, node in _answering(observed.pods) if node.cluster_id]
    held = {node.cluster_id for _, node in holders}
    claims = ", ".join(names.claim(pod.name) for pod, _ in holders)
    if len(held) > 1:
        return Foreign(f"the claims {claims} hold data of {len(held)} different clusters")
    cluster_id = held.pop()
    assert cluster_id is not None
    led = observed.leader_view(cluster_id)
    view = led or _newest_view(observed, cluster_id)
    if view is None:
        return Waiting("Adopting", f"asking the nodes on {claims} for their members")
    strangers = [
        member.name
        for member in view.members
        if member.id in view.voters and names.ordinal_of(cluster.name, member.name) is None
    ]
    if strangers:
        return Foreign(
            f"the claims {claims} hold data of a cluster whose members are named "
            f"{', '.join(strangers)}, not after '{cluster.name}'"
        )
    if led is not None:
        return Adoptable(cluster_id, _voters_in_order(cluster, led))
    present = [node.member_id for _, node in holders]
    if is_quorum(present, view.voters):
        return Waiting("Adopting", f"waiting for the nodes on {claims} to elect a leader")
    silent = _silent(observed, wanted)
    if silent:
        return Waiting("Adopting", f"data was found on {claims}; waiting for {silent}")
    return Foreign(
        f"the claims {claims} hold data of cluster {cluster_id}, which has {len(view.voters)} "
        f"voters, too few of which are here; set spec.replicas to {_replicas_for(cluster, view)} "
        "to adopt it, or delete the claims to start anew"
    )


def _newest_view(observed: Observed, cluster_id: str) -> NodeCluster | None:
    views = [
        pod.config
        for pod in observed.pods
        if pod.config is not None and pod.config.cluster_id == cluster_id
    ]
    return max(views, key=lambda view: view.config_index, default=None)


def _replicas_for(cluster: Cluster, view: NodeCluster) -> int:
    """How many pods cover every voter."""
    ordinals = [names.ordinal_of(cluster.name, member.name) for member in view.members]
    return max((ordinal + 1 for ordinal in ordinals if ordinal is not None), default=0)


def _voters_in_order(cluster: Cluster, view: NodeCluster) -> tuple[BootstrapMember, ...]:
    """The voters as recorded members, by ordinal."""
    voters = [member for member in view.members if member.id in view.voters]
    voters.sort(key=lambda member: names.ordinal_of(cluster.name, member.name) or 0)
    return tuple(BootstrapMember(pod=member.name, member_id=member.id) for member in voters)


# ---- after the record -----------------------------------------------------------------------


def _after_record(cluster: Cluster, observed: Observed, record: BootstrapRecord) -> Formation:
    holders = [node for _, node in _answering(observed.pods) if node.cluster_id is not None]
    if record.adopted or any(node.cluster_id == record.cluster_id for node in holders):
        return Formed(record)
    # The client Service is made only after the voters formed (rule 25), so it remembers that they
    # did while no node can be asked.
    service = observed.get("Service", names.client_service(cluster.name))
    if service is not None and is_controlled_by(service, cluster.uid):
        return Formed(record)
    foreign = foreign_pods(cluster, observed)
    if foreign:
        claims = ", ".join(names.claim(pod.name) for pod in foreign)
        return Foreign(f"the claims {claims} hold data of another cluster")
    return _toward_founder(observed, record)


def _toward_founder(observed: Observed, record: BootstrapRecord) -> Formation:
    """No node knows the recorded cluster yet."""
    founder = record.members[0]
    silent_founder = _silent(observed, [founder.pod])
    if silent_founder:
        return Waiting("WaitingForPods", f"waiting for {silent_founder} to found the cluster")
    pod = observed.pod(founder.pod)
    assert pod is not None
    assert pod.node is not None
    if pod.node.member_id == founder.member_id:
        return Unconfirmed(record)
    # The founder may have acted before it lost its volume; then another member may know.
    silent = _silent(observed, [member.pod for member in record.members])
    if silent:
        return Waiting(
            "WaitingForPods", f"{founder.pod} lost its volume before it answered; asking {silent}"
        )
    return TargetLost(
        f"{founder.pod} was to found cluster {record.cluster_id} as {founder.member_id}, but its "
        f"volume is now that of {pod.node.member_id}; no member knows the cluster, so nothing was "
        "stored: delete this RaftKVCluster and apply it again"
    )


# ---- helpers --------------------------------------------------------------------------------


def _answering(pods: tuple[PodView, ...]) -> list[tuple[PodView, NodeStatus]]:
    return [(pod, pod.node) for pod in pods if pod.node is not None and not pod.is_deleting]


def _silent(observed: Observed, wanted: list[str]) -> str:
    """Which of the wanted pods did not answer, and why; empty when all did."""
    texts = []
    for name in wanted:
        pod = observed.pod(name)
        if pod is None:
            texts.append(f"{name} (no pod yet)")
        elif pod.is_deleting:
            texts.append(f"{name} (terminating)")
        elif pod.node is None:
            texts.append(f"{name} ({pod.trouble or 'does not answer'})")
    return ", ".join(texts)
