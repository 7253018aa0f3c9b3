"""The RaftKVClusters as last seen, raw: fed by the edge's watch and by our own writes.

Called by `main` (writes), `reconcile` and `execute` (read, and write back what the API server
answered). Raw, because replacing a status needs the whole object with its resourceVersion.
"""

from typing import NamedTuple

from raftkv_operator.objects import JsonObject


class ClusterKey(NamedTuple):
    """Which cluster."""

    namespace: str
    name: str


def cluster_key(body: JsonObject) -> ClusterKey:
    """The key of a RaftKVCluster."""
    return ClusterKey(body["metadata"]["namespace"], body["metadata"]["name"])


class Clusters:
    """The latest body of every cluster."""

    def __init__(self) -> None:
        self._bodies: dict[ClusterKey, JsonObject] = {}

    def __contains__(self, key: ClusterKey) -> bool:
        return key in self._bodies

    def __len__(self) -> int:
        return len(self._bodies)

    def keys(self) -> list[ClusterKey]:
        """All clusters there are now."""
        return list(self._bodies)

    def get(self, key: ClusterKey) -> JsonObject | None:
        """The latest body, or None when the cluster is gone."""
        return self._bodies.get(key)

    def put(self, body: JsonObject) -> bool:
        """Store ``body``; say whether more than the status or bookkeeping changed.

        Our own status writes come back through the watch and must not wake us (rule 13).
        """
        key = cluster_key(body)
        before = self._bodies.get(key)
        self._bodies[key] = body
        return before is None or _wish(before) != _wish(body)

    def remove(self, key: ClusterKey) -> None:
        """Forget a deleted cluster."""
        self._bodies.pop(key, None)


def _wish(body: JsonObject) -> tuple[object, ...]:
    metadata = body["metadata"]
    return metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp")
