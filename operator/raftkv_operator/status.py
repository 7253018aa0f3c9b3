"""The status of one pass, and the Events that its difference to the last one tells.

Called by `raftkv_operator.reconcile`. Pure: the time is handed in. A condition keeps its
transition time while its status does not change; an Event is made only from a transition, and its
name derives from what the transition left, so that an operator that dies between posting and
writing posts the same Event again, which does nothing (rule 13).
"""

import hashlib

from msgspec import structs

from raftkv_operator import names
from raftkv_operator.actions import PostEvent
from raftkv_operator.api import (
    BootstrapMember,
    Cluster,
    Condition,
    ConditionStatus,
    ConditionType,
    MemberStatus,
    OperationStatus,
    Status,
)
from raftkv_operator.conditions import Judgement, judge_all
from raftkv_operator.healing import recent_replacements
from raftkv_operator.membership import Membership, assess_membership
from raftkv_operator.observed import Observed
from raftkv_operator.plan import Plan
from raftkv_operator.rolling import ROLLING_RESTART
from raftkv_operator.scaling import SCALE_DOWN
from raftkv_operator.scene import Problem, confirmed_view


def build_status(
    cluster: Cluster, observed: Observed, plan: Plan, failures: tuple[Problem, ...], now: str
) -> Status:
    """The status after a pass.

    ``failures`` are what the execution of the plan met; ``now`` is an RFC 3339 time.
    """
    membership = assess_membership(cluster, observed)
    problems = (*failures, *plan.problems)
    return Status(
        observed_generation=cluster.generation,
        cluster_id=cluster.status.cluster_id,
        bootstrap=cluster.status.bootstrap,
        leader=membership.leader,
        term=membership.term if membership.term is not None else cluster.status.term,
        replicas=len(observed.pods),
        ready_replicas=sum(pod.is_ready and not pod.is_deleting for pod in observed.pods),
        selector=names.selector_text(cluster.name),
        fault_tolerance=_reported_tolerance(cluster, membership),
        members=membership.members,
        hibernated=_hibernated(cluster, observed),
        replacements=recent_replacements(cluster.status.replacements, observed.now_seconds),
        operation=_operation(cluster, plan, now),
        plan=plan.ahead[:_AHEAD_MAX] or ((plan.wait.reason,) if plan.wait is not None else ()),
        blocked_by=_blocked_by(plan, problems),
        conditions=tuple(
            _dated(cluster, judgement, now)
            for judgement in judge_all(cluster, observed, plan, problems, membership)
        ),
    )


_AHEAD_MAX = 10


def _hibernated(cluster: Cluster, observed: Observed) -> tuple[BootstrapMember, ...]:
    """Kept until those who were woken have a leader: then the leader knows the members."""
    record = cluster.status.bootstrap
    if cluster.spec.replicas > 0 and record is not None:
        is_led = confirmed_view(observed, record.cluster_id) is not None
        return () if is_led else cluster.status.hibernated
    return cluster.status.hibernated


def _operation(cluster: Cluster, plan: Plan, now: str) -> OperationStatus | None:
    """The change under way; one of the same kind goes on from pod to pod."""
    current, last = plan.operation, cluster.status.operation
    if current is None:
        return last if cluster.spec.paused else None
    is_same = last is not None and last.type == current.type
    return OperationStatus(
        type=current.type,
        step=current.step,
        target=current.target,
        started_at=last.started_at if last is not None and is_same else now,
    )


def _blocked_by(plan: Plan, problems: tuple[Problem, ...]) -> str | None:
    """The first problem, or what the change under way waits for."""
    if problems:
        return problems[0].message
    is_waiting = plan.operation is not None and plan.wait is not None and not plan.actions
    return plan.wait.reason if is_waiting and plan.wait is not None else None


def invalid_status(last: Status, generation: int, message: str, now: str) -> Status:
    """The last status, marked: the spec cannot be read, so nothing else is known to be wrong."""
    judgement = Judgement(ConditionType.DEGRADED, ConditionStatus.TRUE, "InvalidSpec", message)
    others = tuple(item for item in last.conditions if item.type != ConditionType.DEGRADED)
    condition = _condition(last, judgement, generation, now)
    return structs.replace(last, observed_generation=generation, conditions=(*others, condition))


def events_between(uid: str, last: Status, new: Status) -> list[PostEvent]:
    """What to tell about the way from the ``last`` status to the ``new`` one."""
    events = []
    # Nodes that all stop hand leadership from one to the next: no news of a cluster going to sleep.
    is_led_anew = new.leader is not None and (new.leader, new.term) != (last.leader, last.term)
    if is_led_anew and not new.hibernated:
        text = f"{new.leader} leads in term {new.term}"
        events.append(_event(uid, "Normal", "LeaderElected", text, f"{new.leader}/{new.term}"))
    events += _operation_events(uid, last, new)
    for condition in new.conditions:
        before = last.condition(ConditionType(condition.type))
        if before is not None and (before.status, before.reason) == (
            condition.status,
            condition.reason,
        ):
            continue
        kind = _event_type(condition, before)
        if kind is not None and not _is_expected(condition, last, new):
            left = "new" if before is None else f"{before.reason}/{before.last_transition_time}"
            events.append(_event(uid, kind, condition.reason, condition.message, left))
    return events


