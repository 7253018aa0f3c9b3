"""What a person wants to see after a failure, collected without failing again."""

from collections.abc import Iterable

from tests.e2e.kubectl import CommandError, Kubectl

_LOG_LINES = 40


def collect(kubectl: Kubectl, cluster_namespaces: Iterable[str], operator_namespace: str) -> str:
    """The clusters, their pods and events, and the ends of all logs."""
    parts: list[str] = []
    for namespace in cluster_namespaces:
        parts += [
            _show(kubectl, "describe", "rkv", "-n", namespace),
            _show(kubectl, "get", "pods,pvc,statefulsets,services", "-n", namespace, "-o", "wide"),
            _show(kubectl, "get", "events", "-n", namespace, "--sort-by=.lastTimestamp"),
            *_logs(kubectl, namespace),
        ]
    parts += [
        _show(kubectl, "describe", "pods", "-n", operator_namespace),
        *_logs(kubectl, operator_namespace),
    ]
    return "\n".join(parts)


def _logs(kubectl: Kubectl, namespace: str) -> list[str]:
    try:
        names = kubectl("get", "pods", "-n", namespace, "-o", "name").split()
    except CommandError as error:
        return [str(error)]
    tail = f"--tail={_LOG_LINES}"
    shown = [_show(kubectl, "logs", "-n", namespace, name, tail) for name in names]
    shown += [_show(kubectl, "logs", "-n", namespace, name, tail, "--previous") for name in names]
    return shown


def _show(kubectl: Kubectl, *args: str) -> str:
    title = f"--- kubectl {' '.join(args)}"
    try:
        lines = kubectl(*args, seconds=20).splitlines()
    except CommandError as error:
        if "previous terminated container" in error.stderr:
            return ""
        return f"{title}\n{error.stderr.strip()}"
    # Events and descriptions are long; their end is what happened last.
    return "\n".join([title, *lines[-3 * _LOG_LINES :]])
