"""The NetworkPolicy: peers among themselves, admin calls from the operator (rule 22).

Probes come from the machine's kubelet, which network policies never block.
"""

from raftkv_operator import names
from raftkv_operator.api import Cluster
from raftkv_operator.objects import JsonObject


def build(cluster: Cluster, *, operator_namespace: str | None) -> JsonObject:
    """The policy of ``cluster``.

    ``operator_namespace`` is None when the operator runs outside of Kubernetes, on an address that
    no policy can name: the admin port is then open.
    """
    members = {"podSelector": {"matchLabels": names.selector(cluster.name)}}
    policy = cluster.spec.network_policy
    admin_from: list[JsonObject] = []
    if operator_namespace is not None:
        admin_from = [
            {
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": operator_namespace}
                },
                "podSelector": {"matchLabels": {names.LABEL_NAME: "raftkv-operator"}},
            }
        ]
    # A member may pass a client's request on to the leader's client port.
    client_from = [*policy.client_from, members] if policy.client_from else []
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": names.network_policy(cluster.name)},
        "spec": {
            "podSelector": {"matchLabels": names.selector(cluster.name)},
            "policyTypes": ["Ingress"],
            "ingress": [
                _rule(names.CLIENT_PORT, client_from),
                _rule(names.PEER_PORT, [members]),
                _rule(names.METRICS_PORT, policy.metrics_from),
                _rule(names.ADMIN_PORT, admin_from),
            ],
        },
    }


def _rule(port: int, sources: list[JsonObject]) -> JsonObject:
    """Allow ``sources`` to ``port``; no sources: everyone."""
    rule: JsonObject = {"ports": [{"port": port, "protocol": "TCP"}]}
    if sources:
        rule["from"] = sources
    return rule
