"""The custom resource as Python types: the source of the CRD's schema, defaults and rules.

`raftkv_operator.crd` turns these types into the CustomResourceDefinition; a test keeps the chart's
copy equal. Everyone else gets a `Cluster` from `parse_cluster`. No I/O.

A CEL rule belongs to the class whose object it judges, and says its reason to a person.
"""

import re
from enum import StrEnum
from typing import Annotated, ClassVar, NamedTuple

import msgspec
from msgspec import Meta, Struct, field

from raftkv_operator.errors import InvalidSpecError
from raftkv_operator.objects import JsonObject, is_deleting


class Rule(NamedTuple):
    """A CEL rule of the CRD."""

    rule: str
    message: str


QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[mkMGTPE])?$"
DURATION_PATTERN = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"

Size = Annotated[str, Meta(pattern=QUANTITY_PATTERN, max_length=32)]
Quantity = int | str  # as in Kubernetes: `cpu: 1` and `cpu: 100m`


class _Value(Struct, frozen=True, kw_only=True, rename="camel"):
    """Shape shared by the types below: immutable, camelCase in JSON."""

    rules: ClassVar[tuple[Rule, ...]] = ()


# ---- spec -----------------------------------------------------------------------------------


class Retention(StrEnum):
    """What becomes of a volume claim that is no longer used."""

    RETAIN = "Retain"
    DELETE = "Delete"


class StorageSpec(_Value, frozen=True, kw_only=True):
    """Where the nodes keep their data."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
            "storage.size may only grow: a volume cannot be made smaller",
        ),
        Rule(
            "has(self.storageClassName) == has(oldSelf.storageClassName) && "
            "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            "storage.storageClassName cannot be changed: existing volumes stay where they are",
        ),
    )

    size: Annotated[Size, Meta(description="Size of each node's volume. May only grow.")] = "1Gi"
    storage_class_name: Annotated[
        str | None, Meta(description="Storage class; left out: the default one. Immutable.")
    ] = None
    when_scaled: Annotated[
        Retention, Meta(description="The claim of a member that was scaled away.")
    ] = Retention.RETAIN
    when_deleted: Annotated[
        Retention, Meta(description="All claims, when this object is deleted.")
    ] = Retention.RETAIN


class ResourcesSpec(_Value, frozen=True, kw_only=True):
    """Resources of each node's container. No CPU limit by default: throttling costs elections."""

    requests: dict[str, Quantity] = field(
        default_factory=lambda: {"cpu": "100m", "memory": "128Mi"}
    )
    limits: dict[str, Quantity] = field(default_factory=dict)


class RaftSpec(_Value, frozen=True, kw_only=True):
    """Timing of the consensus."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.electionTimeoutMs >= 3 * self.heartbeatIntervalMs",
            "raft.electionTimeoutMs must be at least 3 times raft.heartbeatIntervalMs: "
            "with less, a single late heartbeat starts an election",
        ),
    )

    heartbeat_interval_ms: Annotated[
        int, Meta(ge=10, le=10_000, description="Between a leader's heartbeats.")
    ] = 80
    election_timeout_ms: Annotated[
        int, Meta(ge=50, le=60_000, description="Silence after which a follower campaigns.")
    ] = 300
    snapshot_min_bytes: Annotated[
        Size, Meta(description="Log growth that a snapshot follows. Nodes of 0.1 do not read it.")
    ] = "64Mi"


class ServiceType(StrEnum):
    """How the client Service is reached."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class ServiceSpec(_Value, frozen=True, kw_only=True):
    """The client Service."""

    type: ServiceType = ServiceType.CLUSTER_IP
    annotations: dict[str, str] = field(default_factory=dict)


class PodTemplateSpec(_Value, frozen=True, kw_only=True):
    """Additions to the pods. Affinity and spread constraints replace the defaults."""

    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    affinity: JsonObject = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[JsonObject] = field(default_factory=list)
    topology_spread_constraints: list[JsonObject] = field(default_factory=list)
    priority_class_name: str = ""


class PodDisruptionBudgetSpec(_Value, frozen=True, kw_only=True):
    """Whether evictions are limited to what the quorum can spare."""

    enabled: bool = True


