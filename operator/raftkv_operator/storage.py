"""Volume claims: growth (rule 10), and what becomes of those that are no longer used (rule 3).

Called by `raftkv_operator.changes`. Pure. A claim is deleted only after the leader's configuration
has no member of its pod's name, and after that pod is gone; never for hibernation.
"""

from collections.abc import Iterator

from raftkv_operator import names
from raftkv_operator.actions import (
    DeleteClaim,
    GrowClaim,
    OrphanStatefulSet,
    OwnClaim,
)
from raftkv_operator.api import Cluster, Retention
from raftkv_operator.drift import quantity
from raftkv_operator.objects import JsonObject, is_deleting
from raftkv_operator.observed import Observed
from raftkv_operator.resources.stateful_set import live_storage_size
from raftkv_operator.scaling import pods_wanted
from raftkv_operator.scene import Scene


def growth(cluster: Cluster, observed: Observed) -> tuple[GrowClaim, ...]:
    """Claims of running members that are smaller than the spec asks for."""
    wanted = quantity(cluster.spec.storage.size)
    used = {names.claim(names.pod(cluster.name, i)) for i in range(pods_wanted(cluster, observed))}
    return tuple(
        GrowClaim(name=name, uid=claim["metadata"]["uid"], size=cluster.spec.storage.size)
        for name, claim in sorted(observed.claims.items())
        if name in used
        and not is_deleting(claim)
        and claim.get("status", {}).get("phase") == "Bound"  # else it cannot be changed
        and wanted is not None
        and (quantity(_size(claim)) or wanted) < wanted
    )


def new_template(cluster: Cluster, observed: Observed) -> OrphanStatefulSet | None:
    """A StatefulSet's claim template cannot be changed: it is made anew around its pods."""
    live = observed.stateful_set(cluster.name)
    wanted = quantity(cluster.spec.storage.size)
    if live is None or is_deleting(live) or wanted is None or not observed.pods:
        return None
    if (quantity(live_storage_size(live)) or wanted) >= wanted or growth(cluster, observed):
        return None
    present = [claim for claim in observed.claims.values() if quantity(_size(claim)) == wanted]
    if len(present) < len(observed.pods):
        return None  # a claim is being made from the old template, or could not grow
    return OrphanStatefulSet(name=live["metadata"]["name"], uid=live["metadata"]["uid"])


def is_growing(cluster: Cluster, observed: Observed) -> bool:
    """Whether anything is smaller than the spec asks for."""
    live = observed.stateful_set(cluster.name)
    wanted = quantity(cluster.spec.storage.size)
    is_old = live is not None and quantity(live_storage_size(live)) != wanted
    return is_old or bool(growth(cluster, observed))


def ownership(cluster: Cluster, observed: Observed) -> Iterator[OwnClaim]:
    """`whenDeleted`: claims that go with the cluster are owned by it, the others are not."""
    ours = {
        "apiVersion": names.CLUSTER_KIND.api_version,
        "kind": names.CLUSTER_KIND.name,
        "name": cluster.name,
        "uid": cluster.uid,
    }
    is_deleted_too = cluster.spec.storage.when_deleted is Retention.DELETE
    for name, claim in sorted(observed.claims.items()):
        owners = [dict(item) for item in claim["metadata"].get("ownerReferences") or ()]
        others = [item for item in owners if item.get("uid") != cluster.uid]
        is_owned = len(others) < len(owners)
        if is_owned != is_deleted_too and not is_deleting(claim):
            wanted = (*others, ours) if is_deleted_too else tuple(others)
            yield OwnClaim(name=name, uid=claim["metadata"]["uid"], owners=wanted)


def leftover(scene: Scene) -> DeleteClaim | None:
    """`whenScaled: Delete`: one claim at a time, of a pod that is no member and is gone."""
    cluster, observed = scene.cluster, scene.observed
    if cluster.spec.storage.when_scaled is not Retention.DELETE:
        return None
    count = pods_wanted(cluster, observed)
    live = observed.stateful_set(cluster.name)
    if scene.learners or scene.view.voters_outgoing or live is None:
        return None
    if len(scene.voters) != cluster.spec.replicas or live["spec"].get("replicas") != count:
        return None
    members = {member.name for member in scene.view.members}
    for name, claim in sorted(observed.claims.items(), reverse=True):
        pod = names.claimant(cluster.name, name)
        assert pod is not None
        ordinal = names.ordinal_of(cluster.name, pod) or 0
        if ordinal < count or pod in members or observed.pod(pod) is not None:
            continue
        if not is_deleting(claim):
            why = "its member was scaled away"
            return DeleteClaim(name=name, uid=claim["metadata"]["uid"], why=why)
    return None


def _size(claim: JsonObject) -> str:
    """What the claim asks for."""
    return str(claim["spec"]["resources"]["requests"]["storage"])
