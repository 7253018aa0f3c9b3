"""Write `docs/kubectl-day.md`: a kubectl user's day, with the real output of each command.

`python -m tests.e2e.kubectl_day` runs every command of the page on a live cluster, in the order of
the page, and writes down what it printed. Long outputs are cut where `...` stands, and nowhere
else. What the page says between the commands is in `_DAY`; run it again after a change of either.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.environment import open_cluster
from tests.e2e.kubectl import CommandError, E2EError, Kubectl, run_command
from tests.e2e.operator_install import CRD
from tests.e2e.suite import Suite

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "kubectl-day.md"
_COMMAND_SECONDS = 240.0


@dataclass(frozen=True)
class Show:
    """A command whose output is shown: all, or its lines from ``begin`` on until ``end``."""

    command: str
    begin: str = ""
    end: str = ""
    lines_max: int = 0  # 0: all
    is_tail: bool = False  # the last of them, not the first
    may_fail: bool = False


@dataclass(frozen=True)
class Watched:
    """A watch that stands while ``during`` is run, cut after it."""

    command: str
    during: str


Step = str | Show | Watched

_SETTLED = "kubectl wait rkv/demo --for=condition=Progressing=False --timeout=180s"

_DAY: tuple[Step, ...] = (
    """\
# A day with kubectl

What a RaftKVCluster looks like from the outside: every command here was run on a cluster of three
machines, and below each stands what it printed. Where lines were left out there is a line of three
dots. `python -m tests.e2e.kubectl_day` runs the whole day again and writes this page.

## Install the operator
""",
    Show(
        "helm install raftkv charts/raftkv-operator"
        " --namespace raftkv-system --create-namespace --wait"
    ),
    """\
## Create a cluster

Three members, one on each machine, each with a volume of its own.
""",
    Show("cat manifests/example-cluster.yaml"),
    Show("kubectl apply -f manifests/example-cluster.yaml"),
    Show("kubectl wait rkv/demo --for=condition=Available --timeout=120s"),
    Show("kubectl get rkv"),
    """\
TOLERANCE is how many more members may fail. Write and read it; any HTTP client will do, and the
pods have one on board.
""",
    Show("kubectl exec demo-1 -- raftkv put greeting hello"),
    Show("kubectl exec demo-2 -- raftkv get greeting"),
    """\
## Look at it

The members with their ids and roles, what is going on, and the story so far:
""",
    Show("kubectl describe rkv demo", begin="Status:"),
    """\
What the operator made for it:
""",
    Show("kubectl get pods,pvc,service,pdb,networkpolicy -l app.kubernetes.io/instance=demo"),
    """\
## Scale

One member at a time joins, catches up and votes. No request fails meanwhile.
""",
    Show("kubectl scale rkv/demo --replicas=5"),
    Show("kubectl wait rkv/demo --for=condition=Progressing --timeout=30s"),
    Show('kubectl get rkv demo -o jsonpath=\'{.status.operation}{"\\n"}{.status.plan}{"\\n"}\''),
    Show(_SETTLED),
    Show("kubectl get rkv demo"),
    """\
Back again, the highest first. The claims of the two that left are kept (`storage.whenScaled`).
""",
    Show("kubectl scale rkv/demo --replicas=3"),
    Show("kubectl wait rkv/demo --for=condition=Progressing --timeout=30s"),
    Show(_SETTLED),
    Show("kubectl get pvc"),
    """\
## Roll

A new value of `restartAt`, like a new image or a new setting, restarts one member after the
other, the leader last, after it handed leadership on. In a second terminal:
""",
    Watched(
        "kubectl get rkv demo -w",
        during='kubectl patch rkv/demo --type=merge -p \'{"spec":{"restartAt":'
        '"2026-11-21T10:00:00Z"}}\' && '
        "kubectl wait rkv/demo --for=condition=Progressing --timeout=30s && " + _SETTLED,
    ),
    """\
What was done here in the first terminal:

    kubectl patch rkv/demo --type=merge -p '{"spec":{"restartAt":"2026-11-21T10:00:00Z"}}'

## Drain a machine

The disruption budget lets one member go at a time, and only while the others are well.
""",
    Show("kubectl get pods -l app.kubernetes.io/instance=demo -o wide"),
    Show("kubectl get pdb demo"),
    Show(
        "kubectl drain $MACHINE --ignore-daemonsets --delete-emptydir-data"
        " --pod-selector=app.kubernetes.io/instance=demo"
    ),
    """\
Its volume is on that machine, so the pod waits for it, and the status says what that means:
""",
    Show("kubectl wait rkv/demo --for=condition=Degraded --timeout=60s"),
    Show("kubectl get rkv demo"),
    Show(
        'kubectl get rkv demo -o jsonpath=\'{range .status.conditions[?(@.status=="True")]}'
        '{.type}{": "}{.message}{"\\n"}{end}\''
    ),
    Show("kubectl uncordon $MACHINE"),
    Show(_SETTLED),
    Show("kubectl get rkv demo"),
    """\
## Lose a volume

Somebody deletes a claim and its pod. What comes back is empty, so it is a new member: it learns,
and takes the place of the old one in one step.
""",
    Show("kubectl delete pvc data-demo-2 --wait=false"),
    Show("kubectl delete pod demo-2"),
    Show("kubectl wait rkv/demo --for=condition=Progressing --timeout=60s"),
    Show(_SETTLED),
    Show("kubectl get events --field-selector involvedObject.name=demo,reason=MemberReplaced"),
    Show("kubectl exec demo-2 -- raftkv get greeting"),
    """\