class NodeFailureSpec(_Value, frozen=True, kw_only=True):
    """What to do about a pod that is lost with its machine."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            # A null that the user wrote is there; `dyn` lets the type checker compare with it.
            "!has(self.replaceAfter) || dyn(self.replaceAfter) == null || "
            "duration(self.replaceAfter) >= duration('10s')",
            "nodeFailure.replaceAfter must be at least 10s: a machine that is only slow to answer "
            "keeps its member",
        ),
    )

    replace_after: Annotated[
        Annotated[str, Meta(pattern=DURATION_PATTERN, min_length=2, max_length=32)] | None,
        Meta(description="Replace the member after this time, such as 10m; null only reports."),
    ] = None
    max_per_hour: Annotated[int, Meta(ge=1, le=60)] = 1


def duration_seconds(text: str) -> float:
    """The seconds in a duration such as ``1h30m``, which fits `DURATION_PATTERN`."""
    units = {"h": 3600, "m": 60, "s": 1}
    return float(
        sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", text))
    )


class NetworkPolicySpec(_Value, frozen=True, kw_only=True):
    """Who may connect. Empty lists allow everyone; peers and admin calls are always limited."""

    enabled: bool = True
    client_from: Annotated[
        list[JsonObject], Meta(description="NetworkPolicyPeers allowed to port 7400.")
    ] = field(default_factory=list)
    metrics_from: Annotated[
        list[JsonObject], Meta(description="NetworkPolicyPeers allowed to port 7402.")
    ] = field(default_factory=list)


class ImagePullPolicy(StrEnum):
    """As in a container."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class LocalObjectReference(_Value, frozen=True, kw_only=True):
    """A Secret in the same namespace."""

    name: str


class MonitoringSpec(_Value, frozen=True, kw_only=True):
    """Objects for the Prometheus operator."""

    pod_monitor: bool = False


class Spec(_Value, frozen=True, kw_only=True):
    """What the user wants."""

    replicas: Annotated[
        int,
        Meta(
            description="Voters, 0 to 9. 0 stops the pods and keeps the data.",
            extra_json_schema={
                "x-kubernetes-validations": [
                    {
                        "rule": "self >= 0 && self <= 9",
                        "message": "replicas must be between 0 (hibernate) and 9: more voters "
                        "make every write slower and protect no better",
                    }
                ]
            },
        ),
    ] = 3
    image: Annotated[str, Meta(min_length=1, max_length=512, description="The image of the nodes.")]
    storage: StorageSpec = StorageSpec()
    resources: ResourcesSpec = field(default_factory=ResourcesSpec)
    raft: RaftSpec = RaftSpec()
    service: ServiceSpec = field(default_factory=ServiceSpec)
    pod_template: PodTemplateSpec = field(default_factory=PodTemplateSpec)
    restart_at: Annotated[
        str | None,
        Meta(
            description="A new value is a rolling restart.",
            extra_json_schema={"format": "date-time"},
        ),
    ] = None
    pod_disruption_budget: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    node_failure: NodeFailureSpec = NodeFailureSpec()
    network_policy: NetworkPolicySpec = field(default_factory=NetworkPolicySpec)
    image_pull_policy: ImagePullPolicy = ImagePullPolicy.IF_NOT_PRESENT
    image_pull_secrets: list[LocalObjectReference] = field(default_factory=list)
    monitoring: MonitoringSpec = MonitoringSpec()
    paused: Annotated[bool, Meta(description="Observe and report, change nothing.")] = False


# ---- status ---------------------------------------------------------------------------------


