"""The client pod from outside: single requests and loads, made inside the cluster.

Owns the pod and the ConfigMap with its code. Called by the scenarios through `Suite`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.e2e.kubectl import E2EError, JsonObject, Kubectl, NotYetError, wait_until
from tests.e2e.pods.client_pod import PORT, LoadResult

_ROOT = Path(__file__).parents[2]
_MODULES = (
    "tests/e2e/pods/client_pod.py",
    "tests/e2e/pods/workload.py",
    "tests/linearizability/history.py",
)
_NAME = "client"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the pod got; header names in lower case. ``status`` 0: no answer, the body says why."""

    status: int
    headers: Mapping[str, str]
    body: str

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Client:
    """The pod that is RaftKV's client."""

    def __init__(self, kubectl: Kubectl, namespace: str, image: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace
        self._image = image

    def start(self) -> None:
        """Create the pod and wait until it answers."""
        self._kubectl.apply(*_objects(self._namespace, self._image))
        wait_until("the client pod runs", self._require_ready, seconds=60)

    def _require_ready(self) -> None:
        pod = self._kubectl.get("pod", _NAME, "-n", self._namespace)
        statuses = pod["status"].get("containerStatuses", [])
        if not all(status["ready"] for status in statuses) or not statuses:
            raise NotYetError(pod["status"].get("phase", "no status"))

    def request(
        self,
        method: str,
        url: str,
        body: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = 10,
    ) -> Answer:
        """One request from inside the cluster."""
        asked = {
            "method": method,
            "url": url,
            "body": body,
            "headers": dict(headers or {}),
            "timeout_seconds": timeout_seconds,
        }
        return Answer(**json.loads(self._post("request", asked)))

    @property
    def namespace(self) -> str:
        """Where the pod is."""
        return self._namespace

    def start_load(self, endpoint: str, prefix: str, *, is_patient: bool = False) -> None:
        """Start a load and wait until its writes are acknowledged."""
        asked = {"endpoint": endpoint, "prefix": prefix, "is_patient": is_patient}
        self._post("load", asked)
        self.wait_for_writes(20)

    def wait_for_writes(self, count: int, seconds: float = 30) -> None:
        """Wait until ``count`` more writes of the load were acknowledged."""
        goal = self._acknowledged() + count

        def require_writes() -> None:
            progress = self._progress()
            if progress["acknowledged"] < goal:
                missing = goal - progress["acknowledged"]
                raise NotYetError(f"{missing} are missing; failures so far: {progress['failures']}")

        wait_until(f"{count} acknowledged writes", require_writes, seconds=seconds)

    def stop_load(self) -> LoadResult:
        """End the load and fetch what happened.

        Raises:
            E2EError: some key could not be read any more.
        """
        result = msgspec.json.decode(self._post("load/stop", {}), type=LoadResult)
        if not result.is_read_back:
            raise E2EError(f"the keys could not be read after the load: {result.failures}")
        return result

    def _acknowledged(self) -> int:
        return int(self._progress()["acknowledged"])

    def _progress(self) -> JsonObject:
        progress: JsonObject = json.loads(self._kubectl("get", "--raw", self._path("load")))
        return progress

    def _post(self, path: str, value: JsonObject) -> str:
        stdin = json.dumps(value)
        return self._kubectl("create", "--raw", self._path(path), "-f", "-", stdin=stdin)

    def _path(self, path: str) -> str:
        pod = f"http:{_NAME}:{PORT}"
        return f"/api/v1/namespaces/{self._namespace}/pods/{pod}/proxy/{path}"


def _objects(namespace: str, image: str) -> tuple[JsonObject, JsonObject]:
    """The pod, fit for Pod Security `restricted`, and its code under the modules' own names."""
    keys = {path.replace("/", "."): path for path in _MODULES}
    code = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _NAME, "namespace": namespace},
        "data": {key: (_ROOT / path).read_text() for key, path in keys.items()},
    }
    container = {
        "name": "client",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "tests.e2e.pods.client_pod"],
        "workingDir": "/code",
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "code", "mountPath": "/code"}],
    }
    files = [{"key": key, "path": path} for key, path in keys.items()]
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "code", "configMap": {"name": _NAME, "items": files}}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _NAME, "namespace": namespace},
        "spec": spec,
    }
    return code, pod
