"""The pods' ServiceAccount: no rights, and no token in the pods."""

from raftkv_operator import names
from raftkv_operator.api import Cluster
from raftkv_operator.objects import JsonObject


def build(cluster: Cluster) -> JsonObject:
    """The ServiceAccount of ``cluster``."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": names.service_account(cluster.name)},
        "automountServiceAccountToken": False,
    }
