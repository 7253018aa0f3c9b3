"""The headless Service that gives every pod a DNS name, ready or not.

Members must find each other before they are ready: a node is ready only once it knows a leader.
"""

from raftkv_operator import names
from raftkv_operator.api import Cluster
from raftkv_operator.objects import JsonObject


def build(cluster: Cluster) -> JsonObject:
    """The headless Service of ``cluster``."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": names.peer_service(cluster.name)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(cluster.name),
            "ports": [
                {
                    "name": "client",
                    "port": names.CLIENT_PORT,
                    "targetPort": "client",
                    "protocol": "TCP",
                },
                {"name": "peer", "port": names.PEER_PORT, "targetPort": "peer", "protocol": "TCP"},
            ],
        },
    }
