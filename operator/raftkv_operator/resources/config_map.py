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


def build(cluster: Cluster, *, frozen: JsonObject | None) -> JsonObject:
    """The ConfigMap of ``cluster``; with ``frozen``, the live one's settings are kept.

    A pod that restarts by chance must not read settings that its neighbours do not have.
    """
    data = settings(cluster)
    if frozen is not None:
        kept = frozen.get("data") or {}
        data = {key: kept.get(key, value) for key, value in data.items()}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.config_map(cluster.name)},
        "data": data,
    }
