"""One RaftKVCluster under test: what the user applies and sees, and what its nodes say.

Called by the scenarios. Talks to the API server by kubectl, to the nodes through the client pod.
"""

import json
from collections.abc import Sequence
from typing import Any

from tests.e2e.client import Answer, Client
from tests.e2e.kubectl import E2EError, JsonObject, Kubectl, NotYetError, wait_until

CLIENT_PORT = 7400
METRICS_PORT = 7402
CONTAINER = "raftkv"


class RaftCluster:
    """The object ``name`` in ``namespace``, whether it exists or not."""

    def __init__(
        self, kubectl: Kubectl, client: Client, namespace: str, name: str, image: str
    ) -> None:
        self.kubectl = kubectl
        self.client = client
        self.namespace = namespace
        self.name = name
        self.image = image
        self.endpoint = f"http://{name}.{namespace}.svc:{CLIENT_PORT}"

    # ---- the custom resource ----------------------------------------------------------------

    def manifest(self, **spec: Any) -> JsonObject:
        """The object, with three small replicas unless ``spec`` says otherwise."""
        return {
            "apiVersion": "raftkv.io/v1alpha1",
            "kind": "RaftKVCluster",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "replicas": 3,
                "image": self.image,
                "storage": {"size": "64Mi"},
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                **spec,
            },
        }

    def apply(self, **spec: Any) -> None:
        """Create or change it."""
        self.kubectl.apply(self.manifest(**spec))

    def patch_spec(self, **spec: Any) -> None:
        """Change some fields of the spec."""
        self.kubectl.patch("raftkvcluster", self.name, self.namespace, {"spec": spec})

    def delete(self, seconds: float = 60) -> None:
        """Delete it and wait until it and its pods are gone. Claims stay."""
        self.kubectl.delete("raftkvcluster", self.name, "-n", self.namespace, seconds=seconds)
        wait_until("the pods are gone", self._require_no_pods, seconds=seconds)

    def discard(self) -> None:
        """Delete it and its claims, without waiting: nothing of it is needed any more."""
        where = ("-n", self.namespace, "--wait=false")
        self.kubectl("delete", "raftkvcluster", self.name, *where)
        self.kubectl("delete", "pvc", "-l", self.selector, *where)

    def object(self) -> JsonObject:
        """The object as it is now."""
        return self.kubectl.get("raftkvcluster", self.name, "-n", self.namespace)

    def status(self) -> JsonObject:
        """Its status; empty before the operator saw it."""
        status: JsonObject = self.object().get("status", {})
        return status

    def cluster_id(self) -> str:
        """The id in the status.

        Raises:
            E2EError: there is none yet.
        """
        cluster_id = self.status().get("clusterID")
        if not isinstance(cluster_id, str):
            raise E2EError(f"{self.name} has no status.clusterID")
        return cluster_id

    def wait_condition(
        self, kind: str, status: str, reason: str | None = None, *, seconds: float
    ) -> JsonObject:
        """Wait for a condition that was set for the present spec."""
        wanted = f"{self.name} {kind}={status}" + (f" ({reason})" if reason else "")

        def require_condition() -> JsonObject:
            item = self.object()
            conditions = item.get("status", {}).get("conditions", [])
            found = next((entry for entry in conditions if entry["type"] == kind), None)
            if item.get("status", {}).get("observedGeneration") != item["metadata"]["generation"]:
                raise NotYetError("the operator has not seen this spec")
            if found is None:
                raise NotYetError(f"no condition {kind}")
            if found["status"] != status or reason not in (None, found["reason"]):
                raise NotYetError(f"{found['status']} ({found['reason']}): {found['message']}")
            entry: JsonObject = found
            return entry

        return wait_until(wanted, require_condition, seconds=seconds)

    # ---- pods and nodes ---------------------------------------------------------------------

    @property
    def selector(self) -> str:
        """What selects its pods and claims."""
        return f"app.kubernetes.io/name=raftkv,app.kubernetes.io/instance={self.name}"

    def pods(self) -> list[JsonObject]:
        """Its pods, by name."""
        items = self.kubectl.items("pods", "-n", self.namespace, "-l", self.selector)
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def pod(self, name: str) -> JsonObject:
        """One pod."""
        return self.kubectl.get("pod", name, "-n", self.namespace)

    def stateful_set(self) -> JsonObject:
        """The StatefulSet."""
        return self.kubectl.get("statefulset", self.name, "-n", self.namespace)

    def pod_url(self, pod: str, port: int = CLIENT_PORT) -> str:
        """Where one node answers: its own DNS name."""
        return f"http://{pod}.{self.name}-peers.{self.namespace}.svc:{port}"

    def node_status(self, pod: str) -> JsonObject:
        """What a node says of itself.

        Raises:
            NotYetError: it does not answer.
        """
        answer = self.client.request("GET", f"{self.pod_url(pod)}/v1/status", timeout_seconds=2)
        if answer.status != 200:
            raise NotYetError(f"{pod} answers {answer.status} {answer.body[:100]}")
        status: JsonObject = json.loads(answer.body)
        return status

    def node_cluster(self, pod: str) -> JsonObject:
        """The configuration as a node knows it.

        Raises:
            NotYetError: it does not answer.
        """
        answer = self.client.request("GET", f"{self.pod_url(pod)}/v1/cluster", timeout_seconds=2)
        if answer.status != 200:
            raise NotYetError(f"{pod} answers {answer.status} {answer.body[:100]}")
        found: JsonObject = json.loads(answer.body)
        return found

    def leader(self) -> str:
        """The pod that leads, as most nodes say."""

        def require_leader() -> str:
            statuses = [self.node_status(pod["metadata"]["name"]) for pod in self.pods()]
            return _agreed_leader(statuses)

        return wait_until(f"{self.name} has a leader", require_leader, seconds=20)

    def wait_settled(self, *, seconds: float = 60) -> None:
        """Wait until all pods are Ready members of one cluster with one leader, and reported so."""

        def require_settled() -> None:
            pods = self.pods()
            wanted = int(self.object()["spec"]["replicas"])
            ready = [pod["metadata"]["name"] for pod in pods if is_ready(pod)]
            if len(ready) != wanted or len(pods) != wanted:
                raise NotYetError(f"{len(ready)} of {wanted} pods are ready")
            statuses = [self.node_status(name) for name in ready]
            leader = _agreed_leader(statuses, wanted)
            cluster_ids = {status["cluster_id"] for status in statuses}
            if len(cluster_ids) != 1 or None in cluster_ids:
                raise E2EError(f"the nodes of {self.name} know the clusters {cluster_ids}")
            if any(status["state"] != "running" for status in statuses):
                raise NotYetError(f"states {[status['state'] for status in statuses]}")
            reported = self.status()
            seen = (reported.get("leader"), reported.get("readyReplicas"))
            if seen != (leader, wanted):
                raise NotYetError(f"the status says leader and ready {seen}, the nodes {leader}")

        wait_until(f"{self.name} is settled", require_settled, seconds=seconds)
        self.wait_condition("Available", "True", seconds=20)

    def lose_volume(self, pod: str) -> None:
        """Delete a pod together with its claim; both come back, empty."""
        claim = f"data-{pod}"
        old = self.kubectl.get("pvc", claim, "-n", self.namespace)["metadata"]["uid"]
        self.kubectl("delete", "pvc", claim, "-n", self.namespace, "--wait=false")
        self.kubectl.delete("pod", pod, "-n", self.namespace, seconds=90)

        def require_new_claim() -> None:
            found = self.kubectl.find("pvc", claim, "-n", self.namespace)
            if found is None or found["metadata"]["uid"] == old:
                raise NotYetError("the old claim is still there" if found else "no claim")

        wait_until(f"a new claim for {pod}", require_new_claim, seconds=60)

    def _require_no_pods(self) -> None:
        names = [pod["metadata"]["name"] for pod in self.pods()]
        if names:
            raise NotYetError(", ".join(names))

    # ---- data -------------------------------------------------------------------------------

    def put(self, key: str, value: str) -> None:
        """Write through the client Service, from the client pod."""
        answer = self._request("PUT", key, value)
        if answer.status not in (200, 201):
            raise E2EError(f"PUT {key}: {answer.status} {answer.body}")

    def get(self, key: str) -> str | None:
        """Read through the client Service; None when there is no such key."""
        answer = self._request("GET", key)
        if answer.status == 404 and "x-raftkv-revision" in answer.headers:
            return None
        if answer.status != 200:
            raise E2EError(f"GET {key}: {answer.status} {answer.body}")
        return answer.body

    def _request(self, method: str, key: str, body: str = "") -> Answer:
        """Ask the Service; each machine learns of a new one or of its new pods a moment later."""

        def require_connection() -> Answer:
            answer = self.client.request(method, f"{self.endpoint}/v1/kv/{key}", body)
            if answer.status == 0 and "ConnectionRefused" in answer.body:
                raise NotYetError(answer.body)
            return answer

        return wait_until(f"{self.endpoint} accepts connections", require_connection, seconds=5)


def is_ready(pod: JsonObject) -> bool:
    """Whether the pod is Ready and not on its way out."""
    conditions = pod["status"].get("conditions", [])
    return "deletionTimestamp" not in pod["metadata"] and any(
        entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions
    )


def restart_count(pod: JsonObject) -> int:
    """How often the pod's containers were started again."""
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))


def _agreed_leader(statuses: Sequence[JsonObject], wanted: int | None = None) -> str:
    """The name of the one leader that ``wanted`` nodes, or else a majority, speak of."""
    leaders = [status["name"] for status in statuses if status["role"] == "leader"]
    names = [status["leader_name"] for status in statuses]
    for leader in leaders:
        if names.count(leader) >= (wanted or len(statuses) // 2 + 1):
            return str(leader)
    raise NotYetError(f"roles {[status['role'] for status in statuses]}, leaders named {names}")
