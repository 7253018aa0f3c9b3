"""Which change of a formed cluster is next: one at a time, and what was begun is finished first.

Called by the planner. Pure. The order:

1. Hibernation, and waking: everything else waits for a quorum.
2. Without a leader: only pods that do not run and carry an outdated template are replaced (rule 5).
3. A replacement that is under way (joint), lost volumes, lost machines.
4. Learners on their way, then down, then up, to `spec.replicas`.
5. A rolling restart.
6. Claims: growth, owners, leftovers. These stand beside a change and hold nothing back.
"""

from msgspec import structs

from raftkv_operator.actions import Action, SetDrain
from raftkv_operator.api import Cluster
from raftkv_operator.healing import REPLACE_MEMBER, heal
from raftkv_operator.hibernation import hibernate, wake
from raftkv_operator.observed import Observed
from raftkv_operator.rolling import ROLLING_RESTART, cure, roll
from raftkv_operator.scaling import SCALE_DOWN, newcomers, scale_down, scale_up
from raftkv_operator.scene import Change, Operation, Scene, make_scene, waiting
from raftkv_operator.storage import growth, leftover, new_template, ownership


def next_change(cluster: Cluster, observed: Observed) -> Change:
    """What this pass does for a cluster that is formed."""
    scene = make_scene(cluster, observed)
    cures = cure(cluster, observed, scene)
    beside = _beside(cluster, observed, scene)
    if cluster.spec.replicas == 0:
        change = hibernate(cluster, observed, scene)
        return structs.replace(change, actions=(*change.actions, *beside))
    if scene is None:
        change = wake(cluster, scene) or Change()
        return structs.replace(change, actions=(*cures, *change.actions, *beside))
    change = _membership(scene) or roll(scene) or Change()
    if cures and not change.actions:
        operation = change.operation or Operation(ROLLING_RESTART, "ReplacePod", cures[0].name)
        change = structs.replace(change, operation=operation)
    actions: tuple[Action, ...] = (*_put_back(scene, change), *cures, *change.actions, *beside)
    template = new_template(cluster, observed)
    if template is not None and change.operation is None and not actions:
        actions = (template,)
    return structs.replace(change, actions=actions)


def _membership(scene: Scene) -> Change | None:
    if scene.view.voters_outgoing:
        operation = Operation(REPLACE_MEMBER, "LeaveJoint")
        return waiting(operation, "waiting for the end of a replacement")
    healing = heal(scene)
    if healing is not None:
        return healing
    if newcomers(scene):
        return scale_up(scene)
    return scale_down(scene) or scale_up(scene)


def _put_back(scene: Scene, change: Change) -> tuple[SetDrain, ...]:
    """Undo the drain of members that are to stay: the spec changed meanwhile (rule 19).

    A learner may be one that was drained, removed, and is wanted again in the same pod.
    """
    operation = change.operation
    is_draining = operation is not None and operation.type in (SCALE_DOWN, ROLLING_RESTART)
    target = operation.target if operation is not None and is_draining else None
    return tuple(
        scene.drain(pod, is_draining=False)
        for member in (*scene.voters, *scene.learners)
        if (pod := scene.pod_of(member)) is not None
        and pod.is_draining
        and not pod.is_deleting
        and pod.name != target
    )


def _beside(cluster: Cluster, observed: Observed, scene: Scene | None) -> tuple[Action, ...]:
    """What claims need; a refusal of growth must not hold back anything, so it comes last."""
    if observed.stateful_set(cluster.name) is None:
        return ()
    spare = None if scene is None else leftover(scene)
    claims = () if spare is None else (spare,)
    return (*ownership(cluster, observed), *claims, *growth(cluster, observed))
