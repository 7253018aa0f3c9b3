"""Everything the operator can do, as values: made by the planner, performed by `execute`.

Each action has a ``point``: its name in logs, in errors and as a crash point. Tests kill the
operator ``before:`` and ``after:`` each of them, so a new action is a new pair of crash points.
"""

from typing import ClassVar, assert_never, get_args

from msgspec import Struct

from raftkv_operator.api import (
    BootstrapMember,
    BootstrapRecord,
    ReplacementRecord,
    Status,
    to_json,
)
from raftkv_operator.objects import JsonObject
from raftkv_operator.resources import OWNED_KINDS, SWITCHED_KINDS


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

    point: ClassVar[str] = "replace-pod"

    name: str
    uid: str


class RecordBootstrap(Struct, frozen=True):
    """Write the cluster id and the first members, if the object is still as it was read."""

    record: BootstrapRecord

    @property
    def point(self) -> str:
        """Name of the action."""
        return "record-adoption" if self.record.adopted else "record-bootstrap"


class Bootstrap(Struct, frozen=True):
    """Ask the founder to form exactly the recorded cluster; repeating it is harmless."""

    point: ClassVar[str] = "bootstrap"

    record: BootstrapRecord
    pod: str
    ip: str


class RecordHibernation(Struct, frozen=True):
    """Write who the members are before their pods are stopped (rule 3)."""

    point: ClassVar[str] = "record-hibernation"

    members: tuple[BootstrapMember, ...]


class RecordReplacement(Struct, frozen=True):
    """Write that a member is given up, with the uids of what will be deleted (rule 8)."""

    point: ClassVar[str] = "record-replacement"

    records: tuple[ReplacementRecord, ...]  # all that are kept, this one last


class Call(Struct, frozen=True, kw_only=True):
    """Where a call about the membership goes, and on what it depends (rule 6)."""

    ip: str  # of the leader
    cluster_id: str
    config_index: int  # If-Match: made only on the configuration that was seen


class AddLearner(Struct, frozen=True, kw_only=True):
    """Make the node in a pod a member without a vote."""

    point: ClassVar[str] = "add-learner"

    call: Call
    pod: str
    member_id: str
    rejoins: bool = False  # it was a member before, on the volume that it has now (rule 7)


class PromoteLearner(Struct, frozen=True, kw_only=True):
    """Let a learner that has caught up vote."""

    point: ClassVar[str] = "promote-learner"

    call: Call
    pod: str
    member_id: str


class ReplaceMember(Struct, frozen=True, kw_only=True):
    """Let a learner that has caught up vote in the place of a lost voter, in one joint step."""

    point: ClassVar[str] = "replace-member"

    call: Call
    pod: str
    member_id: str  # of the voter that is lost
    by: str  # the learner


class RemoveMember(Struct, frozen=True, kw_only=True):
    """Take a member out of the configuration, for good."""

    point: ClassVar[str] = "remove-member"

    call: Call
    pod: str
    member_id: str


class TransferLeader(Struct, frozen=True, kw_only=True):
    """Hand leadership to another voter."""

    point: ClassVar[str] = "transfer-leader"

    ip: str  # of the leader
    cluster_id: str
    pod: str  # that is to lead
    member_id: str


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

    point: ClassVar[str] = "stop-pod"

    name: str
    uid: str


class DiscardPod(Struct, frozen=True, kw_only=True):
    """Delete a pod whose volume is given up; with its machine gone nobody confirms that."""

    point: ClassVar[str] = "discard-pod"

    name: str
    uid: str


class DeleteClaim(Struct, frozen=True, kw_only=True):
    """Delete the volume claim of a pod that is no member (any more)."""

    point: ClassVar[str] = "delete-claim"

    name: str
    uid: str
    why: str


class GrowClaim(Struct, frozen=True, kw_only=True):
    """Ask for a larger volume."""

    point: ClassVar[str] = "grow-claim"

    name: str
    uid: str
    size: str


class OwnClaim(Struct, frozen=True, kw_only=True):
    """Let a claim go with its cluster when that is deleted, or no longer (`whenDeleted`)."""

    point: ClassVar[str] = "own-claim"

    name: str
    uid: str
    owners: tuple[JsonObject, ...]  # all owner references, afterwards


class OrphanStatefulSet(Struct, frozen=True, kw_only=True):
    """Delete the StatefulSet and leave its pods: the next one, with larger claims, adopts them."""

    point: ClassVar[str] = "orphan-statefulset"

    name: str
    uid: str


class PostEvent(Struct, frozen=True):
    """Tell the user about a transition. The name is deterministic: posting again does nothing."""

    point: ClassVar[str] = "post-event"

    name: str
    type: str  # "Normal" or "Warning"
    reason: str
    message: str


class WriteStatus(Struct, frozen=True):
    """Replace the status, if the object is still as it was read."""

    point: ClassVar[str] = "write-status"

    status: Status


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
    of_several: dict[type, tuple[str, ...]] = {
        Apply: tuple(f"apply-{kind.name.lower()}" for kind in OWNED_KINDS),
        Delete: tuple(f"delete-{kind.name.lower()}" for kind in SWITCHED_KINDS),
        RecordBootstrap: ("record-adoption", "record-bootstrap"),
        SetDrain: ("drain", "undrain"),
    }
    return tuple(
        point for kind in get_args(Action) for point in of_several.get(kind) or (kind.point,)
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
            what = "again, with the data that it kept" if action.rejoins else "as a learner"
            return f"add {action.pod} ({action.member_id}) {what}"
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