class _StatusValue(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """A part of the status: absent rather than null."""


class BootstrapMember(_StatusValue, frozen=True, kw_only=True):
    """One of the first members: a pod and the id that its volume had at that time."""

    pod: str
    member_id: str = field(name="memberID")


class BootstrapRecord(_StatusValue, frozen=True, kw_only=True):
    """Written before the bootstrap call, so that a repeated call is the same call (rule 1)."""

    cluster_id: str = field(name="clusterID")
    members: tuple[BootstrapMember, ...]
    adopted: Annotated[
        bool, Meta(description="True when the nodes already were this cluster (rule 2).")
    ] = False


class ReplacementRecord(_StatusValue, frozen=True, kw_only=True):
    """A member that was given up, and what its pod and claim were then (rule 8)."""

    pod: str
    member_id: str = field(name="memberID")
    pod_uid: str | None = field(default=None, name="podUID")
    claim_uid: str | None = field(default=None, name="claimUID")
    at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class MemberRole(StrEnum):
    """What a member does; Unknown while no leader tells."""

    LEADER = "Leader"
    FOLLOWER = "Follower"
    LEARNER = "Learner"
    UNKNOWN = "Unknown"


class MemberStatus(_StatusValue, frozen=True, kw_only=True):
    """One member of the cluster."""

    name: str
    id: str
    role: MemberRole
    voter: bool
    healthy: bool
    lag: Annotated[
        int | None,
        Meta(
            description="Entries behind the leader, rounded up to 0, 100, 10000 or 1000000, so "
            "that traffic alone does not change the status."
        ),
    ] = None
    version: str | None = None


class OperationStatus(_StatusValue, frozen=True, kw_only=True):
    """A change that takes several steps."""

    type: str
    step: str
    target: str | None = None
    started_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class ConditionType(StrEnum):
    """What is reported as conditions."""

    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    QUORUM_AT_RISK = "QuorumAtRisk"
    STORAGE_RESIZE = "StorageResize"
    EVEN_VOTERS = "EvenVoters"
    PAUSED = "Paused"


class ConditionStatus(StrEnum):
    """Kubernetes spells booleans as words."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(_StatusValue, frozen=True, kw_only=True):
    """A standard Kubernetes condition."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    last_transition_time: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    observed_generation: int | None = None


class Status(_StatusValue, frozen=True, kw_only=True):
    """What the operator saw last.

    What is read back to decide: `bootstrap`, `clusterID`, `hibernated` and `replacements`, which
    are records; and while no leader tells, `members`. `operation` only says what was announced.
    """

    observed_generation: int | None = None
    cluster_id: str | None = field(default=None, name="clusterID")
    bootstrap: BootstrapRecord | None = None
    leader: str | None = None
    term: int | None = None
    replicas: int | None = None
    ready_replicas: int | None = None
    selector: str | None = None
    fault_tolerance: Annotated[
        int | None, Meta(description="Voters that may still be lost; absent while unknown.")
    ] = None
    members: tuple[MemberStatus, ...] = ()
    hibernated: Annotated[
        tuple[BootstrapMember, ...],
        Meta(description="Whose pods are stopped; waking starts exactly those (rule 3)."),
    ] = ()
    replacements: Annotated[
        tuple[ReplacementRecord, ...],
        Meta(description="Members given up with their machines within the last hour (rule 8)."),
    ] = ()
    operation: OperationStatus | None = None
    plan: Annotated[tuple[str, ...], Meta(description="What the operator does next.")] = ()
    blocked_by: Annotated[str | None, Meta(description="What the plan waits for.")] = None
    conditions: tuple[Condition, ...] = ()

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of this type, if reported."""
        return next((item for item in self.conditions if item.type == kind), None)


# ---- the object -----------------------------------------------------------------------------

# The API server judges these on the whole object, where metadata.name can be seen.
ROOT_RULES = (
    Rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && "
        "size(self.metadata.name) <= 40",
        "the name must be a DNS label of at most 40 characters that starts with a letter: pods, "
        "services and labels are named after it",
    ),
    Rule(
        "!self.metadata.name.endsWith('-peers')",
        "the name must not end in '-peers': another cluster's headless service may be named so",
    ),
    Rule(
        "!has(oldSelf.status) || !has(oldSelf.status.clusterID) || (has(self.status) && "
        "has(self.status.clusterID) && self.status.clusterID == oldSelf.status.clusterID)",
        "status.clusterID cannot be changed once it is set",
    ),
)


class Cluster(Struct, frozen=True, kw_only=True):
    """A RaftKVCluster as read: the identity, the wish and the last report."""

    name: str
    namespace: str
    uid: str
    generation: int
    is_deleting: bool
    spec: Spec
    status: Status


def parse_cluster(body: JsonObject) -> Cluster:
    """The cluster in ``body``.

    Raises:
        InvalidSpecError: the spec does not fit the types. The API server refuses such objects, so
            this means an older or hand-edited CRD.
    """
    metadata = body["metadata"]
    try:
        spec = msgspec.convert(body.get("spec") or {}, Spec)
    except msgspec.ValidationError as error:
        raise InvalidSpecError(f"spec does not fit this operator: {error}") from error
    return Cluster(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        is_deleting=is_deleting(body),
        spec=spec,
        status=parse_status(body),
    )


def parse_status(body: JsonObject) -> Status:
    """The status in ``body``; an empty one when there is none.

    Raises:
        InvalidSpecError: someone wrote a status that does not fit the types.
    """
    try:
        return msgspec.convert(body.get("status") or {}, Status)
    except msgspec.ValidationError as error:
        raise InvalidSpecError(f"status does not fit this operator: {error}") from error


def to_json(value: Struct) -> JsonObject:
    """The JSON form of any value of this module, such that it equals what is read back."""
    # Not `to_builtins`: it keeps tuples, which equal no list of the API server's answer.
    return msgspec.json.decode(msgspec.json.encode(value), type=JsonObject)
