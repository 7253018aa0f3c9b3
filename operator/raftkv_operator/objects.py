"""Kubernetes objects as plain JSON: the few questions that everyone asks of them.

Called by every other module. Holds no knowledge of any one kind, and does no I/O.
"""

from typing import Any, NamedTuple

JsonObject = dict[str, Any]


class Kind(NamedTuple):
    """A kind that the operator reads or writes, with what its URL needs."""

    api_version: str  # "apps/v1"; "v1" is the core group
    name: str  # "StatefulSet"
    plural: str  # "statefulsets"


class ObjectKey(NamedTuple):
    """One object within the cluster's namespace."""

    kind: str
    name: str


def key_of(item: JsonObject) -> ObjectKey:
    """The kind and name of ``item``."""
    return ObjectKey(item["kind"], item["metadata"]["name"])


def labels_of(item: JsonObject) -> dict[str, str]:
    """The labels, never None."""
    return item["metadata"].get("labels") or {}


def annotations_of(item: JsonObject) -> dict[str, str]:
    """The annotations, never None."""
    return item["metadata"].get("annotations") or {}


def is_deleting(item: JsonObject) -> bool:
    """Whether deletion was asked for, but finalizers or a grace period hold the object."""
    return "deletionTimestamp" in item["metadata"]


def controller_of(item: JsonObject) -> JsonObject | None:
    """The owner reference that says ``controller: true``, if any."""
    for reference in item["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def is_controlled_by(item: JsonObject, uid: str) -> bool:
    """Whether the object's controller is the one with this uid (a name may be used again)."""
    controller = controller_of(item)
    return controller is not None and controller.get("uid") == uid
