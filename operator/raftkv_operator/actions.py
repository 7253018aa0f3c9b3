"""Everything the operator can do, as values: made by the planner, performed by `execute`.

Each action has a ``point``: its name in logs, in errors and as a crash point. Tests kill the
operator ``before:`` and ``after:`` each of them, so a new action is a new pair of crash points.
"""

from typing import assert_never

from msgspec import Struct

from raftkv_operator.api import (
    BootstrapMember,
    BootstrapRecord,
    ReplacementRecord,
    Status,
    to_json,
)
from raftkv_operator.objects import JsonObject
from raftkv_operator.resources import OWNED_KINDS


class Apply(Struct, frozen=True):
    """Apply an object of ours server-side; ``live_uid`` is the one it changes, None creates it."""

    item: JsonObject
    live_uid: str | None

    @property
    def point(self) -> str:
        """Such as ``apply-statefulset``."""
        return f"apply-{self.item['kind'].lower()}"


class Delete(Struct, frozen=True):
    """Delete an object of ours that is no longer wanted, if it still is the one with this uid."""

    kind: str
    name: str
    uid: str

    @property
    def point(self) -> str:
        """Such as ``delete-networkpolicy``."""
        return f"delete-{self.kind.lower()}"


class ReplacePod(Struct, frozen=True):
    """Delete a pod that was started from an outdated template and serves nobody."""

    name: str
    uid: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "replace-pod"


class RecordBootstrap(Struct, frozen=True):
    """Write the cluster id and the first members, if the object is still as it was read."""

    record: BootstrapRecord

    @property
    def point(self) -> str:
        """Name of the action."""
        return "record-adoption" if self.record.adopted else "record-bootstrap"


class Bootstrap(Struct, frozen=True):
    """Ask the founder to form exactly the recorded cluster; repeating it is harmless."""

    record: BootstrapRecord
    pod: str
    ip: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "bootstrap"


class RecordHibernation(Struct, frozen=True):
    """Write who the members are before their pods are stopped (rule 3)."""

    members: tuple[BootstrapMember, ...]

    @property
    def point(self) -> str:
        """Name of the action."""
        return "record-hibernation"


class RecordReplacement(Struct, frozen=True):
    """Write that a member is given up, with the uids of what will be deleted (rule 8)."""

    records: tuple[ReplacementRecord, ...]  # all that are kept, this one last

    @property
    def point(self) -> str:
        """Name of the action."""
        return "record-replacement"


class Call(Struct, frozen=True, kw_only=True):
    """Where a call about the membership goes, and on what it depends (rule 6)."""

    ip: str  # of the leader
    cluster_id: str
    config_index: int  # If-Match: made only on the configuration that was seen


class AddLearner(Struct, frozen=True, kw_only=True):
    """Make the node in a pod a member without a vote."""

    call: Call
    pod: str
    member_id: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "add-learner"


class PromoteLearner(Struct, frozen=True, kw_only=True):
    """Let a learner that has caught up vote."""

    call: Call
    pod: str
    member_id: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "promote-learner"


class ReplaceMember(Struct, frozen=True, kw_only=True):
    """Let a learner that has caught up vote in the place of a lost voter, in one joint step."""

    call: Call
    pod: str
    member_id: str  # of the voter that is lost
    by: str  # the learner

    @property
    def point(self) -> str:
        """Name of the action."""
        return "replace-member"


class RemoveMember(Struct, frozen=True, kw_only=True):
    """Take a member out of the configuration, for good."""

    call: Call
    pod: str
    member_id: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "remove-member"


class TransferLeader(Struct, frozen=True, kw_only=True):
    """Hand leadership to another voter."""

    ip: str  # of the leader
    cluster_id: str
    pod: str  # that is to lead
    member_id: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "transfer-leader"


class SetDrain(Struct, frozen=True, kw_only=True):
    """Take a node out of service, or put it back; it goes on running and voting."""

    ip: str
    cluster_id: str
    pod: str
    member_id: str
    is_draining: bool

    @property
    def point(self) -> str:
        """Name of the action."""
        return "drain" if self.is_draining else "undrain"


class StopPod(Struct, frozen=True, kw_only=True):
    """Delete a drained pod, so that it starts again from the present template."""

    name: str
    uid: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "stop-pod"


class DiscardPod(Struct, frozen=True, kw_only=True):
    """Delete a pod whose volume is given up; with its machine gone nobody confirms that."""

    name: str
    uid: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "discard-pod"


class DeleteClaim(Struct, frozen=True, kw_only=True):
    """Delete the volume claim of a pod that is no member (any more)."""

    name: str
    uid: str
    why: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "delete-claim"


class GrowClaim(Struct, frozen=True, kw_only=True):
    """Ask for a larger volume."""

    name: str
    uid: str
    size: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "grow-claim"


class OwnClaim(Struct, frozen=True, kw_only=True):
    """Let a claim go with its cluster when that is deleted, or no longer (`whenDeleted`)."""

    name: str
    uid: str
    owners: tuple[JsonObject, ...]  # all owner references, afterwards

    @property
    def point(self) -> str:
        """Name of the action."""
        return "own-claim"


