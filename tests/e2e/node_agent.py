"""Signals to containers, from a pod with the machine's process ids on every machine.

This works on any Kubernetes, with any container runtime, and without tools in the image under
test. The namespace needs Pod Security `privileged`, so it is not the one under test.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.kubectl import JsonObject, Kubectl, NotYetError, wait_until

_SCRIPT = Path(__file__).parent / "pods" / "send_signal.py"
_LABELS = {"app.kubernetes.io/name": "raftkv-e2e-agent"}


class NodeAgent:
    """The DaemonSet and what it is asked for."""

    def __init__(self, kubectl: Kubectl, namespace: str, image: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace
        self._image = image

    def start(self) -> None:
        """Create it in its namespace and wait until it runs everywhere."""
        self._kubectl.apply(_daemon_set(self._namespace, self._image))
        wait_until("the agents run", self._require_running, seconds=60)

    def _require_running(self) -> None:
        status = self._kubectl.get("daemonset", "agent", "-n", self._namespace).get("status", {})
        wanted = status.get("desiredNumberScheduled", 0)
        if not wanted or status.get("numberReady") != wanted:
            raise NotYetError(f"{status.get('numberReady', 0)} of {wanted}")

    def kill(self, *pods: JsonObject, container: str) -> None:
        """Send SIGKILL to the main process of ``container`` in each pod, all at once."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda pod: self.signal(pod, container, "SIGKILL"), pods))

    def signal(self, pod: JsonObject, container: str, signal_name: str) -> None:
        """Send a signal to the main process of ``container`` in the pod."""
        node = pod["spec"]["nodeName"]
        agents = self._kubectl.items(
            "pods", "-n", self._namespace, f"--field-selector=spec.nodeName={node}"
        )
        container_id = next(
            status["containerID"].rpartition("/")[2]
            for status in pod["status"]["containerStatuses"]
            if status["name"] == container
        )
        script = ("python3", "-c", _SCRIPT.read_text(), container_id, signal_name)
        agent = agents[0]["metadata"]["name"]
        self._kubectl("exec", "-n", self._namespace, agent, "--", *script)


def _daemon_set(namespace: str, image: str) -> JsonObject:
    container = {
        "name": "agent",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", "import signal; signal.pause()"],
        # Root, so that it may signal a process of another user.
        "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
    }
    pod = {
        "hostPID": True,
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }
