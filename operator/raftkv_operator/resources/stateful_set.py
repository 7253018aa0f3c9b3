"""The StatefulSet: OnDelete and Parallel, because the operator alone decides who restarts when.

Owns the pod template and its hash. Invariants: ``replicas`` is always present (left out, the API
server sets 1, rule 4) and comes from the planner; the claim templates of a live StatefulSet are
copied, since any change to them blocks every apply (rule 10); the retention policy is always
Retain (rule 3).
"""

import hashlib
import json
from typing import Any

import msgspec

from raftkv_operator import names
from raftkv_operator.api import Cluster, PodTemplateSpec
from raftkv_operator.objects import JsonObject
from raftkv_operator.resources import config_map

TERMINATION_GRACE_SECONDS = 60  # rule 15


def build(
    cluster: Cluster,
    *,
    replicas: int,
    live: JsonObject | None = None,
) -> JsonObject:
    """The StatefulSet of ``cluster`` with ``replicas`` pods; claim templates as in ``live``."""
    claim_templates = [_claim_template(cluster)]
    if live is not None:
        claim_templates = [_without_status(item) for item in live["spec"]["volumeClaimTemplates"]]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": names.stateful_set(cluster.name)},
        "spec": {
            "replicas": replicas,
            "serviceName": names.peer_service(cluster.name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {
                "whenScaled": "Retain",
                "whenDeleted": "Retain",
            },
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": names.selector(cluster.name)},
            "template": pod_template(cluster),
            "volumeClaimTemplates": claim_templates,
        },
    }


def template_hash(cluster: Cluster) -> str:
    """Identifies what a pod must be restarted for (rule 18).

    Taken from the spec and not from the built template, and only from what differs from the
    defaults: a new version of the operator restarts nothing by itself.
    """
    spec = cluster.spec
    restart_relevant: dict[str, Any] = {
        "image": spec.image,
        "resources": _non_defaults(spec.resources),
        "config": _non_defaults(spec.raft),
        "podTemplate": _non_defaults(spec.pod_template),
        "restartAt": spec.restart_at,
    }
    text = json.dumps(restart_relevant, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def live_template_hash(live: JsonObject) -> str | None:
    """The hash that a live StatefulSet's template carries."""
    annotations = live["spec"]["template"].get("metadata", {}).get("annotations") or {}
    value = annotations.get(names.ANNOTATION_TEMPLATE_HASH)
    return None if value is None else str(value)


def live_storage_size(live: JsonObject) -> str:
    """The size in a live StatefulSet's claim template, as the API server spells it."""
    claim = live["spec"]["volumeClaimTemplates"][0]
    return str(claim["spec"]["resources"]["requests"]["storage"])


def pod_template(cluster: Cluster) -> JsonObject:
    """The pods: `restricted` Pod Security, one container, the volume and an empty /tmp."""
    user = cluster.spec.pod_template
    annotations = {
        **user.annotations,
        # For Prometheus servers that find their targets by annotation.
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(names.METRICS_PORT),
        names.ANNOTATION_TEMPLATE_HASH: template_hash(cluster),
    }
    spec: JsonObject = {
        "serviceAccountName": names.service_account(cluster.name),
        "automountServiceAccountToken": False,
        # A cluster named raftkv would otherwise inject RAFTKV_PORT (rule 24).
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": names.USER_ID,
            "runAsGroup": names.USER_ID,
            "fsGroup": names.USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(cluster)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        **_placement(cluster, user),
    }
    if cluster.spec.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": item.name} for item in cluster.spec.image_pull_secrets]
    return {
        "metadata": {
            "labels": {**user.labels, **names.labels(cluster.name)},
            "annotations": annotations,
        },
        "spec": spec,
    }


def _container(cluster: Cluster) -> JsonObject:
    """The only container: `raftkv node`, configured by its environment."""
    container: JsonObject = {
        "name": names.CONTAINER,
        "image": cluster.spec.image,
        "imagePullPolicy": cluster.spec.image_pull_policy.value,
        "command": ["raftkv", "node"],
        "env": _environment(cluster),
        "ports": [
            {"name": "client", "containerPort": names.CLIENT_PORT, "protocol": "TCP"},
            {"name": "peer", "containerPort": names.PEER_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": names.METRICS_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": names.ADMIN_PORT, "protocol": "TCP"},
        ],
        # Rule 17. Liveness is about this process only; recovery of a large log may take minutes.
        "startupProbe": _probe("/livez", period_seconds=1, failure_threshold=600),
        "livenessProbe": _probe("/livez", period_seconds=10, failure_threshold=3),
        "readinessProbe": _probe("/readyz", period_seconds=1, failure_threshold=3),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": names.CLAIM_TEMPLATE, "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount of its own in the pod
        ],
    }
    resources = {
        name: dict(values)
        for name, values in (
            ("requests", cluster.spec.resources.requests),
            ("limits", cluster.spec.resources.limits),
        )
        if values
    }
    if resources:
        container["resources"] = resources
    return container


