"""The conditions, each judged by a function of its own from what one pass saw and could not do.

Called by `raftkv_operator.status`. Pure: the time of the last transition is added there.
"""

from msgspec import Struct

from raftkv_operator.actions import describe
from raftkv_operator.api import Cluster, ConditionStatus, ConditionType
from raftkv_operator.formation import (
    Adoptable,
    Foreign,
    Formation,
    Formed,
    Fresh,
    TargetLost,
    Unconfirmed,
    Waiting,
    is_quorum,
)
from raftkv_operator.healing import REPLACE_MEMBER
from raftkv_operator.membership import Membership
from raftkv_operator.observed import Observed
from raftkv_operator.plan import Plan
from raftkv_operator.scene import Problem


class Judgement(Struct, frozen=True):
    """A condition without its times."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str


def judge_all(
    cluster: Cluster,
    observed: Observed,
    plan: Plan,
    problems: tuple[Problem, ...],
    membership: Membership,
) -> list[Judgement]:
    """All conditions, in the order in which they are reported.

    ``problems`` are the plan's and those that its execution met.
    """
    return [
        available(cluster, observed, plan.formation, problems, membership),
        progressing(cluster, plan),
        degraded(cluster, plan, problems, membership),
        quorum_at_risk(cluster, plan.formation, membership),
        storage_resize(plan, problems),
        even_voters(cluster),
        paused(cluster),
    ]


def available(
    cluster: Cluster,
    observed: Observed,
    formation: Formation,
    problems: tuple[Problem, ...],
    membership: Membership,
) -> Judgement:
    """Whether clients can read and write: there is a leader of the recorded cluster."""
    kind = ConditionType.AVAILABLE
    match formation:
        case Formed():
            if membership.leader is not None:
                return _true(kind, "Serving", "a leader is elected: reads and writes are served")
            return _leaderless(cluster, observed, formation)
        case Foreign(message=message):
            return _false(kind, "ForeignData", message)
        case TargetLost(message=message):
            return _false(kind, "BootstrapTargetLost", message)
        case Waiting(reason=reason, message=message):
            conflict = next((item for item in problems if item.reason == "NameConflict"), None)
            if conflict is not None:
                return _false(kind, conflict.reason, conflict.message)
            return _false(kind, reason, message)
        case Fresh() | Adoptable() | Unconfirmed():
            return _false(kind, "Bootstrapping", "the first members form the cluster")


def _leaderless(cluster: Cluster, observed: Observed, formed: Formed) -> Judgement:
    """No leader: an election that will succeed, or a quorum that is gone or asleep."""
    record = formed.record
    if cluster.spec.replicas == 0 and cluster.status.hibernated:
        text = "spec.replicas is 0: the pods are stopped and the data is kept"
        return _false(ConditionType.AVAILABLE, "Hibernated", text)
    if cluster.status.hibernated:
        return _false(ConditionType.AVAILABLE, "Waking", "the recorded members are started")
    present = [
        pod.node.member_id
        for pod in observed.pods
        if pod.node is not None and pod.node.cluster_id == record.cluster_id
    ]
    # The voters as some node knows them, else as the last leader did, else those of the record.
    views = [pod.config for pod in observed.pods if pod.config is not None]
    views = [view for view in views if view.cluster_id == record.cluster_id]
    newest = max(views, key=lambda view: view.config_index, default=None)
    last_known = tuple(member.id for member in cluster.status.members if member.voter)
    recorded = tuple(member.member_id for member in record.members)
    voters = newest.voters if newest else last_known or recorded
    if is_quorum(present, voters):
        return _false(ConditionType.AVAILABLE, "Electing", "the voters are electing a leader")
    by_id = {member.member_id: member.pod for member in record.members}
    by_id |= {member.id: member.name for member in cluster.status.members}
    missing = sorted(by_id.get(voter, voter) for voter in voters if voter not in present)
    return _false(
        ConditionType.AVAILABLE,
        "QuorumLost",
        f"{len(voters) - len(missing)} of {len(voters)} voters of {cluster.name} answer; "
        f"needed: {len(voters) // 2 + 1}; missing: {', '.join(missing)}",
    )


def progressing(cluster: Cluster, plan: Plan) -> Judgement:
    """Whether the operator is changing something or waits for a change that it began."""
    kind = ConditionType.PROGRESSING
    if cluster.spec.paused:
        return _false(kind, "Paused", "spec.paused is true: nothing is changed")
    if plan.operation is not None:
        target = f" {plan.operation.target}" if plan.operation.target else ""
        text = f"{plan.operation.step}{target}"
        if plan.wait is not None:
            text = f"{text}: {plan.wait.reason}"
        return _true(kind, plan.operation.type, text)
    if plan.wait is not None:
        return _true(kind, "Waiting", plan.wait.reason)
    if plan.actions:
        # What they change may ask for more: a new template is rolled out once it is there.
        return _true(kind, "Applying", "; ".join(describe(action) for action in plan.actions))
    return _false(kind, "Settled", "everything is as the spec says")


def degraded(
    cluster: Cluster, plan: Plan, problems: tuple[Problem, ...], membership: Membership
) -> Judgement:
    """Whether the user should look: the first problem gives the reason, all give the message.

    That a pod is restarted or a member is added or removed on request is no problem.
    """
    kind = ConditionType.DEGRADED
    operation = plan.operation
    is_asked_for = operation is not None and operation.type != REPLACE_MEMBER
    expected = operation.target if operation is not None and is_asked_for else None
    unhealthy = [
        member.name
        for member in membership.members
        if not member.healthy and member.name != expected
    ]
    found = list(problems)
    is_asleep = bool(cluster.status.hibernated)  # or waking
    if unhealthy and not is_asleep:
        who = "the leader" if membership.leader is not None else "the operator"
        text = f"{who} does not hear from {', '.join(unhealthy)}"
        found.append(Problem("MembersUnhealthy", text))
    if found:
        return _true(kind, found[0].reason, "; ".join(item.message for item in found))
    return _false(kind, "Healthy", "no problem is known")


def quorum_at_risk(cluster: Cluster, formation: Formation, membership: Membership) -> Judgement:
    """Whether one more failure would stop a cluster that was built to bear one."""
    kind = ConditionType.QUORUM_AT_RISK
    if not isinstance(formation, Formed):
        return _false(kind, "NotFormed", "there is no cluster yet")
    if cluster.status.hibernated:
        return _false(kind, "Hibernated", "the voters are asleep, or waking")
    if membership.fault_tolerance is None:
        return _true(kind, "NoLeader", "no leader reports the health of the voters")
    if membership.voters <= 2:
        return _false(kind, "NotRedundant", "one or two voters tolerate no failure by design")
    if membership.fault_tolerance == 0:
        return _true(kind, "NoSpareVoter", "the loss of one more voter would stop the cluster")
    text = f"{membership.fault_tolerance} more may fail"
    return _false(kind, "SpareVoters", text)


def storage_resize(plan: Plan, problems: tuple[Problem, ...]) -> Judgement:
    """Whether the claims have the size that the spec asks for."""
    kind = ConditionType.STORAGE_RESIZE
    for item in problems:
        if item.reason == "StorageResize":
            return _false(kind, "Refused", item.message)
    if plan.is_growing:
        return _false(kind, "Growing", "the claims are being grown to the size of the spec")
    return _true(kind, "AsSpecified", "the claims have the size of the spec")


def even_voters(cluster: Cluster) -> Judgement:
    """A warning: an even number of voters tolerates no more than one less."""
    kind = ConditionType.EVEN_VOTERS
    replicas = cluster.spec.replicas
    if replicas > 0 and replicas % 2 == 0:
        text = f"{replicas} voters tolerate no more failures than {replicas - 1}"
        return _true(kind, "EvenReplicas", text)
    return _false(kind, "OddReplicas", "an odd number of voters")


def paused(cluster: Cluster) -> Judgement:
    """Whether the user asked the operator to keep still."""
    if cluster.spec.paused:
        return _true(ConditionType.PAUSED, "Requested", "spec.paused is true")
    return _false(ConditionType.PAUSED, "NotRequested", "spec.paused is false")


def _true(kind: ConditionType, reason: str, message: str) -> Judgement:
    return Judgement(kind, ConditionStatus.TRUE, reason, message)


def _false(kind: ConditionType, reason: str, message: str) -> Judgement:
    return Judgement(kind, ConditionStatus.FALSE, reason, message)
