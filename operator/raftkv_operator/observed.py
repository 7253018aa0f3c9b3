"""What one pass saw: Kubernetes objects, pods, and what the nodes said of themselves.

Filled by `raftkv_operator.observe`, read by the planner and the status. Values only.
"""

from collections.abc import Mapping

from msgspec import Struct

from raftkv_operator import names
from raftkv_operator.objects import JsonObject, ObjectKey

UNINITIALISED = "uninitialised"
RUNNING = "running"
DRAINING = "draining"
# What a node calls itself until it has read its volume: it does not know yet who it is.
UNKNOWN_ID = "0" * 16


class NodeStatus(Struct, frozen=True, kw_only=True):
    """A node's answer to ``GET /v1/status``, as far as the operator reads it."""

    name: str
    member_id: str  # 16 hex digits, made together with the volume's content
    cluster_id: str | None  # None: not yet a member of any cluster
    state: str
    role: str
    term: int
    leader: str | None
    leader_name: str | None = None
    version: str = ""
    removed: bool = False  # it was a member, and a committed configuration says that it left


class NodeMember(Struct, frozen=True, kw_only=True):
    """One member in a node's answer to ``GET /v1/cluster``."""

    id: str
    name: str
    role: str
    voter: bool
    healthy: bool | None = None  # None: that node cannot tell (only a leader can)
    lag_entries: int | None = None


class NodeCluster(Struct, frozen=True, kw_only=True):
    """A node's answer to ``GET /v1/cluster``: the configuration it acts on."""

    cluster_id: str | None
    leader: str | None
    term: int
    config_index: int
    voters: tuple[str, ...]
    members: tuple[NodeMember, ...]
    voters_outgoing: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()  # ids that left, and that are never used again

    def is_healthy(self, member: NodeMember) -> bool:
        """Whether the leader hears from ``member``, which may be itself."""
        return bool(member.healthy) or member.id == self.leader


class PodView(Struct, frozen=True, kw_only=True):
    """One pod of the StatefulSet; pods of an earlier StatefulSet of that name are not seen."""

    name: str
    ordinal: int
    uid: str
    ip: str | None
    is_ready: bool
    is_deleting: bool
    template_hash: str | None
    trouble: str | None  # why it does not run, in Kubernetes' words
    node: NodeStatus | None  # None: did not answer in this pass
    config: NodeCluster | None  # asked of the leader, or of every member while none is known
    lost_seconds: float = 0.0  # without its machine, by the API server; see `pod_status`
    # Whether the EndpointSlices of the client Service hold it as ready, and for how long so.
    is_routed: bool = False
    routing_seconds: float = 0.0

    @property
    def is_draining(self) -> bool:
        """Whether the node was taken out of service, by us or by a signal."""
        return self.node is not None and self.node.state == DRAINING


class Observed(Struct, frozen=True, kw_only=True):
    """Everything one pass looked at, within the cluster's namespace."""

    objects: Mapping[ObjectKey, JsonObject]  # owned ones, and foreign ones that have their names
    pods: tuple[PodView, ...]  # by ordinal
    has_pod_monitors: bool = False  # whether the API server knows the kind
    claims: Mapping[str, JsonObject] = {}  # volume claims with our labels, by name
    now_seconds: float = 0.0  # of the pass, since the epoch

    def get(self, kind: str, name: str) -> JsonObject | None:
        """The live object, or None when there is none."""
        return self.objects.get(ObjectKey(kind, name))

    def stateful_set(self, cluster: str) -> JsonObject | None:
        """The live StatefulSet of ``cluster``, or None."""
        return self.get("StatefulSet", names.stateful_set(cluster))

    def pod(self, name: str) -> PodView | None:
        """The pod of that name, or None."""
        return next((pod for pod in self.pods if pod.name == name), None)

    def leader_view(self, cluster_id: str | None) -> NodeCluster | None:
        """The configuration as told by the leader of the highest term, or None without a leader.

        Without a leader the membership is unknown, not empty (rule 6).
        """
        views = [
            pod.config
            for pod in self.pods
            if pod.node is not None
            and pod.config is not None
            and pod.config.cluster_id == cluster_id
            and pod.config.leader == pod.node.member_id
        ]
        return max(views, key=lambda view: view.term, default=None)
