"""A formed cluster in one pass, as every planned change looks at it, and what a change answers.

Made and read by the planner's parts: `hibernation`, `healing`, `rolling`, `scaling`, `storage`.
Pure. Nothing here is remembered between passes: where a change stands is read from the pods, the
claims and the configuration that the leader tells.
"""

from msgspec import Struct

from raftkv_operator import names
from raftkv_operator.actions import Action, AddLearner, Call, RemoveMember, SetDrain, TransferLeader
from raftkv_operator.api import Cluster
from raftkv_operator.formation import is_quorum
from raftkv_operator.observed import RUNNING, NodeCluster, NodeMember, Observed, PodView

POLL_SECONDS = 1.0
# Entries behind the leader with which a member counts as caught up.
CAUGHT_UP_LAG_ENTRIES = 1000
# Between a change of the EndpointSlices and the moment when every machine's proxy has heard of it.
ENDPOINTS_SECONDS = 3.0


class Problem(Struct, frozen=True):
    """Something the user must know: becomes the condition Degraded."""

    reason: str
    message: str


class Wait(Struct, frozen=True):
    """Look again after this time even if nothing wakes the operator."""

    seconds: float
    reason: str


class Operation(Struct, frozen=True):
    """A change of several steps, and where it stands."""

    type: str
    step: str
    target: str | None = None  # a pod


class Change(Struct, frozen=True, kw_only=True):
    """What the change under way does in this pass, and what it waits for."""

    operation: Operation | None = None
    actions: tuple[Action, ...] = ()
    ahead: tuple[str, ...] = ()  # what comes after, for people
    wait: Wait | None = None
    problem: Problem | None = None


class Scene(Struct, frozen=True, kw_only=True):
    """A cluster with a leader that a majority of its voters follows."""

    cluster: Cluster
    observed: Observed
    view: NodeCluster  # as that leader tells
    leader_ip: str

    @property
    def cluster_id(self) -> str:
        """Of the recorded cluster."""
        assert self.view.cluster_id is not None
        return self.view.cluster_id

    @property
    def call(self) -> Call:
        """For a change of the configuration that was seen."""
        return Call(
            ip=self.leader_ip, cluster_id=self.cluster_id, config_index=self.view.config_index
        )

    @property
    def voters(self) -> list[NodeMember]:
        """Those who vote now, by ordinal."""
        return [member for member in self._by_ordinal() if member.id in self.view.voters]

    @property
    def learners(self) -> list[NodeMember]:
        """Members without a vote, by ordinal."""
        voting = {*self.view.voters, *self.view.voters_outgoing}
        return [member for member in self._by_ordinal() if member.id not in voting]

    def _by_ordinal(self) -> list[NodeMember]:
        def place(member: NodeMember) -> tuple[int, str]:
            ordinal = names.ordinal_of(self.cluster.name, member.name)
            return (-1 if ordinal is None else ordinal, member.id)

        return sorted(self.view.members, key=place)

    def pod_of(self, member: NodeMember) -> PodView | None:
        """The pod in which this very member lives, if its node says so."""
        pod = self.observed.pod(member.name)
        is_it = pod is not None and pod.node is not None and pod.node.member_id == member.id
        return pod if is_it else None

    def is_healthy(self, member: NodeMember) -> bool:
        """Whether the leader hears from it."""
        return self.view.is_healthy(member)

    def has_caught_up(self, member: NodeMember) -> bool:
        """Whether the leader hears from it and it lacks little."""
        lag = 0 if member.id == self.view.leader else member.lag_entries
        return self.is_healthy(member) and lag is not None and lag <= CAUGHT_UP_LAG_ENTRIES

    def serves(self, member: NodeMember) -> bool:
        """Whether it carries its share: heard of, caught up, clients routed to it for a while."""
        pod = self.pod_of(member)
        return (
            pod is not None
            and pod.node is not None
            and pod.is_ready
            and not pod.is_deleting
            and pod.node.state == RUNNING
            and pod.is_routed
            and pod.routing_seconds >= ENDPOINTS_SECONDS
            and self.has_caught_up(member)
        )

    def can_lose(self, leaving: NodeMember) -> bool:
        """Whether the voters that the leader hears from are a quorum of those that are left."""
        left = [member for member in self.voters if member.id != leaving.id]
        healthy = [member.id for member in left if self.is_healthy(member)]
        return is_quorum(healthy, tuple(member.id for member in left))

    # ---- actions that several changes share -------------------------------------------------

    def add_learner(self, pod: PodView) -> AddLearner:
        """Make the node in ``pod`` a learner, under its old id if its volume was kept (rule 7)."""
        assert pod.node is not None
        member_id = pod.node.member_id
        return AddLearner(
            call=self.call,
            pod=pod.name,
            member_id=member_id,
            rejoins=member_id in self.view.removed and pod.node.cluster_id == self.cluster_id,
        )

    def remove(self, member: NodeMember) -> RemoveMember:
        """Take ``member`` out."""
        return RemoveMember(call=self.call, pod=member.name, member_id=member.id)

    def drain(self, pod: PodView, *, is_draining: bool = True) -> SetDrain:
        """Take the node in ``pod`` out of service, or put it back."""
        assert pod.node is not None
        assert pod.ip is not None
        return SetDrain(
            ip=pod.ip,
            cluster_id=self.cluster_id,
            pod=pod.name,
            member_id=pod.node.member_id,
            is_draining=is_draining,
        )

    def hand_over(self, leader: NodeMember) -> TransferLeader | None:
        """Leadership to the voter that will stay longest; None when none can take it."""
        for member in self.voters:  # the lowest ordinal leaves last
            if member.id != leader.id and self.serves(member):
                return TransferLeader(
                    ip=self.leader_ip,
                    cluster_id=self.cluster_id,
                    pod=member.name,
                    member_id=member.id,
                )
        return None


