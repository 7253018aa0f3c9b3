"""`python -m benchmarks.service`: what the way through a Service adds to a put, on Kubernetes.

KUBECONFIG names the cluster; `--cluster` a RaftKVCluster that runs there, without TLS and tokens.
One client puts 256 bytes again and again: inside the leader's pod over loopback, from a pod of its
own to the leader's address, and from there to the Service, on connections that the Service spreads
over all nodes, of which those that do not lead forward to the one that does. The three ways take
turns. The result goes to `docs/benchmarks/service.json`, which `make bench` puts into the page.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.samples import percentile
from tests.e2e.kubectl import Kubectl

_ROOT: Final = Path(__file__).parent.parent
_RESULT: Final = _ROOT / "docs" / "benchmarks" / "service.json"
_SCRIPT: Final = Path(__file__).parent / "pod_puts.py"
_POD: Final = "raftkv-bench"
_PORT: Final = 7400
_CONNECTIONS: Final = 6
_PUTS: Final = 50
_LOOPBACK: Final = "loopback, in the leader's pod"
_DIRECT: Final = "from a pod to the leader's address"
_SERVICE: Final = "from a pod through the Service"
_AT_LEADER: Final = "of these, connections that reached the leader"
_FORWARDED: Final = "of these, connections that reached a follower"

_Connections = list[dict[str, Any]]


def summarise(found: dict[str, _Connections], leader: str) -> list[dict[str, object]]:
    """One entry a way: median, p99, and what the median has above that of loopback."""
    service = found[_SERVICE]
    ways = found | {
        _AT_LEADER: [each for each in service if each["node"] == leader],
        _FORWARDED: [each for each in service if each["node"] != leader],
    }
    base = percentile(_milliseconds(found[_LOOPBACK]), 0.5)
    entries: list[dict[str, object]] = []
    for way, connections in ways.items():
        ordered = _milliseconds(connections)
        if not ordered:
            continue
        middle = percentile(ordered, 0.5)
        entries.append(
            {
                "way of a PUT of 256 B, one client": way,
                "p50 ms": round(middle, 3),
                "p99 ms": round(percentile(ordered, 0.99), 3),
                "p50 above loopback, ms": round(middle - base, 3) + 0.0,  # never -0.0
                "PUTs": len(ordered),
            }
        )
    return entries


def _milliseconds(connections: Sequence[dict[str, Any]]) -> list[float]:
    return sorted(each for connection in connections for each in connection["ms"])


def _pod(image: str) -> dict[str, Any]:
    """A pod that waits, fit for Pod Security `restricted`."""
    container = {
        "name": "client",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "3600"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _POD},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


def _leader(kubectl: Kubectl, namespace: str, cluster: str) -> tuple[dict[str, Any], str]:
    """The pod that leads, and its node's name."""
    selector = f"app.kubernetes.io/instance={cluster}"
    for pod in kubectl.items("pods", "-n", namespace, "-l", selector):
        name = pod["metadata"]["name"]
        path = f"/api/v1/namespaces/{namespace}/pods/http:{name}:{_PORT}/proxy/v1/status"
        status = json.loads(kubectl("get", "--raw", path))
        if status["role"] == "leader":
            return pod, str(status["name"])
    raise click.ClickException(f"no pod with {selector} in {namespace} says that it leads")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--cluster", default="demo", show_default=True, help="Name of the RaftKVCluster.")
@click.option("--namespace", default="default", show_default=True)
@click.option("--image", help="Of the client's pod.  [default: the nodes' own]")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def main(cluster: str, namespace: str, image: str | None, rounds: int) -> None:
    """Measure a put over loopback, to a pod, and through the Service."""
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        raise click.ClickException("KUBECONFIG is not set")
    kubectl = Kubectl(kubeconfig)
    pod, name = _leader(kubectl, namespace, cluster)
    image = image or pod["spec"]["containers"][0]["image"]
    script = _SCRIPT.read_text()

    def puts(where: str, host: str) -> _Connections:
        arguments = [host, str(_PORT), str(_CONNECTIONS), str(_PUTS)]
        said = kubectl(
            *("exec", "-i", "-n", namespace, where, "--", "python3", "-", *arguments),
            stdin=script,
            seconds=120,
        )
        return list(json.loads(said))

    found: dict[str, _Connections] = {_LOOPBACK: [], _DIRECT: [], _SERVICE: []}
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(_pod(image)))
    try:
        ready = ("wait", "-n", namespace, f"pod/{_POD}", "--for=condition=Ready", "--timeout=90s")
        kubectl(*ready, seconds=100)
        for _ in range(rounds):
            found[_LOOPBACK] += puts(pod["metadata"]["name"], "127.0.0.1")
            found[_DIRECT] += puts(_POD, pod["status"]["podIP"])
            found[_SERVICE] += puts(_POD, f"{cluster}.{namespace}")
        if _leader(kubectl, namespace, cluster)[1] != name:
            sys.exit("the leader changed meanwhile: nothing was written")
    finally:
        kubectl.delete("pod", _POD, "-n", namespace)
    entries = summarise(found, name)
    _RESULT.parent.mkdir(parents=True, exist_ok=True)
    _RESULT.write_text(json.dumps(entries, indent=1) + "\n")
    for entry in entries:
        click.echo("  ".join(f"{key}: {value}" for key, value in entry.items()))


if __name__ == "__main__":
    main()
