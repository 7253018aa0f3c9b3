"""The planner: what to do next, from what is wanted and what was seen.

`plan` is pure: no I/O, no clock, no randomness, nothing remembered between passes. Where a change
stands is derived from what is observed, so an operator that dies anywhere goes on from there.

Order within a pass: nothing at all while paused, deleting or in conflict over a name; then objects
in their order; then at most one step of forming the cluster, or of changing a formed one
(`raftkv_operator.changes`). No change is begun in a pass that has to repair the StatefulSet.
"""

from msgspec import Struct

from raftkv_operator import names
from raftkv_operator.actions import (
    Action,
    Apply,
    Bootstrap,
    Delete,
    RecordBootstrap,
    ReplacePod,
    describe,
)
from raftkv_operator.api import BootstrapRecord, Cluster
from raftkv_operator.changes import next_change
from raftkv_operator.drift import has_drifted
from raftkv_operator.formation import (
    Adoptable,
    Foreign,
    Formation,
    Formed,
    Fresh,
    TargetLost,
    Unconfirmed,
    Waiting,
    assess_formation,
    foreign_pods,
)
from raftkv_operator.objects import (
    JsonObject,
    ObjectKey,
    controller_of,
    is_controlled_by,
    is_deleting,
    key_of,
)
from raftkv_operator.observed import Observed
from raftkv_operator.resources import SWITCHED_KINDS, Wanted, desired_objects
from raftkv_operator.resources.stateful_set import live_template_hash, template_hash
from raftkv_operator.scaling import pods_wanted
from raftkv_operator.scene import Change, Operation, Problem, Wait, confirmed_view
from raftkv_operator.storage import is_growing

FORMING_WAIT_SECONDS = 1.0
UNHEALTHY_WAIT_SECONDS = 3.0

_SWITCHED_KINDS = frozenset(kind.name for kind in SWITCHED_KINDS)


class Plan(Struct, frozen=True, kw_only=True):
    """What one pass does, and what it cannot do."""

    formation: Formation
    actions: tuple[Action, ...] = ()
    problems: tuple[Problem, ...] = ()
    wait: Wait | None = None  # None: nothing is expected to change by itself
    operation: Operation | None = None  # the change under way
    ahead: tuple[str, ...] = ()  # what it does after this pass
    is_growing: bool = False  # the claims are smaller than the spec asks for


def plan(
    cluster: Cluster, observed: Observed, *, operator_namespace: str | None, new_cluster_id: str
) -> Plan:
    """Decide the actions of one pass.

    ``new_cluster_id`` is used only when a new cluster is recorded in this pass.
    """
    formation = assess_formation(cluster, observed)
    if cluster.is_deleting or cluster.spec.paused:
        return Plan(formation=formation, problems=_problems(cluster, observed, formation))
    desired = _desired(cluster, observed, operator_namespace)
    blocked = _name_conflict(cluster, observed, desired, formation)
    if blocked is not None:
        return blocked
    # The client Service's name is claimed from the start, but it is made only once the initial
    # voters formed (rule 25).
    is_serving = isinstance(formation, Formed)
    due = [item for item in desired if is_serving or key_of(item) != _client_service_key(cluster)]
    repairs = _repairs(observed, due)
    change = next_change(cluster, observed) if is_serving else Change()
    is_held = any(item.item["kind"] == "StatefulSet" for item in repairs)
    actions: list[Action] = [
        *repairs,
        *_removals(cluster, observed, desired),
        *_pod_replacements(cluster, observed),
        *_forming_step(observed, formation, new_cluster_id),
        *(() if is_held else change.actions),
    ]
    problems = _problems(cluster, observed, formation)
    return Plan(
        formation=formation,
        actions=tuple(actions),
        problems=problems if change.problem is None else (*problems, change.problem),
        wait=change.wait or _wait(cluster, observed, formation),
        operation=change.operation,
        ahead=(*map(describe, change.actions), *change.ahead),
        is_growing=is_serving and is_growing(cluster, observed),
    )


# ---- objects --------------------------------------------------------------------------------


def voters_intended(cluster: Cluster, observed: Observed) -> int:
    """For the disruption budget: the smaller of the voters there are and those wanted (rule 21)."""
    status, wanted = cluster.status, cluster.spec.replicas
    if status.bootstrap is None:
        return wanted
    view = confirmed_view(observed, status.bootstrap.cluster_id)
    if view is not None:
        present = len(view.voters)
    else:
        present = sum(member.voter for member in status.members) or len(status.bootstrap.members)
    return min(present, wanted) if wanted else present


def _client_service_key(cluster: Cluster) -> ObjectKey:
    return ObjectKey("Service", names.client_service(cluster.name))


def _desired(
    cluster: Cluster, observed: Observed, operator_namespace: str | None
) -> list[JsonObject]:
    """All objects that the cluster should have once it serves."""
    live = observed.stateful_set(cluster.name)
    if live is not None and not is_controlled_by(live, cluster.uid):
        live = None
    wanted = Wanted(
        replicas=pods_wanted(cluster, observed),
        voters=voters_intended(cluster, observed),
        operator_namespace=operator_namespace,
        has_pod_monitors=observed.has_pod_monitors,
        live_stateful_set=live,
    )
    return desired_objects(cluster, wanted)


