"""What the scenarios share: namespaces, the operator, the client pod and the cluster `demo`.

Everything is made when first needed, so that any scenario can run alone, and taken away by
`close`. Namespaces of their own: the clusters under test (Pod Security `restricted`), the clients,
the operator, the agents (`privileged`). A Kubernetes with RaftKV of its own is refused and left
alone.
"""

from collections.abc import Collection
from functools import cached_property

from tests.e2e.client import Client
from tests.e2e.kubectl import E2EError, JsonObject, Kubectl
from tests.e2e.load import Load, judge
from tests.e2e.node_agent import NodeAgent
from tests.e2e.operator_install import CRD, OperatorInstall
from tests.e2e.operator_install import NAMESPACE as OPERATOR_NAMESPACE
from tests.e2e.raft_cluster import RaftCluster
from tests.e2e.report import Row

CLUSTERS_NAMESPACE = "raftkv-e2e"
CLIENT_NAMESPACE = "raftkv-e2e-client"
AGENT_NAMESPACE = "raftkv-e2e-agent"
LOST_NAMESPACE = "raftkv-e2e-lost"  # deleted by a scenario
SECOND_NAMESPACE = "raftkv-e2e-second"  # of a second operator
_NAMESPACES = {
    CLUSTERS_NAMESPACE: "restricted",
    CLIENT_NAMESPACE: "restricted",
    LOST_NAMESPACE: "restricted",
    SECOND_NAMESPACE: "restricted",
    AGENT_NAMESPACE: "privileged",
    OPERATOR_NAMESPACE: "restricted",
}
_MARK = "raftkv.io/e2e"
_SETTLE_SECONDS = 120.0
_SHARED_SPEC: JsonObject = {
    "replicas": 3,
    "paused": False,
    "imagePullPolicy": "IfNotPresent",
    "storage": {"whenScaled": "Retain", "whenDeleted": "Retain"},
    "nodeFailure": {"replaceAfter": None},
    "networkPolicy": {"enabled": True, "clientFrom": [], "metricsFrom": []},
    "podDisruptionBudget": {"enabled": True},
    "monitoring": {"podMonitor": False},
}


class Suite:
    """Everything under test on one Kubernetes."""

    def __init__(self, kubectl: Kubectl, image: str) -> None:
        self.kubectl = kubectl
        self.image = image
        self.operator = OperatorInstall(kubectl, image)
        self.row = Row("", "")  # of the running scenario
        self._is_operator_installed = False

    # ---- life ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Refuse a Kubernetes that is in use, and clear what an earlier run left.

        Raises:
            E2EError: RaftKV is installed here, and not by these tests.
        """
        for name in _NAMESPACES:
            found = self.kubectl.find("namespace", name)
            if found is not None and _MARK not in (found["metadata"].get("labels") or {}):
                raise E2EError(f"the namespace {name} exists and is not of these tests")
        if self.kubectl.find("crd", CRD) is not None:
            used = {
                item["metadata"]["namespace"]
                for item in self.kubectl.items("raftkvclusters", "--all-namespaces")
            }
            if used - _NAMESPACES.keys():
                raise E2EError(f"this Kubernetes has RaftKVClusters of its own, in {sorted(used)}")
        self.close()

    def close(self) -> None:
        """Take everything away again. Bounded: a namespace that hangs is an error."""
        self.operator.uninstall_chart()
        for name in _NAMESPACES:
            self.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
        for name in _NAMESPACES:
            self.kubectl.delete("namespace", name, seconds=120)
        self.kubectl.delete("crd", CRD)
        self.kubectl.delete(
            "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/name=raftkv-operator"
        )
        self._is_operator_installed = False

    # ---- what scenarios need ------------------------------------------------------------------

    def create_namespace(self, name: str) -> None:
        """Create or keep a namespace with its Pod Security level."""
        level = _NAMESPACES[name]
        labels = {_MARK: "true", "pod-security.kubernetes.io/enforce": level}
        namespace: JsonObject = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
        }
        self.kubectl.apply(namespace)

    @cached_property
    def client(self) -> Client:
        """The running client pod."""
        self.create_namespace(CLIENT_NAMESPACE)
        client = Client(self.kubectl, CLIENT_NAMESPACE, self.image)
        client.start()
        return client

    @cached_property
    def agent(self) -> NodeAgent:
        """The running agents."""
        self.create_namespace(AGENT_NAMESPACE)
        agent = NodeAgent(self.kubectl, AGENT_NAMESPACE, self.image)
        agent.start()
        return agent

    def cluster(self, name: str, namespace: str = CLUSTERS_NAMESPACE) -> RaftCluster:
        """A cluster under test; not created by this."""
        self.create_namespace(namespace)
        return RaftCluster(self.kubectl, self.client, namespace, name, self.image)

    def need_operator(self) -> None:
        """Install the chart unless it is installed."""
        if not self._is_operator_installed:
            self.create_namespace(OPERATOR_NAMESPACE)
            self.operator.install_chart()
            self._is_operator_installed = True

    def uninstall_operator(self) -> None:
        """Uninstall the chart; the CRD and the clusters stay."""
        self.operator.uninstall_chart()
        self._is_operator_installed = False

    def need_demo(self, *, is_image_kept: bool = False) -> RaftCluster:
        """The cluster `demo`, settled, as the scenarios share it; made if need be."""
        self.need_operator()
        demo = self.cluster("demo")
        if self.kubectl.find("raftkvcluster", "demo", "-n", CLUSTERS_NAMESPACE) is None:
            demo.apply()
        else:  # an earlier scenario may have failed half-way
            demo.patch_spec(**_SHARED_SPEC)
            if not is_image_kept:
                demo.patch_spec(image=self.image)
        demo.wait_settled(seconds=_SETTLE_SECONDS)
        return demo

    # ---- load ---------------------------------------------------------------------------------

    def start_load(
        self,
        cluster: RaftCluster,
        *,
        is_patient: bool = False,
        is_silence_a_break: bool = False,
        without: Collection[str] = (),
    ) -> None:
        """Start a load on keys of this scenario's own; see `Settings` for the switches."""
        self.client.start_load(
            cluster.endpoint,
            f"{self.row.name}/{len(self.row.loads)}",
            is_patient=is_patient,
            is_silence_a_break=is_silence_a_break,
            without=without,
        )

    def stop_load(self) -> Load:
        """End the load, enter it in the table and judge its history."""
        load = self.client.stop_load()
        self.row.loads.append(load)
        judge(load)
        return load
