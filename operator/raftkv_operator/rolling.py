"""Rolling restarts: a new image, new settings or a new `restartAt`, without a failed request.

Called by `raftkv_operator.changes`. Pure. A pod is outdated when the hash in its annotation is not
that of the spec (rule 18). Order: pods that do not run, at once; then followers; the leader last,
after it handed leadership on. The next one only when all others serve again: in the
EndpointSlices for a while, caught up, heard of by the leader.
"""

from raftkv_operator.actions import ReplacePod, StopPod
from raftkv_operator.api import Cluster
from raftkv_operator.observed import NodeMember, Observed, PodView
from raftkv_operator.resources.stateful_set import live_template_hash, template_hash
from raftkv_operator.scene import Change, Operation, Scene, acting, waiting, why_not_running

ROLLING_RESTART = "RollingRestart"


def outdated_pods(cluster: Cluster, observed: Observed) -> list[PodView]:
    """Pods that the StatefulSet would make otherwise by now."""
    live = observed.stateful_set(cluster.name)
    current = template_hash(cluster)
    if live is None or live_template_hash(live) != current:
        return []  # the template comes first: a pod that is stopped would return as it was
    return [pod for pod in observed.pods if pod.template_hash != current]


def cure(cluster: Cluster, observed: Observed, scene: Scene | None) -> tuple[ReplacePod, ...]:
    """Outdated pods that do not run: a corrected spec replaces them at once, also without quorum.

    Without a leader that is one that is neither ready nor answers (rule 5); with one, also one
    that is not ready and that the leader does not hear from, or that is no voter.
    """
    needed = _needed(cluster, observed) if scene is None else frozenset()
    return tuple(
        ReplacePod(pod.name, pod.uid)
        for pod in outdated_pods(cluster, observed)
        if not pod.is_deleting
        and not pod.is_ready
        and pod.name not in needed
        and (pod.node is None or (scene is not None and not _counts(scene, pod)))
    )


def _needed(cluster: Cluster, observed: Observed) -> frozenset[str]:
    """Pods that a leader hears from while too few answer us to be sure that it leads.

    If it does, they are its quorum, although we cannot reach them. Where a majority answers, the
    others are not needed.
    """
    record = cluster.status.bootstrap
    view = None if record is None else observed.leader_view(record.cluster_id)
    if view is None:
        return frozenset()
    return frozenset(member.name for member in view.members if view.is_healthy(member))


def _counts(scene: Scene, pod: PodView) -> bool:
    """Whether the leader hears from a voter in this pod."""
    assert pod.node is not None
    return any(
        member.id == pod.node.member_id and scene.is_healthy(member) for member in scene.voters
    )


def roll(scene: Scene) -> Change | None:
    """The next step of the restart."""
    outdated = {pod.name for pod in outdated_pods(scene.cluster, scene.observed)}
    candidates = [member for member in scene.voters if member.name in outdated]
    strangers = [name for name in sorted(outdated) if name not in _names(candidates)]
    if not outdated:
        return _wait_for_the_last(scene)
    if not candidates:
        # Pods of no voter serve nobody that could not be served elsewhere.
        stranger = scene.observed.pod(strangers[0])
        assert stranger is not None
        operation = Operation(ROLLING_RESTART, "RestartPod", stranger.name)
        if stranger.is_deleting:
            return waiting(operation, f"waiting for {stranger.name}: terminating")
        return acting(operation, StopPod(name=stranger.name, uid=stranger.uid))
    target = _choose(scene, candidates)
    ahead = tuple(f"restart {name}" for name in _order(scene, candidates) if name != target.name)
    first = _announcement(scene, target, ahead)
    if first is not None:
        return first
    for member in scene.voters:
        if member.id != target.id and not scene.serves(member):
            operation = Operation(ROLLING_RESTART, "WaitForPod", member.name)
            why = why_not_running(scene.observed.pod(member.name))
            reason = f"waiting for {member.name} to serve again: {why}"
            return waiting(operation, reason, ahead=(f"restart {target.name}", *ahead))
    return _restart(scene, target, ahead)


def _restart(scene: Scene, target: NodeMember, ahead: tuple[str, ...]) -> Change:
    """All others serve: hand over, drain, stop."""
    pod = scene.pod_of(target)
    then = (f"restart {target.name}", *ahead)
    if pod is None or pod.is_deleting:
        operation = Operation(ROLLING_RESTART, "RestartPod", target.name)
        why = why_not_running(scene.observed.pod(target.name))
        return waiting(operation, f"waiting for {target.name}: {why}", ahead=ahead)
    if target.id == scene.view.leader and len(scene.voters) > 1:
        operation = Operation(ROLLING_RESTART, "TransferLeader", target.name)
        transfer = scene.hand_over(target)
        if transfer is None:
            return waiting(operation, f"no voter can lead in the place of {target.name}")
        return acting(operation, transfer, ahead=then)
    if not pod.is_draining:
        return acting(
            Operation(ROLLING_RESTART, "Drain", target.name), scene.drain(pod), ahead=then
        )
    stop = StopPod(name=pod.name, uid=pod.uid)
    return acting(Operation(ROLLING_RESTART, "RestartPod", target.name), stop, ahead=ahead)


def _announcement(scene: Scene, target: NodeMember, ahead: tuple[str, ...]) -> Change | None:
    """Rule 20: with one or two voters the user hears first that requests will wait."""
    said = scene.cluster.status.operation
    if len(scene.voters) > 2 or (said is not None and said.type == ROLLING_RESTART):
        return None
    operation = Operation(ROLLING_RESTART, "Announce", target.name)
    reason = f"with {len(scene.voters)} voters, requests wait while a pod restarts"
    return waiting(operation, reason, ahead=(f"restart {target.name}", *ahead))


def _wait_for_the_last(scene: Scene) -> Change | None:
    """All are current: the restart ends when the last one serves."""
    said = scene.cluster.status.operation
    if said is None or said.type != ROLLING_RESTART:
        return None
    for member in scene.voters:
        if not scene.serves(member):
            operation = Operation(ROLLING_RESTART, "WaitForPod", member.name)
            why = why_not_running(scene.observed.pod(member.name))
            return waiting(operation, f"waiting for {member.name} to serve again: {why}")
    return None


def _choose(scene: Scene, candidates: list[NodeMember]) -> NodeMember:
    """The one that was begun, else the first in order."""
    for member in candidates:
        pod = scene.observed.pod(member.name)
        if pod is not None and (pod.is_draining or pod.is_deleting):
            return member
    wanted = _order(scene, candidates)[0]
    return next(member for member in candidates if member.name == wanted)


def _order(scene: Scene, candidates: list[NodeMember]) -> list[str]:
    """Those that do not serve, then followers from the highest ordinal down, then the leader."""
    followers = [member for member in reversed(candidates) if member.id != scene.view.leader]
    leaders = [member for member in candidates if member.id == scene.view.leader]
    idle = [member for member in followers if not scene.serves(member)]
    return _names([*idle, *(item for item in followers if item not in idle), *leaders])


def _names(members: list[NodeMember]) -> list[str]:
    return [member.name for member in members]
