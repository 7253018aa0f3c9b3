"""When a pod counts as lost with its machine: by what its kubelet no longer does."""

from datetime import UTC, datetime
from typing import Any

import pytest

from raftkv_operator.objects import JsonObject
from raftkv_operator.pod_status import is_ready, lost_seconds, trouble

NOW = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
TEN_MINUTES_AGO = "2026-11-21T09:50:00Z"
NINE_MINUTES_AGO = "2026-11-21T09:51:00Z"
SOON = "2026-11-21T10:00:30Z"
RUNNING: JsonObject = {"state": {"running": {}}, "started": True}
AFFINITY = "0/3 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."
# The scheduler does not say whether its machine is the cordoned one, or gone.
CORDONED = (
    "0/3 nodes are available: 1 node(s) were unschedulable, "
    "2 node(s) didn't match PersistentVolume's node affinity."
)
AFFINITY_BEFORE = "0/3 nodes are available: 3 node(s) had volume node affinity conflict."


def pod(
    *containers: JsonObject,
    ready: str | None = "False",
    since: str | None = TEN_MINUTES_AGO,
    scheduled: JsonObject | None = None,
    deleted: str | None = None,
) -> JsonObject:
    conditions: list[JsonObject] = []
    if ready is not None:
        conditions.append({"type": "Ready", "status": ready, "lastTransitionTime": since})
    if scheduled is not None:
        conditions.append({"type": "PodScheduled", "lastTransitionTime": since, **scheduled})
    metadata: dict[str, Any] = {"name": "demo-2", "uid": "u"}
    if deleted is not None:
        metadata["deletionTimestamp"] = deleted
    return {
        "metadata": metadata,
        "status": {"conditions": conditions, "containerStatuses": list(containers)},
    }


UNSCHEDULED = {"status": "False", "reason": "Unschedulable"}


@pytest.mark.parametrize(
    ("seen", "seconds"),
    [
        (pod(RUNNING, ready="True"), 0.0),
        (pod(RUNNING), 600.0),  # its kubelet is silent: Kubernetes set it to unready
        (pod(RUNNING, since=None), 0.0),
        (pod(RUNNING, since=SOON), 0.0),  # the API server's clock is ahead
        (pod({"state": {"waiting": {"reason": "CrashLoopBackOff"}}}), 0.0),
        (pod({"state": {"terminated": {"exitCode": 3}}}), 0.0),
        (pod({"state": {"running": {}}, "started": False}), 600.0),
        (pod({"state": {"running": {}}, "started": False}, since=NINE_MINUTES_AGO), 0.0),
        (pod(RUNNING, deleted=SOON), 0.0),  # it is within its grace period: a restart
        (pod(RUNNING, deleted=NINE_MINUTES_AGO), 600.0),
        (pod({"state": {"waiting": {"reason": "x"}}}, deleted=NINE_MINUTES_AGO), 600.0),
        (pod(ready=None, scheduled={**UNSCHEDULED, "message": AFFINITY}), 600.0),
        (pod(ready=None, scheduled={**UNSCHEDULED, "message": CORDONED}), 600.0),
        (pod(ready=None, scheduled={**UNSCHEDULED, "message": AFFINITY_BEFORE}), 600.0),
        (pod(ready=None, scheduled={**UNSCHEDULED, "message": "3 Insufficient cpu."}), 0.0),
        (pod(ready=None, scheduled={"status": "True"}), 0.0),
        ({"metadata": {"name": "demo-2"}}, 0.0),
    ],
)
def test_rule_08_lost_with_its_machine_by_what_kubernetes_says(
    seen: JsonObject, seconds: float
) -> None:
    assert lost_seconds(seen, NOW) == seconds


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (pod(RUNNING), None),
        (
            pod({"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}}),
            "CrashLoopBackOff",
        ),
        (
            pod({"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}),
            "ErrImagePull: no such image",
        ),
        (pod({"state": {"terminated": {"exitCode": 3}}}), "exited with code 3"),
        (
            pod(ready=None, scheduled={**UNSCHEDULED, "message": "no room"}),
            "Unschedulable: no room",
        ),
    ],
)
def test_trouble_is_told_in_the_words_of_kubernetes(seen: JsonObject, reason: str | None) -> None:
    assert trouble(seen) == reason
    assert not is_ready(seen)
