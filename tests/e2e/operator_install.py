"""Ways to install the operator, and to make it die at a named point.

Called by `Suite`. The two ways are those of the README: the Helm chart and the plain manifest.
"""

from pathlib import Path

from tests.e2e.kubectl import JsonObject, Kubectl, NotYetError, run_command, wait_until
from tests.e2e.raft_cluster import is_ready, restart_count

_ROOT = Path(__file__).parents[2]
_RELEASE = "raftkv"
_SECOND_RELEASE = "second"
_MANIFEST = _ROOT / "manifests" / "install.yaml"
_CRASH_AT = "RAFTKV_OPERATOR_CRASH_AT"

CRD = "raftkvclusters.raftkv.io"
NAMESPACE = "raftkv-system"
EXAMPLE = _ROOT / "manifests" / "example-cluster.yaml"


class OperatorInstall:
    """The operator in its namespace, which must exist for Helm."""

    def __init__(self, kubectl: Kubectl, image: str) -> None:
        self._kubectl = kubectl
        self._image = image

    def install_chart(self) -> None:
        """`helm install`, and wait until the operator runs."""
        self._install(_RELEASE, NAMESPACE)
        self.wait_running()

    def uninstall_chart(self) -> None:
        """`helm uninstall`; the CRD and the clusters stay."""
        self._helm("uninstall", _RELEASE, "--ignore-not-found", "--wait", "--timeout=60s")
        wait_until("the operator is gone", self._require_gone, seconds=60)

    def install_second(self, namespace: str) -> None:
        """One more release, by mistake; its Lease is another one."""
        self._install(_SECOND_RELEASE, namespace, "--set", "crds.install=false")

    def uninstall_second(self, namespace: str) -> None:
        """Take it away again."""
        self._helm(
            "uninstall", _SECOND_RELEASE, "--ignore-not-found", "--wait", "--timeout=60s",
            namespace=namespace,
        )  # fmt: skip

    def apply_manifest(self) -> None:
        """`kubectl apply` of the rendered manifest, and wait until the operator runs."""
        text = _MANIFEST.read_text().replace("raftkv:dev", self._image)
        self._kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
        self.wait_running()

    def delete_manifest(self) -> None:
        """Delete what `apply_manifest` made, its namespace and the CRD included."""
        self._kubectl(
            "delete", "--ignore-not-found", "--timeout=90s", "-f", str(_MANIFEST), seconds=100
        )

    def wait_running(self) -> JsonObject:
        """Wait until exactly one operator pod runs and is ready."""

        def require_running() -> JsonObject:
            pods = self.pods()
            if len(pods) != 1 or not is_ready(pods[0]):
                raise NotYetError(f"{len(pods)} pods, ready: {[is_ready(pod) for pod in pods]}")
            return pods[0]

        return wait_until("the operator runs", require_running, seconds=60)

    def pods(self) -> list[JsonObject]:
        """The operator's pods."""
        return self._kubectl.items("pods", "-n", NAMESPACE, "-l", _SELECTOR)

    def log_lines(self) -> list[str]:
        """What the running operator has logged."""
        return self._kubectl(
            "logs", "-n", NAMESPACE, "-l", _SELECTOR, "--tail=-1", "--limit-bytes=50000000"
        ).splitlines()

    def arm(self, point: str) -> None:
        """Restart the operator so that it dies, as by SIGKILL, whenever it reaches ``point``.

        It may be there before it is ready, so either will do.
        """
        self._set_environment(f"{_CRASH_AT}={point}")

        def require_armed() -> None:
            pods = self.pods()
            if len(pods) != 1 or {"name": _CRASH_AT, "value": point} not in _environment(pods[0]):
                raise NotYetError(f"of {len(pods)} pods not all are armed")
            if not is_ready(pods[0]) and not restart_count(pods[0]):
                raise NotYetError("it is neither ready nor dead")

        wait_until(f"the operator is to die at {point}", require_armed, seconds=70)

    def disarm(self) -> None:
        """Restart the operator as it should be."""
        self._set_environment(f"{_CRASH_AT}-")
        self._kubectl(
            "rollout", "status", "deployment", "-n", NAMESPACE, "-l", _SELECTOR, "--timeout=60s",
            seconds=70,
        )  # fmt: skip
        self.wait_running()

    def wait_crashed(self, point: str) -> None:
        """Wait until the armed operator has died."""

        def require_crash() -> None:
            if not any(restart_count(pod) for pod in self.pods()):
                raise NotYetError("it has not died")

        wait_until(f"the operator dies at {point}", require_crash, seconds=60)

    def stop(self) -> None:
        """Stop the operator; `disarm` starts it again."""
        self.scale(0)
        wait_until("the operator is gone", self._require_gone, seconds=60)

    def scale(self, replicas: int) -> None:
        """Run so many, of which the Lease lets one act."""
        count = f"--replicas={replicas}"
        self._kubectl("scale", "deployment", "-n", NAMESPACE, "-l", _SELECTOR, count)

    def _set_environment(self, setting: str) -> None:
        self._kubectl("set", "env", "deployment", "-n", NAMESPACE, "-l", _SELECTOR, setting)
        self.scale(1)

    def _require_gone(self) -> None:
        pods = self.pods()
        if pods:
            raise NotYetError(f"{len(pods)} pods are left")

    def _install(self, release: str, namespace: str, *options: str) -> None:
        repository, _, tag = self._image.rpartition(":")
        image = f"image.repository={repository},image.tag={tag}"
        chart = str(_ROOT / "charts" / "raftkv-operator")
        self._helm(
            "install", release, chart, "--set", image, *options, "--wait", "--timeout=90s",
            namespace=namespace,
        )  # fmt: skip

    def _helm(self, *args: str, namespace: str = NAMESPACE) -> None:
        run_command(
            "helm", *args, "-n", namespace, environment=self._kubectl.environment, seconds=120
        )


def _environment(pod: JsonObject) -> list[JsonObject]:
    variables: list[JsonObject] = pod["spec"]["containers"][0].get("env", [])
    return variables


_SELECTOR = "app.kubernetes.io/name=raftkv-operator"
