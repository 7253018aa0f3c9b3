"""Scaling, one member at a time: up by learners that are promoted, down from the highest ordinal.

Called by `raftkv_operator.changes`. Pure.

    up      claim and pod (`pods_wanted`) -> learner -> caught up -> promote
    down    transfer away -> drain -> out of the EndpointSlices -> remove -> shrink (`pods_wanted`)

A learner that is no longer wanted is removed again; a drained member that is wanted again is put
back (`raftkv_operator.changes`). A pod that starts on the claim that a removed member left is that
member: it joins under the same id, as a learner, and only lacks what was written since (rule 7).
"""

from raftkv_operator import names
from raftkv_operator.actions import PromoteLearner
from raftkv_operator.api import Cluster
from raftkv_operator.observed import NodeMember, Observed, PodView
from raftkv_operator.scene import (
    ENDPOINTS_SECONDS,
    Change,
    Operation,
    Scene,
    acting,
    make_scene,
    waiting,
    why_not_running,
)

SCALE_UP = "ScaleUp"
SCALE_DOWN = "ScaleDown"
_PODS_MAX = 10  # of a StatefulSet that someone else scaled while no leader tells the members


def pods_wanted(cluster: Cluster, observed: Observed) -> int:
    """Replicas of the StatefulSet (rule 4): up to the highest member, or to the next one."""
    status = cluster.status
    if status.bootstrap is None:
        return cluster.spec.replicas
    if status.hibernated and cluster.spec.replicas == 0:
        return 0
    scene = make_scene(cluster, observed)
    if scene is None:
        known = [item.pod for item in status.hibernated] or [item.name for item in status.members]
        recorded = known or [item.pod for item in status.bootstrap.members]
        live = observed.stateful_set(cluster.name)
        running = 0 if live is None else int(live["spec"].get("replicas") or 0)
        return max(_count(cluster, recorded), min(running, _PODS_MAX))
    newcomer = next_newcomer(scene)
    members = [member.name for member in scene.view.members]
    return _count(cluster, members if newcomer is None else [*members, newcomer])


def _count(cluster: Cluster, pods: list[str]) -> int:
    ordinals = [names.ordinal_of(cluster.name, pod) for pod in pods]
    return max((ordinal + 1 for ordinal in ordinals if ordinal is not None), default=0)


def newcomers(scene: Scene) -> list[NodeMember]:
    """Learners that are to be voters of their own, not in the place of one."""
    taken = {member.name for member in scene.voters}
    return [member for member in scene.learners if member.name not in taken]


def next_newcomer(scene: Scene) -> str | None:
    """The pod that is to become a member next; None when no more are wanted, or one is joining."""
    if len(scene.voters) >= scene.cluster.spec.replicas or newcomers(scene):
        return None
    members = {member.name for member in scene.view.members}
    ordinal = 0
    while names.pod(scene.cluster.name, ordinal) in members:
        ordinal += 1
    return names.pod(scene.cluster.name, ordinal)


# ---- up -------------------------------------------------------------------------------------


def scale_up(scene: Scene) -> Change | None:
    """The next step toward more voters, or out of one that is no longer wanted."""
    for learner in newcomers(scene):
        return _advance(scene, learner)
    name = next_newcomer(scene)
    if name is None:
        return None
    ahead = (f"add {name} as a learner", f"promote {name}", *_others_ahead(scene, name))
    pod = scene.observed.pod(name)
    operation = Operation(SCALE_UP, "StartPod", name)
    if pod is None or pod.is_deleting or pod.node is None:
        return waiting(operation, f"waiting for {name}: {why_not_running(pod)}", ahead=ahead)
    return join(scene, pod, SCALE_UP, ahead=ahead[1:])


def join(scene: Scene, pod: PodView, kind: str, *, ahead: tuple[str, ...]) -> Change:
    """Make the node in ``pod``, which answers and is no member, a learner."""
    assert pod.node is not None
    operation = Operation(kind, "AddLearner", pod.name)
    if pod.node.cluster_id not in (None, scene.cluster_id):
        return waiting(operation, f"{names.claim(pod.name)} holds data of another cluster")
    return acting(operation, scene.add_learner(pod), ahead=ahead)


