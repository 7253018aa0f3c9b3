"""Members whose volume is lost, and members lost with their machine: replaced by a new member.

Called by `raftkv_operator.changes`. Pure.

    volume lost     the pod's node answers under another id -> learner -> caught up -> one joint
                    step lets it vote in the place of the old id
    machine lost    (`nodeFailure.replaceAfter`) recorded with the uids of claim and pod -> claim,
                    then pod deleted -> its volume is lost, as above

Only while a quorum lives, and a machine is given up only while all other voters do (rule 8). What
counts is what the leader hears and what the API server says of the pod, never a connection of our
own. Nothing is removed before the learner has caught up.
"""

from datetime import UTC, datetime

from raftkv_operator import names
from raftkv_operator.actions import (
    Action,
    DeleteClaim,
    DiscardPod,
    RecordReplacement,
    ReplaceMember,
)
from raftkv_operator.api import ReplacementRecord, duration_seconds
from raftkv_operator.objects import is_deleting
from raftkv_operator.observed import UNINITIALISED, NodeMember, PodView
from raftkv_operator.scaling import join
from raftkv_operator.scene import Change, Operation, Scene, acting, waiting

REPLACE_MEMBER = "ReplaceMember"
_HOUR_SECONDS = 3600.0


def heal(scene: Scene) -> Change | None:
    """The next step toward a full set of voters with data."""
    return _finish_replacement(scene) or _replace_lost_volume(scene) or _give_up_machine(scene)


# ---- volume lost ----------------------------------------------------------------------------


def _finish_replacement(scene: Scene) -> Change | None:
    """A learner in the place of a voter: goes on, or is removed when it was lost as well."""
    voters = {member.name: member for member in scene.voters}
    for learner in scene.learners:
        lost = voters.get(learner.name)
        if lost is None:
            continue
        pod = scene.observed.pod(learner.name)
        if pod is not None and pod.node is not None and pod.node.member_id != learner.id:
            operation = Operation(REPLACE_MEMBER, "RemoveLearner", learner.name)
            return acting(operation, scene.remove(learner))
        operation = Operation(REPLACE_MEMBER, "ReplaceMember", learner.name)
        if pod is not None and scene.has_caught_up(learner):
            replace = ReplaceMember(
                call=scene.call, pod=learner.name, member_id=lost.id, by=learner.id
            )
            return acting(operation, replace)
        ahead = (f"replace {lost.id} by {learner.id}",)
        return waiting(operation, f"waiting for {learner.name} to catch up", ahead=ahead)
    return None


def _replace_lost_volume(scene: Scene) -> Change | None:
    for voter in scene.voters:
        pod = scene.observed.pod(voter.name)
        if pod is None or pod.is_deleting or pod.node is None or pod.node.member_id == voter.id:
            continue
        if pod.node.cluster_id is None and pod.node.state != UNINITIALISED:
            continue  # it does not know yet what its volume holds
        if scene.is_healthy(voter):
            continue  # it lives elsewhere: the pod's answer is about to change
        ahead = (f"replace {voter.id} by {pod.node.member_id}",)
        if not scene.can_lose(voter):
            operation = Operation(REPLACE_MEMBER, "AddLearner", voter.name)
            reason = f"the volume of {voter.name} is lost, and too few other voters answer"
            return waiting(operation, reason, ahead=ahead)
        return join(scene, pod, REPLACE_MEMBER, ahead=ahead)
    return None


# ---- machine lost ---------------------------------------------------------------------------


def _give_up_machine(scene: Scene) -> Change | None:
    for voter in scene.voters:
        pod = scene.observed.pod(voter.name)
        if scene.is_healthy(voter) or not _others_are_well(scene, voter):
            continue
        record = _record_of(scene, voter)
        if record is not None:
            return _delete_what_was_recorded(scene, voter, record)
        if pod is not None and _is_lost(scene, pod):
            return _record(scene, voter, pod)
    return None


def _others_are_well(scene: Scene, lost: NodeMember) -> bool:
    return all(scene.is_healthy(member) for member in scene.voters if member.id != lost.id)


def _is_lost(scene: Scene, pod: PodView) -> bool:
    """Without its machine for as long as the user bears, by the API server, and without an answer.

    An answer of its node says otherwise, whatever the API server says.
    """
    after = scene.cluster.spec.node_failure.replace_after
    return after is not None and pod.node is None and pod.lost_seconds >= duration_seconds(after)


def _record_of(scene: Scene, voter: NodeMember) -> ReplacementRecord | None:
    for record in scene.cluster.status.replacements:
        if (record.pod, record.member_id) == (voter.name, voter.id):
            return record
    return None


def _record(scene: Scene, voter: NodeMember, pod: PodView) -> Change:
    """Rule 8: what will be deleted is written down before anything is."""
    recent = recent_replacements(scene.cluster.status.replacements, scene.observed.now_seconds)
    operation = Operation(REPLACE_MEMBER, "Record", voter.name)
    limit = scene.cluster.spec.node_failure.max_per_hour
    if len(recent) >= limit:
        reason = f"{voter.name} is lost, but {limit} a hour is the limit of nodeFailure.maxPerHour"
        return waiting(operation, reason)
    claim = scene.observed.claims.get(names.claim(voter.name))
    record = ReplacementRecord(
        pod=voter.name,
        member_id=voter.id,
        pod_uid=pod.uid,
        claim_uid=None if claim is None else claim["metadata"]["uid"],
        at=datetime.fromtimestamp(scene.observed.now_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    ahead = (f"delete claim and pod of {voter.name}", f"add {voter.name} as a learner")
    return acting(operation, RecordReplacement((*recent, record)), ahead=ahead)


def _delete_what_was_recorded(
    scene: Scene, voter: NodeMember, record: ReplacementRecord
) -> Change | None:
    """The claim first, then the pod: the other order brings the old disk back."""
    pod = scene.observed.pod(voter.name)
    claim = scene.observed.claims.get(names.claim(voter.name))
    actions: list[Action] = []
    if claim is not None and claim["metadata"]["uid"] == record.claim_uid:
        if not is_deleting(claim):
            if pod is None or not _is_lost(scene, pod):
                # It came back in time. The record stays for an hour, but is no leave to delete
                # the claim of a pod that is restarted meanwhile.
                return None
            why = f"{voter.name} is lost with its machine"
            name = claim["metadata"]["name"]
            actions.append(DeleteClaim(name=name, uid=claim["metadata"]["uid"], why=why))
        if pod is not None and pod.uid == record.pod_uid:
            actions.append(DiscardPod(name=pod.name, uid=pod.uid))
    operation = Operation(REPLACE_MEMBER, "DiscardPod", voter.name)
    ahead = (f"add {voter.name} as a learner", f"replace {voter.id}")
    if actions:
        return acting(operation, *actions, ahead=ahead)
    trouble = "" if pod is None or pod.trouble is None else f": {pod.trouble}"
    return waiting(operation, f"waiting for {voter.name} on another machine{trouble}", ahead=ahead)


def recent_replacements(
    records: tuple[ReplacementRecord, ...], now_seconds: float
) -> tuple[ReplacementRecord, ...]:
    """Those of the last hour, which count for `maxPerHour`."""
    return tuple(
        record
        for record in records
        if now_seconds - datetime.fromisoformat(record.at).timestamp() < _HOUR_SECONDS
    )
