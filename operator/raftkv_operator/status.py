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
from raftkv_operator.api import Cluster, Condition, ConditionStatus, ConditionType, Status
from raftkv_operator.conditions import Judgement, judge_all
from raftkv_operator.membership import Membership, assess_membership
from raftkv_operator.observed import Observed
from raftkv_operator.plan import Plan, Problem


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
        plan=(plan.wait.reason,) if plan.wait is not None else (),
        blocked_by=problems[0].message if problems else None,
        conditions=tuple(
            _dated(cluster, judgement, now)
            for judgement in judge_all(cluster, observed, plan, problems, membership)
        ),
    )


def invalid_status(last: Status, generation: int, message: str, now: str) -> Status:
    """The last status, marked: the spec cannot be read, so nothing else is known to be wrong."""
    judgement = Judgement(ConditionType.DEGRADED, ConditionStatus.TRUE, "InvalidSpec", message)
    others = tuple(item for item in last.conditions if item.type != ConditionType.DEGRADED)
    condition = _condition(last, judgement, generation, now)
    return structs.replace(last, observed_generation=generation, conditions=(*others, condition))


def events_between(uid: str, last: Status, new: Status) -> list[PostEvent]:
    """What to tell about the way from the ``last`` status to the ``new`` one."""
    events = []
    if new.leader is not None and (new.leader, new.term) != (last.leader, last.term):
        text = f"{new.leader} leads in term {new.term}"
        events.append(_event(uid, "Normal", "LeaderElected", text, f"{new.leader}/{new.term}"))
    for condition in new.conditions:
        before = last.condition(ConditionType(condition.type))
        if before is not None and (before.status, before.reason) == (
            condition.status,
            condition.reason,
        ):
            continue
        kind = _event_type(condition, before)
        if kind is not None:
            left = "new" if before is None else f"{before.reason}/{before.last_transition_time}"
            events.append(_event(uid, kind, condition.reason, condition.message, left))
    return events


# Conditions of which True is bad news, and the turn back to False good news.
_WARNINGS = frozenset(
    {ConditionType.DEGRADED, ConditionType.QUORUM_AT_RISK, ConditionType.EVEN_VOTERS}
)


def _event_type(condition: Condition, before: Condition | None) -> str | None:
    """How a transition is announced; None: it is not worth an Event."""
    is_true = condition.status is ConditionStatus.TRUE
    was_true = before is not None and before.status is ConditionStatus.TRUE
    kind = ConditionType(condition.type)
    if kind is ConditionType.AVAILABLE:
        if is_true:
            return None if was_true else "Normal"
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