def _advance(scene: Scene, learner: NodeMember) -> Change:
    """A learner that is on its way to being a voter."""
    if len(scene.voters) >= scene.cluster.spec.replicas:
        operation = Operation(SCALE_UP, "RemoveLearner", learner.name)
        return acting(operation, scene.remove(learner))
    pod = scene.observed.pod(learner.name)
    if pod is not None and pod.node is not None and pod.node.member_id != learner.id:
        operation = Operation(SCALE_UP, "RemoveLearner", learner.name)  # its volume was lost
        return acting(operation, scene.remove(learner), ahead=(f"add {learner.name} anew",))
    ahead = _others_ahead(scene, learner.name)
    operation = Operation(SCALE_UP, "PromoteLearner", learner.name)
    if pod is not None and pod.is_ready and scene.has_caught_up(learner):
        promote = PromoteLearner(call=scene.call, pod=learner.name, member_id=learner.id)
        return acting(operation, promote, ahead=ahead)
    reason = f"waiting for {learner.name} to catch up"
    return waiting(operation, reason, ahead=(f"promote {learner.name}", *ahead))


def _others_ahead(scene: Scene, name: str) -> tuple[str, ...]:
    """The pods that follow ``name``."""
    ordinal = names.ordinal_of(scene.cluster.name, name) or 0
    return tuple(
        f"add {names.pod(scene.cluster.name, later)}"
        for later in range(ordinal + 1, scene.cluster.spec.replicas)
    )


# ---- down -----------------------------------------------------------------------------------


def scale_down(scene: Scene) -> Change | None:
    """The next step toward fewer voters; never below a live quorum."""
    voters, wanted = scene.voters, scene.cluster.spec.replicas
    if wanted == 0 or len(voters) <= wanted:
        return None
    target = voters[-1]
    ahead = tuple(f"remove {member.name}" for member in reversed(voters[wanted:-1]))
    removal = (f"remove {target.name}", *ahead)
    if not scene.can_lose(target):
        operation = Operation(SCALE_DOWN, "Drain", target.name)
        reason = f"without {target.name} the voters that answer would be no majority"
        return waiting(operation, reason, ahead=removal)
    if target.id == scene.view.leader:
        operation = Operation(SCALE_DOWN, "TransferLeader", target.name)
        transfer = scene.hand_over(target)
        if transfer is None:
            reason = f"waiting for a voter that can lead in the place of {target.name}"
            return waiting(operation, reason, ahead=removal)
        return acting(operation, transfer, ahead=(f"drain {target.name}", *removal))
    pod = scene.pod_of(target)
    if pod is None:
        return _remove_absent(scene, target, ahead)
    operation = Operation(SCALE_DOWN, "Drain", target.name)
    if not pod.is_draining and not pod.is_deleting:
        return acting(operation, scene.drain(pod), ahead=removal)
    if pod.is_ready or not _has_left(pod):
        reason = f"waiting for {target.name} to leave the EndpointSlices"
        return waiting(operation, reason, ahead=removal)
    return acting(
        Operation(SCALE_DOWN, "RemoveMember", target.name), scene.remove(target), ahead=ahead
    )


def _remove_absent(scene: Scene, target: NodeMember, ahead: tuple[str, ...]) -> Change:
    """A member that does not answer: it goes if the leader does not hear from it either."""
    operation = Operation(SCALE_DOWN, "RemoveMember", target.name)
    if scene.is_healthy(target):
        reason = f"waiting for {target.name} to answer"
        return waiting(operation, reason, ahead=(f"remove {target.name}", *ahead))
    pod = scene.observed.pod(target.name)
    if pod is not None and not _has_left(pod):
        reason = f"waiting for {target.name} to leave the EndpointSlices"
        return waiting(operation, reason, ahead=(f"remove {target.name}", *ahead))
    return acting(operation, scene.remove(target), ahead=ahead)


def _has_left(pod: PodView) -> bool:
    """Whether no client was routed to it for a while (rule 19)."""
    return not pod.is_routed and pod.routing_seconds >= ENDPOINTS_SECONDS
