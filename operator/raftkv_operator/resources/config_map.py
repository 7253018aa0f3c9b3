"""The ConfigMap with the nodes' settings; the pod template reads each key by name.

By name and not as a whole: a key that someone adds does not reach the nodes.
"""

from raftkv_operator import names
from raftkv_operator.api import Cluster
from raftkv_operator.objects import JsonObject

DRAIN_SECONDS = 8  # rule 15

KEYS = ("RAFTKV_DRAIN_SECONDS", "RAFTKV_ELECTION_MS", "RAFTKV_HEARTBEAT_MS")


def settings(cluster: Cluster) -> dict[str, str]:
    """The environment variables that come from the spec."""
    return {
        "RAFTKV_DRAIN_SECONDS": str(DRAIN_SECONDS),
        "RAFTKV_ELECTION_MS": str(cluster.spec.raft.election_timeout_ms),
        "RAFTKV_HEARTBEAT_MS": str(cluster.spec.raft.heartbeat_interval_ms),
    }


def build(cluster: Cluster) -> JsonObject:
    """The ConfigMap of ``cluster``. Pods read it when they start: a change of it is a roll."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.config_map(cluster.name)},
        "data": settings(cluster),
    }
