"""Which Kubernetes to test on, and the image in it.

With `KUBECONFIG` that cluster is used as it is; without it a `kind` cluster is made and, in the
end, deleted. `E2E_BUILD` is a shell command, run in the repository, that builds the image `$IMAGE`
and makes it known to the cluster; `kind` has a default for it, and without either the image must
be there already. What no Kubernetes can be asked for comes in as shell commands, too; the
scenarios that need one say so when it is missing: `E2E_NODE_STOP` and `E2E_NODE_START` power the
machine `$NODE` off and on, `E2E_NODE_UNPLUG` and `E2E_NODE_PLUG` cut and restore its network,
`E2E_API_STOP` and `E2E_API_START` take the API server away and bring it back.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.e2e.kubectl import CommandError, E2EError, Kubectl, run_command

_ROOT = Path(__file__).parents[2]
_KIND_CLUSTER = "raftkv-e2e"
_KIND_BUILD = 'docker build -t "$IMAGE" . && kind load docker-image "$IMAGE"'
_BUILD_SECONDS = 1800


@contextmanager
def open_cluster(image: str, *, keep: bool) -> Iterator[Kubectl]:
    """A cluster with the image in it; its own one is deleted afterwards unless ``keep``.

    Raises:
        E2EError: there is none, or the image cannot be built.
    """
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if kubeconfig:
        kubectl = Kubectl(kubeconfig)
        _require_reachable(kubectl)
        _build(os.environ.get("E2E_BUILD", ""), image, kubectl)
        yield kubectl
        return
    with tempfile.TemporaryDirectory() as folder:
        kubectl = Kubectl(str(Path(folder, "kubeconfig")))
        # kind's own variable: `kind load` and the like need no --name.
        kubectl.environment["KIND_CLUSTER_NAME"] = _KIND_CLUSTER
        try:
            _create_kind_cluster(kubectl)
            _build(os.environ.get("E2E_BUILD", _KIND_BUILD), image, kubectl)
            yield kubectl
        finally:
            if keep:
                _say(f"kept: kind export kubeconfig --name {_KIND_CLUSTER}")
            else:
                _kind(kubectl, "delete", "cluster")


@dataclass(frozen=True)
class MachineCommands:
    """Shell commands about the machine `$NODE`."""

    stopping: str
    starting: str
    unplugging: str
    plugging: str

    @property
    def can_cut(self) -> bool:
        """Whether a machine's network can be cut."""
        return bool(self.unplugging and self.plugging)

    def stop(self, machine: str) -> None:
        """Power off, without warning."""
        _run_hook(self.stopping, NODE=machine)

    def start(self, machine: str) -> None:
        """Power on."""
        _run_hook(self.starting, NODE=machine)

    def unplug(self, machine: str) -> None:
        """Cut the network."""
        _run_hook(self.unplugging, NODE=machine)

    def plug(self, machine: str) -> None:
        """Restore the network."""
        _run_hook(self.plugging, NODE=machine)


def machine_commands() -> MachineCommands | None:
    """What can be done to machines here; None: nothing."""
    names = ("STOP", "START", "UNPLUG", "PLUG")
    stop, start, unplug, plug = (os.environ.get(f"E2E_NODE_{name}", "") for name in names)
    return MachineCommands(stop, start, unplug, plug) if stop and start else None


def api_commands() -> tuple[Callable[[], None], Callable[[], None]] | None:
    """Take the API server away, and bring it back; None: it cannot be done here."""
    stop, start = os.environ.get("E2E_API_STOP"), os.environ.get("E2E_API_START")
    if not stop or not start:
        return None
    return partial(_run_hook, stop), partial(_run_hook, start)


def build_image(image: str, kubectl: Kubectl) -> str | None:
    """Build the image once more under another name; None: there is no command for it."""
    is_kind = not os.environ.get("KUBECONFIG")
    command = os.environ.get("E2E_BUILD", _KIND_BUILD if is_kind else "")
    if not command:
        return None
    _build(command, image, kubectl)
    return image


def _run_hook(command: str, **variables: str) -> None:
    run_command("sh", "-c", command, environment=variables, seconds=120)


def _create_kind_cluster(kubectl: Kubectl) -> None:
    if _KIND_CLUSTER in _kind(kubectl, "get", "clusters").split():
        raise E2EError(
            f"a kind cluster {_KIND_CLUSTER} exists; another run may use it. "
            f"If none does: kind delete cluster --name {_KIND_CLUSTER}"
        )
    _say("creating a kind cluster")
    node_image = os.environ.get("KIND_NODE_IMAGE")
    image = ("--image", node_image) if node_image else ()
    _kind(kubectl, "create", "cluster", *image, "--wait", "180s", seconds=900)


def _kind(kubectl: Kubectl, *args: str, seconds: float = 60) -> str:
    try:
        return run_command("kind", *args, environment=kubectl.environment, seconds=seconds)
    except CommandError as error:
        raise E2EError(
            f"without KUBECONFIG these tests make a kind cluster, and that failed: {error}"
        ) from None


def _require_reachable(kubectl: Kubectl) -> None:
    try:
        kubectl("get", "--raw", "/readyz", seconds=20)
    except CommandError as error:
        raise E2EError(f"KUBECONFIG's cluster cannot be reached: {error.stderr}") from None


def _build(command: str, image: str, kubectl: Kubectl) -> None:
    """Run the build command, if there is one."""
    if not command:
        _say(f"E2E_BUILD is not set: {image} is taken to be in the cluster")
        return
    _say(f"building {image}: {command}")
    environment = {**kubectl.environment, "IMAGE": image}
    run_command("sh", "-c", command, environment=environment, seconds=_BUILD_SECONDS, cwd=_ROOT)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the harness reports to its terminal