def _operation_events(uid: str, last: Status, new: Status) -> list[PostEvent]:
    """Members that came and went, and changes that began, went on to another pod, or ended."""
    events = _member_events(uid, last, new)
    began, ended = new.operation, last.operation
    if began is not None and (ended is None or began.type != ended.type):
        ahead = "; ".join(new.plan)
        text = f"{began.type} begins: {ahead}" if ahead else f"{began.type} begins"
        events.append(_event(uid, "Normal", began.type, text, f"begins/{began.started_at}"))
        if began.step == "Announce" and new.blocked_by is not None:
            transition = f"{began.started_at}"
            events.append(_event(uid, "Warning", "NotFree", new.blocked_by, transition))
    if began is not None and (began.type, began.step) == (ROLLING_RESTART, "RestartPod"):
        text, transition = f"{began.target} restarts", f"{began.target}/{began.started_at}"
        is_news = ended is None or (ended.step, ended.target) != (began.step, began.target)
        events += [_event(uid, "Normal", "PodRestarts", text, transition)] if is_news else []
    if ended is not None and (began is None or began.type != ended.type):
        text = f"{ended.type} is done"
        events.append(_event(uid, "Normal", ended.type, text, f"ends/{ended.started_at}"))
    return events


def _member_events(uid: str, last: Status, new: Status) -> list[PostEvent]:
    """Each step of a change of the membership; not the first members, and nothing unknown."""
    if not last.members or new.leader is None:
        return []
    change = last.operation or new.operation
    # A member may leave and come back under its id: the change makes the difference.
    at = "" if change is None else change.started_at
    before = {member.id: member for member in last.members}
    after = {member.id: member for member in new.members}
    voters = sum(member.voter for member in new.members)
    events: list[PostEvent] = []

    def tell(reason: str, text: str, member: MemberStatus) -> None:
        events.append(_event(uid, "Normal", reason, text, f"{member.id}/{at}"))

    for member in new.members:
        known = before.get(member.id)
        if known is None and not member.voter:
            text = f"{member.name} ({member.id}) joined as a learner; it votes when it caught up"
            tell("MemberAdded", text, member)
        # In the place of another it is told when that one left: amid the change both vote.
        is_heir = any(
            other.voter and other.name == member.name and other.id != member.id
            for other in last.members
        )
        if member.voter and not (known is not None and known.voter) and not is_heir:
            tell("MemberPromoted", f"{member.name} votes; there are {voters} voters", member)
    for member in last.members:
        if member.id in after:
            continue
        heir = next((m for m in new.members if m.voter and m.name == member.name), None)
        if member.voter and heir is not None:
            text = f"{heir.name} votes as {heir.id} in the place of {member.id}"
            tell("MemberReplaced", text, heir)
        else:
            text = f"{member.name} ({member.id}) left; there are {voters} voters"
            tell("MemberRemoved", text, member)
    return events


_PLANNED = frozenset({ROLLING_RESTART, SCALE_DOWN})
# Conditions of which True is bad news, and the turn back to False good news.
_WARNINGS = frozenset(
    {ConditionType.DEGRADED, ConditionType.QUORUM_AT_RISK, ConditionType.EVEN_VOTERS}
)


def _is_expected(condition: Condition, last: Status, new: Status) -> bool:
    """Whether it only says that a pod restarts, or a member leaves, as was asked for and told."""
    if condition.reason not in {"NoSpareVoter", "SpareVoters"}:
        return False
    changes = (new.operation, last.operation)
    return any(item is not None and item.type in _PLANNED for item in changes)


def _event_type(condition: Condition, before: Condition | None) -> str | None:
    """How a transition is announced; None: it is not worth an Event."""
    is_true = condition.status is ConditionStatus.TRUE
    was_true = before is not None and before.status is ConditionStatus.TRUE
    kind = ConditionType(condition.type)
    if kind is ConditionType.AVAILABLE:
        if is_true:
            return None if was_true else "Normal"
        if condition.reason == "Hibernated":
            return "Normal"  # asked for
        has_failed = condition.reason in {"QuorumLost", "ForeignData", "BootstrapTargetLost"}
        return "Warning" if was_true or has_failed else "Normal"
    if kind in _WARNINGS:
        return "Warning" if is_true else ("Normal" if was_true else None)
    if kind is ConditionType.PAUSED:
        return "Normal" if is_true or was_true else None
    return None


def _event(uid: str, kind: str, reason: str, message: str, transition: str) -> PostEvent:
    digest = hashlib.sha256(f"{uid}/{kind}/{reason}/{transition}".encode()).hexdigest()[:16]
    return PostEvent(name=digest, type=kind, reason=reason, message=message)


def _reported_tolerance(cluster: Cluster, membership: Membership) -> int | None:
    """Unknown membership tolerates nothing that anyone could promise."""
    if cluster.status.bootstrap is None:
        return None
    return membership.fault_tolerance or 0


def _dated(cluster: Cluster, judgement: Judgement, now: str) -> Condition:
    return _condition(cluster.status, judgement, cluster.generation, now)


def _condition(last: Status, judgement: Judgement, generation: int, now: str) -> Condition:
    """The condition of a judgement; its time moves only when its status does."""
    before = last.condition(judgement.type)
    since = now
    if before is not None and before.status is judgement.status:
        since = before.last_transition_time
    return Condition(
        type=judgement.type.value,
        status=judgement.status,
        reason=judgement.reason,
        message=judgement.message,
        last_transition_time=since,
        observed_generation=generation,
    )
