"""Names, labels, annotations and ports: every string that two objects must agree on.

Called by everyone who builds or reads objects. A name is composed nowhere else.
"""

from raftkv_operator.objects import JsonObject, Kind

GROUP = "raftkv.io"
VERSION = "v1alpha1"
CLUSTER_KIND = Kind(f"{GROUP}/{VERSION}", "RaftKVCluster", "raftkvclusters")

FIELD_MANAGER = "raftkv-operator"

LABEL_NAME = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_SERVICE = "kubernetes.io/service-name"  # of an EndpointSlice
MANAGED_BY_SELECTOR = f"{LABEL_MANAGED_BY}={FIELD_MANAGER}"

# On the pod template: what a running pod was started with (rule 18).
ANNOTATION_TEMPLATE_HASH = f"{GROUP}/template-hash"
# On every owned object: what was last applied, so that a field that left it is noticed.
ANNOTATION_APPLIED_HASH = f"{GROUP}/applied-hash"

CLIENT_PORT = 7400
PEER_PORT = 7401
METRICS_PORT = 7402
ADMIN_PORT = 7403

CONTAINER = "raftkv"
CLAIM_TEMPLATE = "data"
USER_ID = 65532


def labels(cluster: str) -> dict[str, str]:
    """The labels of every object and pod of ``cluster``."""
    return {**selector(cluster), LABEL_MANAGED_BY: FIELD_MANAGER}


def selector(cluster: str) -> dict[str, str]:
    """What selects the pods of ``cluster``. A StatefulSet's selector can never change."""
    return {
        LABEL_NAME: "raftkv",
        LABEL_INSTANCE: cluster,
        LABEL_COMPONENT: "node",
    }


def selector_text(cluster: str) -> str:
    """The same in the form of ``status.selector`` and of ``kubectl get -l``."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector(cluster).items()))


def stateful_set(cluster: str) -> str:
    """The StatefulSet, and with it the stem of the pods' names."""
    return cluster


def client_service(cluster: str) -> str:
    """The Service that clients use."""
    return cluster


def peer_service(cluster: str) -> str:
    """The headless Service that gives each pod its DNS name."""
    return f"{cluster}-peers"


def config_map(cluster: str) -> str:
    """The ConfigMap with the nodes' settings."""
    return f"{cluster}-config"


def service_account(cluster: str) -> str:
    """The pods' ServiceAccount. Not the bare name: every namespace has a `default`."""
    return f"{cluster}-node"


def pod_disruption_budget(cluster: str) -> str:
    """The PodDisruptionBudget."""
    return cluster


def network_policy(cluster: str) -> str:
    """The NetworkPolicy."""
    return cluster


def pod_monitor(cluster: str) -> str:
    """The PodMonitor."""
    return cluster


def pod(cluster: str, ordinal: int) -> str:
    """The pod with this ordinal."""
    return f"{stateful_set(cluster)}-{ordinal}"


def claim(pod_name: str) -> str:
    """The volume claim of a pod."""
    return f"{CLAIM_TEMPLATE}-{pod_name}"


def claimant(cluster: str, claim_name: str) -> str | None:
    """The pod whose claim this is; None when it is none of this cluster's."""
    prefix, _, pod_name = claim_name.partition("-")
    is_ours = prefix == CLAIM_TEMPLATE and ordinal_of(cluster, pod_name) is not None
    return pod_name if is_ours else None


def ordinal_of(cluster: str, pod_name: str) -> int | None:
    """The ordinal in a pod's name; None when the name is not one of this cluster's pods."""
    stem, _, number = pod_name.rpartition("-")
    if stem != stateful_set(cluster) or not number.isdecimal() or str(int(number)) != number:
        return None
    return int(number)


def peer_url(cluster: str, namespace: str, pod_name: str) -> str:
    """Where the other members reach a pod: a DNS name, never an IP (rule 14)."""
    return f"{pod_name}.{peer_service(cluster)}.{namespace}.svc:{PEER_PORT}"


def client_url(cluster: str, namespace: str, pod_name: str) -> str:
    """Where clients inside Kubernetes reach one pod."""
    return f"http://{pod_name}.{peer_service(cluster)}.{namespace}.svc:{CLIENT_PORT}"


def owner_reference(cluster: str, uid: str) -> JsonObject:
    """What makes Kubernetes delete an object together with its cluster (rule 11)."""
    return {
        "apiVersion": CLUSTER_KIND.api_version,
        "kind": CLUSTER_KIND.name,
        "name": cluster,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
