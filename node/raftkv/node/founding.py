"""When a node may found a cluster, and with which configuration (API contract, bootstrap). Pure."""

from raftkv.node.events import Bootstrapped
from raftkv.node.messages import Failure, FailureCode
from raftkv.raft.messages import ConfState, Member
from raftkv.storage.identity import Identity

# The founding entry is 1@1; a member's replication session is the entry that added it.
_FOUNDING_INDEX = 1


def founding_configuration(members: tuple[Member, ...]) -> ConfState:
    """The first configuration of a cluster: all of ``members`` vote."""
    voters = tuple(sorted(member.id for member in members))
    return ConfState(
        voters=voters,
        members=tuple(sorted(members, key=lambda member: member.id)),
        sessions=tuple((voter, _FOUNDING_INDEX) for voter in voters),
    )


def check_founding(
    identity: Identity, cluster_id: str, members: tuple[Member, ...]
) -> Bootstrapped | Failure | None:
    """What to answer to a bootstrap call, or None: found the cluster.

    The same call again is answered as the first one was; anything else changes nothing.
    """
    ids = [member.id for member in members]
    if not cluster_id or not members:
        return Failure(FailureCode.INVALID, "a cluster needs an id and at least one member")
    if len(set(ids)) != len(ids) or 0 in ids:
        return Failure(FailureCode.INVALID, "the member ids are not distinct non-zero ids")
    if len({member.name for member in members}) != len(members):
        return Failure(FailureCode.INVALID, "the member names are not distinct")
    if identity.member_id not in ids:
        detail = f"this node's id {identity.member_id:016x} is not in the list"
        return Failure(FailureCode.INVALID, detail)
    if identity.cluster_id is None:
        return None
    if identity.cluster_id != cluster_id:
        detail = f"this node already belongs to cluster {identity.cluster_id}"
        return Failure(FailureCode.CONFLICT, detail)
    if identity.founding not in (None, founding_configuration(members)):
        detail = "this node founded the cluster with another list of members"
        return Failure(FailureCode.CONFLICT, detail)
    return Bootstrapped(cluster_id, repeated=True)
