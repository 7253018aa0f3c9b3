"""What Kubernetes says of a pod: does it run, why not, and is its machine gone.

Called by `observe`. Pure. A machine cannot be asked: the operator has no right to read nodes, and a
connection that fails proves nothing (rule 8). It is judged by what its kubelet no longer does.
"""

import re
from datetime import datetime

from raftkv_operator.objects import JsonObject, is_deleting

# Kubernetes gives a container so long to start (the startup probe); it may read a large log.
_START_SECONDS = 600.0
# The scheduler's words for: the volume is on a machine that is no longer there.
_BOUND_ELSEWHERE = re.compile(r"volume('s)? node affinity", re.IGNORECASE)


def is_ready(pod: JsonObject) -> bool:
    """Whether its readiness probe succeeds."""
    condition = _condition(pod, "Ready")
    return condition is not None and condition["status"] == "True"


def trouble(pod: JsonObject) -> str | None:
    """Why the pod does not run, in Kubernetes' words; None when it does."""
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting")
        if waiting is not None:
            return _sentence(waiting)
        terminated = container.get("state", {}).get("terminated")
        if terminated is not None:
            return f"exited with code {terminated.get('exitCode')}"
    condition = _condition(pod, "PodScheduled")
    if condition is not None and condition["status"] == "False":
        return _sentence(condition)
    return None


def lost_seconds(pod: JsonObject, now: datetime) -> float:
    """For how long the pod has been without a machine that could run it; 0: it has one.

    That is: unready although no container of it tells a reason, so that nobody looks after it; or
    to be deleted, and still there after its grace period; or unschedulable since its volume is on
    a machine that is gone. A pod that is only restarted, or that reads a large log, is none.
    """
    if is_ready(pod):
        return 0.0
    scheduled = _condition(pod, "PodScheduled")
    if scheduled is not None and scheduled["status"] == "False":
        is_bound = _BOUND_ELSEWHERE.search(str(scheduled.get("message", "")))
        return _seconds_since(scheduled, now) if is_bound else 0.0
    unready = _condition(pod, "Ready")
    seconds = 0.0 if unready is None else _seconds_since(unready, now)
    if is_deleting(pod):
        # The time at which the grace period ends, not the one at which it began.
        ends = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"])
        return seconds if now > ends else 0.0
    if trouble(pod) is not None:
        return 0.0
    is_starting = any(container.get("started") is False for container in _containers(pod))
    return 0.0 if is_starting and seconds < _START_SECONDS else seconds


def _containers(pod: JsonObject) -> list[JsonObject]:
    return pod.get("status", {}).get("containerStatuses") or []


def _condition(pod: JsonObject, kind: str) -> JsonObject | None:
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((dict(item) for item in conditions if item["type"] == kind), None)


def _seconds_since(condition: JsonObject, now: datetime) -> float:
    """Since the condition's last transition; 0 when that is not told."""
    changed = condition.get("lastTransitionTime")
    if not changed:
        return 0.0
    return max(0.0, (now - datetime.fromisoformat(changed)).total_seconds())


def _sentence(state: JsonObject) -> str:
    """Reason and message, without the parts that change from try to try."""
    reason = str(state.get("reason", ""))
    # "CrashLoopBackOff: back-off 5m0s restarting ..." would rewrite the status with each try.
    if reason in {"CrashLoopBackOff", "ImagePullBackOff"} or not state.get("message"):
        return reason
    return f"{reason}: {state['message']}"
