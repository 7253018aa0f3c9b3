"""Who the members are and how they do, as the leader tells it.

Called by the conditions and the status. Pure. Without a leader the membership is unknown, not
empty (rule 6): the members last reported are kept with the role Unknown.
"""

from msgspec import Struct, structs

from raftkv_operator.api import Cluster, MemberRole, MemberStatus
from raftkv_operator.observed import NodeCluster, Observed

_ROLES = {
    "leader": MemberRole.LEADER,
    "follower": MemberRole.FOLLOWER,
    "learner": MemberRole.LEARNER,
}


class Membership(Struct, frozen=True, kw_only=True):
    """The members in one pass."""

    members: tuple[MemberStatus, ...] = ()
    leader: str | None = None  # its pod
    term: int | None = None
    voters: int = 0
    fault_tolerance: int | None = None  # voters that may still be lost; None: no leader tells


def assess_membership(cluster: Cluster, observed: Observed) -> Membership:
    """The membership of the recorded cluster."""
    record = cluster.status.bootstrap
    if record is None:
        return Membership()
    view = observed.leader_view(record.cluster_id)
    if view is None:
        return _last_known(cluster, observed)
    members = tuple(
        MemberStatus(
            name=member.name,
            id=member.id,
            role=_ROLES.get(member.role, MemberRole.UNKNOWN),
            voter=member.voter,
            healthy=view.is_healthy(member),
            lag=lag_bucket(member.lag_entries),
            version=_version(observed, member.name, member.id),
        )
        for member in sorted(view.members, key=lambda item: (len(item.name), item.name))
    )
    leader = next((member.name for member in members if member.id == view.leader), None)
    healthy = {member.id for member in members if member.healthy}
    return Membership(
        members=members,
        leader=leader,
        term=view.term,
        voters=len(view.voters),
        fault_tolerance=_fault_tolerance(view, healthy),
    )


def lag_bucket(lag_entries: int | None) -> int | None:
    """The lag rounded up, so that traffic alone does not change the status (rule 13)."""
    if lag_entries is None:
        return None
    return next((limit for limit in (0, 100, 10_000) if lag_entries <= limit), 1_000_000)


def _fault_tolerance(view: NodeCluster, healthy: set[str]) -> int:
    """How many more voters may be lost; in a joint configuration the worse of both halves."""
    spare = []
    for voters in (view.voters, view.voters_outgoing):
        if voters:
            alive = sum(voter in healthy for voter in voters)
            spare.append(max(0, alive - (len(voters) // 2 + 1)))
    return min(spare, default=0)


def _last_known(cluster: Cluster, observed: Observed) -> Membership:
    """No leader: the members of the last report, or of the record, and who of them answers."""
    record = cluster.status.bootstrap
    assert record is not None
    known = cluster.status.members or tuple(
        MemberStatus(
            name=member.pod,
            id=member.member_id,
            role=MemberRole.UNKNOWN,
            voter=True,
            healthy=False,
        )
        for member in record.members
    )
    answering = {pod.node.member_id for pod in observed.pods if pod.node is not None}
    members = tuple(
        structs.replace(member, role=MemberRole.UNKNOWN, healthy=member.id in answering, lag=None)
        for member in known
    )
    return Membership(members=members, voters=sum(member.voter for member in members))


def _version(observed: Observed, pod_name: str, member_id: str) -> str | None:
    pod = observed.pod(pod_name)
    if pod is None or pod.node is None or pod.node.member_id != member_id:
        return None
    return pod.node.version or None