def confirmed_view(observed: Observed, cluster_id: str) -> NodeCluster | None:
    """What the leader tells, if a majority of its voters said in this pass that they follow it.

    A leader that was cut off may believe for a moment that it still leads.
    """
    view = observed.leader_view(cluster_id)
    if view is None:
        return None
    following = [
        pod.node.member_id
        for pod in observed.pods
        if pod.node is not None
        and pod.node.cluster_id == cluster_id
        and (pod.node.leader, pod.node.term) == (view.leader, view.term)
    ]
    halves = (view.voters, view.voters_outgoing)
    return view if all(is_quorum(following, half) for half in halves if half) else None


def make_scene(cluster: Cluster, observed: Observed) -> Scene | None:
    """The scene of a formed cluster; None while no leader is confirmed."""
    record = cluster.status.bootstrap
    view = None if record is None else confirmed_view(observed, record.cluster_id)
    if view is None:
        return None
    for pod in observed.pods:
        if pod.node is not None and pod.node.member_id == view.leader and pod.ip is not None:
            return Scene(cluster=cluster, observed=observed, view=view, leader_ip=pod.ip)
    return None


def waiting(operation: Operation, reason: str, *, ahead: tuple[str, ...] = ()) -> Change:
    """A change that does nothing in this pass."""
    return Change(operation=operation, ahead=ahead, wait=Wait(POLL_SECONDS, reason))


def acting(operation: Operation, *actions: Action, ahead: tuple[str, ...] = ()) -> Change:
    """A change that does something in this pass."""
    return Change(operation=operation, actions=actions, ahead=ahead)


def why_not_running(pod: PodView | None) -> str:
    """What a pod lacks, for people."""
    if pod is None:
        return "no pod yet"
    if pod.is_deleting:
        return "terminating"
    if pod.node is None:
        return pod.trouble or "does not answer"
    if not pod.is_ready:
        return f"not ready ({pod.node.state})"
    if not pod.is_routed:
        return "not in the EndpointSlices yet"
    if pod.routing_seconds < ENDPOINTS_SECONDS:
        return "just came into the EndpointSlices"
    return "not caught up"
