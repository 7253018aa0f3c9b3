"""The PodDisruptionBudget: evictions may take what the quorum can spare (rule 21)."""

from raftkv_operator import names
from raftkv_operator.api import Cluster
from raftkv_operator.objects import JsonObject


def build(cluster: Cluster, *, voters: int) -> JsonObject:
    """The budget for ``voters`` voters; more than one, else there is nothing to protect."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": names.pod_disruption_budget(cluster.name)},
        "spec": {
            "maxUnavailable": (voters - 1) // 2,
            "selector": {"matchLabels": names.selector(cluster.name)},
            "unhealthyPodEvictionPolicy": "IfHealthyBudget",
        },
    }