## What cannot be right is refused
""",
    Show("kubectl scale rkv/demo --replicas=10", may_fail=True),
    Show(
        'kubectl patch rkv/demo --type=merge -p \'{"spec":{"storage":{"size":"1Mi"}}}\'',
        may_fail=True,
    ),
    """\
## Hibernate

No pods, the data kept; waking starts exactly the same members.
""",
    Show("kubectl scale rkv/demo --replicas=0"),
    Show("kubectl wait pod -l app.kubernetes.io/instance=demo --for=delete --timeout=120s"),
    Show("kubectl wait rkv/demo --for=condition=Available=False --timeout=60s"),
    Show(
        "kubectl wait rkv/demo --timeout=60s"
        " --for=jsonpath='{.status.conditions[?(@.type==\"Progressing\")].reason}'=Settled"
    ),
    Show("kubectl get rkv demo"),
    Show(
        "kubectl get rkv demo"
        ' -o jsonpath=\'{.status.conditions[?(@.type=="Available")].message}{"\\n"}\''
    ),
    Show("kubectl scale rkv/demo --replicas=3"),
    Show("kubectl wait rkv/demo --for=condition=Available --timeout=120s"),
    Show("kubectl exec demo-0 -- raftkv get greeting"),
    """\
## Delete

The claims stay (`storage.whenDeleted`): applied again under the same name, the cluster finds its
data. Deleting the claims deletes the data.
""",
    Show("kubectl delete rkv demo"),
    Show("kubectl get pvc -l app.kubernetes.io/instance=demo"),
    Show("kubectl delete pvc -l app.kubernetes.io/instance=demo"),
    """\
The whole story once more, as Kubernetes keeps it for an hour (and to the second, so that what came
within one second may stand in another order):
""",
    Show(
        "kubectl get events --field-selector involvedObject.kind=RaftKVCluster"
        " --sort-by=.metadata.creationTimestamp"
        " -o custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message"
    ),
)


def main() -> int:
    """Live the day and write it down."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kubectl_day")
    parser.add_argument("--image", default="raftkv:dev")
    options = parser.parse_args()
    try:
        with open_cluster(options.image, keep=False) as kubectl:
            suite = Suite(kubectl, options.image)
            suite.open()
            try:
                _PAGE.write_text(_live(kubectl))
            finally:
                _clean(kubectl)
                suite.close()
    except E2EError as error:
        _say(f"the day ended early: {error}")
        return 1
    return 0


def _live(kubectl: Kubectl) -> str:
    parts: list[str] = []
    for step in _DAY:
        match step:
            case str():
                parts.append(step)
            case Show():
                parts.append(_block(step.command, _cut(step, _run(kubectl, step))))
            case Watched():
                parts.append(_block(step.command, _watch(kubectl, step)))
    return "\n".join(parts)


def _run(kubectl: Kubectl, step: Show) -> list[str]:
    _say(f"$ {step.command}")
    command = step.command
    if "$MACHINE" in command:
        command = command.replace("$MACHINE", _machine(kubectl))
    try:
        text = run_command(
            "sh", "-c", f"{command} 2>&1", environment=kubectl.environment, cwd=_ROOT,
            seconds=_COMMAND_SECONDS,
        )  # fmt: skip
    except CommandError as error:
        if not step.may_fail:
            raise
        text = error.stderr
    return text.rstrip().splitlines()


def _machine(kubectl: Kubectl) -> str:
    """Where a follower is; the drained one, if one is."""
    for node in kubectl.items("nodes"):
        if node["spec"].get("unschedulable"):
            return str(node["metadata"]["name"])
    leader = kubectl.get("rkv", "demo")["status"]["leader"]
    follower = "demo-0" if leader != "demo-0" else "demo-1"
    return str(kubectl.get("pod", follower)["spec"]["nodeName"])


def _watch(kubectl: Kubectl, step: Watched) -> list[str]:
    _say(f"$ {step.command}")
    with subprocess.Popen(
        shlex.split(step.command),
        env={**os.environ, **kubectl.environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            run_command(
                "sh", "-c", step.during, environment=kubectl.environment, seconds=_COMMAND_SECONDS
            )
        finally:
            process.terminate()
        assert process.stdout is not None
        return process.stdout.read().rstrip().splitlines()


def _cut(step: Show, lines: list[str]) -> list[str]:
    """The part to show; what is left out becomes a line of dots."""
    shown = lines
    if step.begin:
        at = next(number for number, line in enumerate(lines) if line.startswith(step.begin))
        shown = ["...", *lines[at:]]
    if step.lines_max and len(shown) > step.lines_max:
        if step.is_tail:
            return ["...", *shown[-step.lines_max :]]
        return [*shown[: step.lines_max], "..."]
    return shown


def _block(command: str, lines: Sequence[str]) -> str:
    """An indented block, as elsewhere in the docs."""
    return "\n".join(f"    {line}".rstrip() for line in [f"$ {command}", *lines]) + "\n"


def _clean(kubectl: Kubectl) -> None:
    """Also after a day that ended early."""
    if kubectl.find("crd", CRD) is not None:
        kubectl.delete("raftkvcluster", "demo", "-n", "default", seconds=60)
    kubectl.delete("pvc", "-n", "default", "-l", "app.kubernetes.io/instance=demo", seconds=90)
    kubectl("uncordon", *(node["metadata"]["name"] for node in kubectl.items("nodes")))


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201 - for the terminal


if __name__ == "__main__":
    sys.exit(main())
