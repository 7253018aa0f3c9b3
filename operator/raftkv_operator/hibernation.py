"""`replicas: 0` and back: members are recorded, pods stopped, claims kept (rule 3).

Called by `raftkv_operator.changes`. Pure. The members are recorded while a leader tells them;
without one nobody knows which pods waking must start, so nothing is stopped.
"""

from raftkv_operator.actions import RecordHibernation
from raftkv_operator.api import BootstrapMember, Cluster
from raftkv_operator.observed import Observed
from raftkv_operator.scene import Change, Operation, Scene, acting, waiting

HIBERNATE = "Hibernate"
WAKE = "Wake"


def hibernate(cluster: Cluster, observed: Observed, scene: Scene | None) -> Change:
    """The next step toward no pods at all; ``spec.replicas`` is 0."""
    if cluster.status.hibernated:
        left = [pod.name for pod in observed.pods]
        if not left:
            return Change()
        operation = Operation(HIBERNATE, "StopPods")
        return waiting(operation, f"waiting for the end of {', '.join(left)}")
    operation = Operation(HIBERNATE, "RecordMembers")
    if scene is None:
        return waiting(operation, "waiting for a leader, who knows the members to be woken")
    if scene.view.voters_outgoing:
        return waiting(operation, "waiting for the end of a replacement")
    members = tuple(
        BootstrapMember(pod=member.name, member_id=member.id)
        for member in (*scene.voters, *scene.learners)
    )
    return acting(operation, RecordHibernation(members), ahead=("stop all pods",))


def wake(cluster: Cluster, scene: Scene | None) -> Change | None:
    """Exactly the recorded pods start; everything else waits for their quorum."""
    if not cluster.status.hibernated or scene is not None:
        return None
    pods = ", ".join(member.pod for member in cluster.status.hibernated)
    return waiting(Operation(WAKE, "StartPods"), f"waiting for a quorum of {pods}")