def _environment(cluster: Cluster) -> list[JsonObject]:
    """Each flag of `raftkv node` as its environment variable."""
    # Kubernetes puts the pod's own name in place of $(RAFTKV_ID).
    advertised_peer = names.peer_url(cluster.name, cluster.namespace, "$(RAFTKV_ID)")
    advertised_client = names.client_url(cluster.name, cluster.namespace, "$(RAFTKV_ID)")
    fixed = {
        "RAFTKV_ADDR": f"0.0.0.0:{names.CLIENT_PORT}",
        "RAFTKV_PEER_ADDR": f"0.0.0.0:{names.PEER_PORT}",
        "RAFTKV_METRICS_ADDR": f"0.0.0.0:{names.METRICS_PORT}",
        "RAFTKV_ADMIN_ADDR": f"0.0.0.0:{names.ADMIN_PORT}",
        "RAFTKV_DATA": "/data",
        "RAFTKV_ADVERTISE_PEER": advertised_peer,
        "RAFTKV_ADVERTISE_CLIENT": advertised_client,
    }
    return [
        {
            "name": "RAFTKV_ID",
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
        },
        *({"name": name, "value": value} for name, value in fixed.items()),
        *(
            {
                "name": key,
                "valueFrom": {
                    "configMapKeyRef": {"name": names.config_map(cluster.name), "key": key}
                },
            }
            for key in config_map.KEYS
        ),
    ]


def _probe(path: str, *, period_seconds: int, failure_threshold: int) -> JsonObject:
    return {
        "httpGet": {"path": path, "port": "metrics", "scheme": "HTTP"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 2,
        "failureThreshold": failure_threshold,
    }


def _placement(cluster: Cluster, user: PodTemplateSpec) -> JsonObject:
    """Where the pods may run: apart from each other by preference, unless the user says more."""
    selector = {"matchLabels": names.selector(cluster.name)}
    placement: JsonObject = {
        "affinity": user.affinity
        or {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {
                            "labelSelector": selector,
                            "topologyKey": "kubernetes.io/hostname",
                        },
                    }
                ]
            }
        },
        "topologySpreadConstraints": user.topology_spread_constraints
        or [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": selector,
            }
        ],
    }
    if user.node_selector:
        placement["nodeSelector"] = dict(user.node_selector)
    if user.tolerations:
        placement["tolerations"] = list(user.tolerations)
    if user.priority_class_name:
        placement["priorityClassName"] = user.priority_class_name
    return placement


def _claim_template(cluster: Cluster) -> JsonObject:
    """The volume claim of each pod. It has no owner: data outlives the cluster by default."""
    storage = cluster.spec.storage
    spec: JsonObject = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": names.CLAIM_TEMPLATE, "labels": names.labels(cluster.name)},
        "spec": spec,
    }


def _without_status(item: JsonObject) -> JsonObject:
    return {name: value for name, value in item.items() if name != "status"}


def _non_defaults(value: msgspec.Struct) -> dict[str, Any]:
    """The fields of ``value`` that differ from the defaults of its type."""
    defaults = msgspec.to_builtins(type(value)())
    current = msgspec.to_builtins(value)
    return {name: item for name, item in current.items() if item != defaults[name]}