class OrphanStatefulSet(Struct, frozen=True, kw_only=True):
    """Delete the StatefulSet and leave its pods: the next one, with larger claims, adopts them."""

    name: str
    uid: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "orphan-statefulset"


class PostEvent(Struct, frozen=True):
    """Tell the user about a transition. The name is deterministic: posting again does nothing."""

    name: str
    type: str  # "Normal" or "Warning"
    reason: str
    message: str

    @property
    def point(self) -> str:
        """Name of the action."""
        return "post-event"


class WriteStatus(Struct, frozen=True):
    """Replace the status, if the object is still as it was read."""

    status: Status

    @property
    def point(self) -> str:
        """Name of the action."""
        return "write-status"


Action = (
    Apply
    | Delete
    | ReplacePod
    | RecordBootstrap
    | Bootstrap
    | RecordHibernation
    | RecordReplacement
    | AddLearner
    | PromoteLearner
    | ReplaceMember
    | RemoveMember
    | TransferLeader
    | SetDrain
    | StopPod
    | DiscardPod
    | DeleteClaim
    | GrowClaim
    | OwnClaim
    | OrphanStatefulSet
    | PostEvent
    | WriteStatus
)

# At most one of these is made in a pass.
MEMBERSHIP_ACTIONS = (AddLearner, PromoteLearner, ReplaceMember, RemoveMember)


def action_points() -> tuple[str, ...]:
    """The points of all actions there are."""
    per_kind = [kind.name.lower() for kind in OWNED_KINDS]
    return (
        *(f"apply-{kind}" for kind in per_kind),
        *(f"delete-{kind}" for kind in per_kind),
        "replace-pod",
        "record-adoption",
        "record-bootstrap",
        "bootstrap",
        "record-hibernation",
        "record-replacement",
        "add-learner",
        "promote-learner",
        "replace-member",
        "remove-member",
        "transfer-leader",
        "drain",
        "undrain",
        "stop-pod",
        "discard-pod",
        "delete-claim",
        "grow-claim",
        "own-claim",
        "orphan-statefulset",
        "post-event",
        "write-status",
    )


def describe(action: Action) -> str:
    """One line for logs and for ``status.plan``."""
    match action:
        case Apply():
            verb = "create" if action.live_uid is None else "repair"
            return f"{verb} {action.item['kind']} {action.item['metadata']['name']}"
        case Delete():
            return f"delete {action.kind} {action.name}"
        case RecordBootstrap():
            verb = "adopt" if action.record.adopted else "record"
            members = ", ".join(member.pod for member in action.record.members)
            return f"{verb} cluster {action.record.cluster_id} of {members}"
        case Bootstrap():
            return f"ask {action.pod} to found cluster {action.record.cluster_id}"
        case PostEvent():
            return f"post event {action.reason}: {action.message}"
        case WriteStatus():
            return f"write status {to_json(action.status)}"
        case (
            RecordHibernation()
            | RecordReplacement()
            | AddLearner()
            | PromoteLearner()
            | ReplaceMember()
            | RemoveMember()
            | TransferLeader()
        ):
            return _describe_member(action)
        case _:
            return _describe_pod(action)


def _describe_member(
    action: RecordHibernation
    | RecordReplacement
    | AddLearner
    | PromoteLearner
    | ReplaceMember
    | RemoveMember
    | TransferLeader,
) -> str:
    match action:
        case RecordHibernation():
            members = ", ".join(member.pod for member in action.members)
            return f"record {members} for waking"
        case RecordReplacement():
            return f"record that {action.records[-1].pod} is given up"
        case AddLearner():
            return f"add {action.pod} ({action.member_id}) as a learner"
        case PromoteLearner():
            return f"promote {action.pod}"
        case ReplaceMember():
            return f"let {action.pod} vote as {action.by} in the place of {action.member_id}"
        case RemoveMember():
            return f"remove {action.pod} ({action.member_id})"
        case TransferLeader():
            return f"hand leadership to {action.pod}"
        case _:
            assert_never(action)


def _describe_pod(
    action: ReplacePod
    | SetDrain
    | StopPod
    | DiscardPod
    | DeleteClaim
    | GrowClaim
    | OwnClaim
    | OrphanStatefulSet,
) -> str:
    match action:
        case ReplacePod():
            return f"replace pod {action.name}, which runs an outdated template"
        case SetDrain():
            return f"{'drain' if action.is_draining else 'put back'} {action.pod}"
        case StopPod():
            return f"restart {action.name}"
        case DiscardPod():
            return f"discard pod {action.name}"
        case DeleteClaim():
            return f"delete claim {action.name}: {action.why}"
        case GrowClaim():
            return f"grow claim {action.name} to {action.size}"
        case OwnClaim():
            return f"{'own' if action.owners else 'disown'} claim {action.name}"
        case OrphanStatefulSet():
            return f"make StatefulSet {action.name} anew around its pods"
        case _:
            assert_never(action)
