"""The Service for clients: ready nodes, the client port only (rule 22)."""

from raftkv_operator import names
from raftkv_operator.api import Cluster
from raftkv_operator.objects import JsonObject


def build(cluster: Cluster) -> JsonObject:
    """The client Service of ``cluster``."""
    service = cluster.spec.service
    metadata: JsonObject = {"name": names.client_service(cluster.name)}
    if service.annotations:
        metadata["annotations"] = dict(service.annotations)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": service.type.value,
            "selector": names.selector(cluster.name),
            "ports": [
                {
                    "name": "client",
                    "port": names.CLIENT_PORT,
                    "targetPort": "client",
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }
