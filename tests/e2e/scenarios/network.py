"""Who may talk to whom, where pods are put, and what Prometheus finds."""

from collections.abc import Callable

from tests.e2e.kubectl import CommandError, E2EError, JsonObject, NotYetError, wait_until
from tests.e2e.raft_cluster import CLIENT_PORT, METRICS_PORT, RaftCluster
from tests.e2e.scenario import Scenario
from tests.e2e.scenarios.steps import machines_of, wait_changed, wait_value
from tests.e2e.suite import AGENT_NAMESPACE, CLIENT_NAMESPACE, Suite

_PEER_PORT = 7401
_ADMIN_PORT = 7403
_CONNECT_SECONDS = 2
# An enforcer learns of a policy a moment later.
_POLICY_SECONDS = 30.0
_POD_MONITORS = "podmonitors.monitoring.coreos.com"


def network_policy(suite: Suite) -> None:
    """Ports 7401 and 7403 are closed to strangers; 7400 and 7402 are, once that is asked for."""
    demo = suite.need_demo()
    ip = demo.pods()[0]["status"]["podIP"]
    by_client, by_agent = _reach_from_client(suite, ip), _reach_from_agent(suite, ip)
    for reach in (by_client, by_agent):
        _wait_open(reach, {CLIENT_PORT, METRICS_PORT}, {_PEER_PORT, _ADMIN_PORT})
    demo.patch_spec(
        networkPolicy={
            "clientFrom": [_namespace_peer(CLIENT_NAMESPACE)],
            "metricsFrom": [_namespace_peer(AGENT_NAMESPACE)],
        }
    )
    _wait_open(by_client, {CLIENT_PORT}, {METRICS_PORT, _PEER_PORT, _ADMIN_PORT})
    _wait_open(by_agent, {METRICS_PORT}, {CLIENT_PORT, _PEER_PORT, _ADMIN_PORT})
    # The members and the operator go on: a follower passes a write on, the operator sees all.
    demo.put("behind", "the policy")
    wait_changed(demo)
    demo.patch_spec(networkPolicy={"clientFrom": [], "metricsFrom": []})
    for reach in (by_client, by_agent):
        _wait_open(reach, {CLIENT_PORT, METRICS_PORT}, {_PEER_PORT, _ADMIN_PORT})


def placement(suite: Suite) -> None:
    """Three members on three machines, in a namespace that enforces `restricted`."""
    demo = suite.need_demo()
    machines = machines_of(demo)
    count = len([node for node in suite.kubectl.items("nodes") if _takes_pods(node)])
    if len(set(machines.values())) != min(count, len(machines)):
        raise E2EError(f"of {count} machines these have pods: {machines}")
    suite.row.notes.append(f"on {len(set(machines.values()))} of {count} machines")
    namespace = suite.kubectl.get("namespace", demo.namespace)
    level = namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce")
    if level != "restricted":
        raise E2EError(f"the namespace enforces {level}")
    try:
        suite.kubectl(
            "run", "root", "-n", demo.namespace, f"--image={demo.image}", "--dry-run=server"
        )
    except CommandError as error:
        if "PodSecurity" not in error.stderr:
            raise
    else:
        raise E2EError("the namespace takes any pod: nothing is shown by ours being in it")


def pod_monitor(suite: Suite) -> None:
    """Said while Kubernetes knows no PodMonitor; made as soon as it does; taken back."""
    demo = suite.need_demo()
    is_ours = suite.kubectl.find("crd", _POD_MONITORS) is None
    monitor = ("podmonitor", demo.name, "-n", demo.namespace)
    try:
        if is_ours:
            demo.patch_spec(monitoring={"podMonitor": True})
            demo.wait_condition("Degraded", "True", "PodMonitorUnknown", seconds=30)
            install_pod_monitor_crd(suite)
        demo.patch_spec(monitoring={"podMonitor": True})
        wait_until("there is a PodMonitor", lambda: suite.kubectl.get(*monitor), seconds=120)
        demo.wait_condition("Degraded", "False", seconds=60)
        found = suite.kubectl.get(*monitor)
        _require_selects(suite, demo, found)
        demo.patch_spec(monitoring={"podMonitor": False})
        wait_value("it is gone", lambda: suite.kubectl.find(*monitor), None)
    finally:
        demo.patch_spec(monitoring={"podMonitor": False})
        if is_ours:
            suite.kubectl.delete("crd", _POD_MONITORS)
    wait_changed(demo)


