"""The PodMonitor, for clusters that run the Prometheus operator."""

from raftkv_operator import names
from raftkv_operator.api import Cluster
from raftkv_operator.objects import JsonObject


def build(cluster: Cluster) -> JsonObject:
    """The PodMonitor of ``cluster``."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": names.pod_monitor(cluster.name)},
        "spec": {
            "selector": {"matchLabels": names.selector(cluster.name)},
            "podMetricsEndpoints": [
                {
                    "port": "metrics",
                    "path": "/metrics",
                    # Dashboards and alerts name nodes by their instance; an address says nothing.
                    "relabelings": [
                        {
                            "sourceLabels": ["__meta_kubernetes_pod_name"],
                            "targetLabel": "instance",
                        }
                    ],
                }
            ],
        },
    }
