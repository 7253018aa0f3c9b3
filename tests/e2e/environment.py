"""Which Kubernetes to test on, and the image in it.

With `KUBECONFIG` that cluster is used as it is; without it a `kind` cluster is made and, in the
end, deleted. `E2E_BUILD` is a shell command, run in the repository, that builds the image `$IMAGE`
and makes it known to the cluster; `kind` has a default for it, and without either the image must
be there already. `E2E_NODE_STOP` and `E2E_NODE_START` power the machine `$NODE` off and on.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


def machine_commands() -> tuple[str, str] | None:
    """Shell commands that power the machine `$NODE` off and on; None: it cannot be done here."""
    stop, start = os.environ.get("E2E_NODE_STOP"), os.environ.get("E2E_NODE_START")
    return (stop, start) if stop and start else None


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