def install_pod_monitor_crd(suite: Suite) -> None:
    """The kind, as far as it is needed here, unless the Prometheus operator has brought it."""
    if suite.kubectl.find("crd", _POD_MONITORS) is not None:
        return
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"kind": "PodMonitor", "plural": "podmonitors", "singular": "podmonitor"}
    crd: JsonObject = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": _POD_MONITORS},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": names,
            "versions": [version],
        },
    }
    suite.kubectl.apply(crd)
    suite.kubectl("wait", "--for=condition=Established", f"crd/{_POD_MONITORS}", "--timeout=30s")


def remove_pod_monitor_crd(suite: Suite) -> None:
    """Take the kind away again."""
    suite.kubectl.delete("crd", _POD_MONITORS)


# ---- helpers --------------------------------------------------------------------------------


def _require_selects(suite: Suite, demo: RaftCluster, monitor: JsonObject) -> None:
    """What it selects are the pods, and the port that it names is the metrics port."""
    labels = monitor["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    pods = suite.kubectl.items("pods", "-n", demo.namespace, "-l", selector)
    if {pod["metadata"]["name"] for pod in pods} != set(machines_of(demo)):
        raise E2EError(f"the PodMonitor selects {selector}")
    ports = {port["name"]: port["containerPort"] for port in _ports(pods[0])}
    named = [ports.get(endpoint["port"]) for endpoint in monitor["spec"]["podMetricsEndpoints"]]
    if named != [METRICS_PORT]:
        raise E2EError(f"the PodMonitor names the ports {named}")


def _ports(pod: JsonObject) -> list[JsonObject]:
    return [port for container in pod["spec"]["containers"] for port in container["ports"]]


def _namespace_peer(namespace: str) -> JsonObject:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}


def _wait_open(reach: Callable[[int], str], opened: set[int], closed: set[int]) -> None:
    def require_open() -> None:
        seen = {port: reach(port) for port in sorted(opened | closed)}
        if {port for port, answer in seen.items() if answer == "open"} != opened:
            raise NotYetError(f"{seen}, and {sorted(opened)} should be open")

    wait_until(f"{sorted(opened)} are open, {sorted(closed)} not", require_open, seconds=30)


def _reach_from_client(suite: Suite, ip: str) -> Callable[[int], str]:
    pods = suite.kubectl.items("pods", "-n", CLIENT_NAMESPACE)
    return _reach(suite, CLIENT_NAMESPACE, pods[0]["metadata"]["name"], ip)


def _reach_from_agent(suite: Suite, ip: str) -> Callable[[int], str]:
    suite.agent  # noqa: B018 - started
    pods = suite.kubectl.items("pods", "-n", AGENT_NAMESPACE)
    return _reach(suite, AGENT_NAMESPACE, pods[0]["metadata"]["name"], ip)


def _reach(suite: Suite, namespace: str, pod: str, ip: str) -> Callable[[int], str]:
    """A connection from a pod to a port: "open", "refused" or "silent"."""
    script = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), int(sys.argv[3]))\n"
        "except TimeoutError: print('silent')\n"
        "except OSError as error: print('refused')\n"
        "else: print('open')"
    )

    def reach(port: int) -> str:
        command = ("python3", "-c", script, ip, str(port), str(_CONNECT_SECONDS))
        return suite.kubectl("exec", "-n", namespace, pod, "--", *command).strip()

    return reach


def _takes_pods(node: JsonObject) -> bool:
    taints = node["spec"].get("taints") or ()
    return not any(taint["effect"] != "PreferNoSchedule" for taint in taints)


SCENARIOS = (
    Scenario("placement", "one member on each machine, `restricted` enforced", placement),
    Scenario("network-policy", "peer and admin ports are closed to strangers", network_policy),
    Scenario("pod-monitor", "said without its kind, made with it", pod_monitor),
)