def _name_conflict(
    cluster: Cluster, observed: Observed, desired: list[JsonObject], formation: Formation
) -> Plan | None:
    """A plan that touches nothing when a name is taken (rule 9); None when all are free or ours."""
    leaving: list[str] = []
    taken: list[str] = []
    for key in map(key_of, desired):
        live = observed.objects.get(key)
        if live is None or (is_controlled_by(live, cluster.uid) and not is_deleting(live)):
            continue
        owner = controller_of(live) or {}
        is_predecessor = (
            owner.get("kind") == names.CLUSTER_KIND.name and owner.get("name") == cluster.name
        )
        # An earlier cluster of this name was deleted; Kubernetes collects its objects.
        (leaving if is_deleting(live) or is_predecessor else taken).append(f"{key.kind} {key.name}")
    if taken:
        problem = Problem(
            "NameConflict",
            f"{', '.join(taken)} exists and does not belong to this cluster; nothing was changed. "
            "Delete it, or give the cluster another name",
        )
        return Plan(
            formation=formation,
            problems=(problem,),
            wait=Wait(UNHEALTHY_WAIT_SECONDS, problem.message),
        )
    if leaving:
        reason = f"waiting for the deletion of {', '.join(leaving)}"
        return Plan(formation=formation, wait=Wait(FORMING_WAIT_SECONDS, reason))
    return None


def _repairs(observed: Observed, due: list[JsonObject]) -> list[Apply]:
    """Create what is missing and apply what differs, in order."""
    repairs: list[Apply] = []
    for item in due:
        live = observed.objects.get(key_of(item))
        if live is None or has_drifted(item, live):
            repairs.append(Apply(item, None if live is None else live["metadata"]["uid"]))
    return repairs


def _removals(cluster: Cluster, observed: Observed, desired: list[JsonObject]) -> list[Action]:
    """Delete what a setting switched off."""
    wanted = {key_of(item) for item in desired}
    return [
        Delete(key.kind, key.name, live["metadata"]["uid"])
        for key, live in sorted(observed.objects.items())
        if key.kind in _SWITCHED_KINDS
        and key not in wanted
        and is_controlled_by(live, cluster.uid)
        and not is_deleting(live)
    ]


def _pod_replacements(cluster: Cluster, observed: Observed) -> list[Action]:
    """Before there is a cluster, a corrected spec (a mistyped image) reaches the pods at once."""
    live = observed.stateful_set(cluster.name)
    current = template_hash(cluster)
    if (
        cluster.status.bootstrap is not None
        or live is None
        or live_template_hash(live) != current
        or any(pod.node is not None and pod.node.cluster_id for pod in observed.pods)
    ):
        return []
    return [
        ReplacePod(pod.name, pod.uid)
        for pod in observed.pods
        if pod.template_hash != current and not pod.is_deleting
    ]


# ---- forming the cluster --------------------------------------------------------------------


def _forming_step(
    observed: Observed, formation: Formation, new_cluster_id: str
) -> tuple[Action, ...]:
    """The one step that brings the cluster closer to existing (rules 1 and 2)."""
    match formation:
        case Fresh(members=members):
            return (RecordBootstrap(BootstrapRecord(cluster_id=new_cluster_id, members=members)),)
        case Adoptable(cluster_id=cluster_id, members=members):
            record = BootstrapRecord(cluster_id=cluster_id, members=members, adopted=True)
            return (RecordBootstrap(record),)
        case Unconfirmed(record=record):
            founder = observed.pod(record.members[0].pod)
            assert founder is not None
            assert founder.ip is not None
            return (Bootstrap(record, founder.name, founder.ip),)
        case Waiting() | Foreign() | TargetLost() | Formed():
            return ()


def _wait(cluster: Cluster, observed: Observed, formation: Formation) -> Wait | None:
    """When to look again, and what for. Pods wake the operator; what nodes say does not."""
    match formation:
        case Waiting(reason="Hibernated"):
            return None
        case Waiting(message=message) | Foreign(message=message) | TargetLost(message=message):
            return Wait(FORMING_WAIT_SECONDS, message)
        case Fresh() | Adoptable() | Unconfirmed():
            return Wait(FORMING_WAIT_SECONDS, "waiting for the first members to form the cluster")
        case Formed() if cluster.spec.replicas == 0:
            return None
        case Formed(record=record):
            view = observed.leader_view(record.cluster_id)
            if view is None:
                return Wait(FORMING_WAIT_SECONDS, "waiting for a leader")
            unwell = [
                member.name
                for member in view.members
                if not view.is_healthy(member) or not _is_running(observed, member.name)
            ]
            if unwell:
                return Wait(UNHEALTHY_WAIT_SECONDS, f"waiting for {', '.join(unwell)}")
            return None


def _is_running(observed: Observed, name: str) -> bool:
    pod = observed.pod(name)
    return pod is not None and pod.is_ready and not pod.is_deleting


# ---- problems -------------------------------------------------------------------------------


def _problems(cluster: Cluster, observed: Observed, formation: Formation) -> tuple[Problem, ...]:
    """What the spec asks for or the pods show that this pass cannot act on."""
    problems: list[Problem] = []
    match formation:
        case Foreign(message=message):
            problems.append(Problem("ForeignData", message))
        case TargetLost(message=message):
            problems.append(Problem("BootstrapTargetLost", message))
        case Formed():
            foreign = foreign_pods(cluster, observed)
            if foreign:
                claims = ", ".join(names.claim(pod.name) for pod in foreign)
                text = f"the claims {claims} hold data of another cluster"
                problems.append(Problem("ForeignData", text))
        case _:
            pass
    if cluster.spec.monitoring.pod_monitor and not observed.has_pod_monitors:
        text = "monitoring.podMonitor is set, but this Kubernetes does not know PodMonitors"
        problems.append(Problem("PodMonitorUnknown", text))
    return tuple(problems)
