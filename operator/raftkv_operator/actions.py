"""Everything the operator can do, as values: made by the planner, performed by `execute`.

Each action has a ``point``: its name in logs, in errors and as a crash point. Tests kill the
operator ``before:`` and ``after:`` each of them, so a new action is a new pair of crash points.
"""

from msgspec import Struct

from raftkv_operator.api import BootstrapRecord, Status, to_json
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


Action = Apply | Delete | ReplacePod | RecordBootstrap | Bootstrap | PostEvent | WriteStatus


class Wait(Struct, frozen=True):
    """Look again after this time even if nothing wakes the operator."""

    seconds: float
    reason: str


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
        case ReplacePod():
            return f"replace pod {action.name}, which runs an outdated template"
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
