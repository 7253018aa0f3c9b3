"""The client pods from outside: single requests and loads, made inside the cluster.

Owns a DaemonSet, so that each machine has a client, and the ConfigMap with its code. A single
request is made by one of them, a load by all. Called by the scenarios through `Suite`.
"""

import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tests.e2e.kubectl import E2EError, JsonObject, Kubectl, NotYetError, wait_until
from tests.e2e.load import CONNECTIONS_MIN, Load
from tests.e2e.pods.client_pod import PORT, LoadResult
from tests.e2e.pods.workload import Settings

_ROOT = Path(__file__).parents[2]
_MODULES = (
    "tests/e2e/pods/client_pod.py",
    "tests/e2e/pods/workload.py",
    "tests/linearizability/history.py",
)
_NAME = "client"
_LABELS = {"app.kubernetes.io/name": "raftkv-e2e-client"}
_SELECTOR = ",".join(f"{name}={value}" for name, value in _LABELS.items())
_OPERATIONS_PER_SECOND = 224.0  # of all pods; a little more than must be reached
_CONNECTIONS_PER_POD_MIN = 8
_CLIENTS_PER_POD = 100  # numbers set apart for each pod's connections


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
    """The pods that are RaftKV's clients."""

    def __init__(self, kubectl: Kubectl, namespace: str, image: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace
        self._image = image
        self._pods: dict[str, str] = {}  # by machine
        self._loading: list[str] = []  # the pods that make the present load
        self._connections = 0

    def start(self) -> None:
        """Create the pods and wait until they answer."""
        self._kubectl.apply(*_objects(self._namespace, self._image))
        self._pods = wait_until("the client pods run", self._require_ready, seconds=90)

    def _require_ready(self) -> dict[str, str]:
        status = self._kubectl.get("daemonset", _NAME, "-n", self._namespace).get("status", {})
        wanted = status.get("desiredNumberScheduled", 0)
        pods = self._kubectl.items("pods", "-n", self._namespace, "-l", _SELECTOR)
        ready = {
            pod["spec"]["nodeName"]: pod["metadata"]["name"]
            for pod in pods
            if all(item["ready"] for item in pod["status"].get("containerStatuses", [{"ready": 0}]))
        }
        if not wanted or len(ready) != wanted or len(pods) != wanted:
            raise NotYetError(f"{len(ready)} of {wanted}")
        return ready

    @property
    def machines(self) -> list[str]:
        """Machines with a client. The first one's makes the single requests."""
        return list(self._pods)

    def stay_away_from(self, machine: str) -> None:
        """Make no more single requests from this machine."""
        self._pods[machine] = self._pods.pop(machine)

    def wait_back(self) -> None:
        """Wait until the clients of all machines answer again."""
        pods = wait_until("the client pods run", self._require_ready, seconds=120)
        self._pods = {machine: pods[machine] for machine in self._pods if machine in pods} | pods

    def request(
        self,
        method: str,
        url: str,
        body: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = 10,
        pod: str | None = None,
    ) -> Answer:
        """One request from inside the cluster: from the first machine's client, or from ``pod``."""
        asked = {
            "method": method,
            "url": url,
            "body": body,
            "headers": dict(headers or {}),
            "timeout_seconds": timeout_seconds,
        }
        return Answer(**json.loads(self._post(pod or self._home, "request", asked)))

    @property
    def _home(self) -> str:
        return next(iter(self._pods.values()))

    @property
    def namespace(self) -> str:
        """Where the pods are."""
        return self._namespace

    def start_load(
        self,
        endpoint: str,
        prefix: str,
        *,
        is_patient: bool = False,
        is_silence_a_break: bool = False,
        without: Collection[str] = (),
    ) -> None:
        """Start a load on all machines but ``without``; wait until writes are acknowledged."""
        pods = [pod for machine, pod in self._pods.items() if machine not in without]
        # A Service leads nowhere on a machine whose rules have not followed its endpoints yet.
        for pod in pods:
            what = f"{pod} reaches {endpoint}"
            wait_until(what, partial(self._require_reachable, pod, endpoint), seconds=10)
        clocks = self._in_parallel(pods, "clock")
        is_one_clock = len(set(clocks)) == 1
        connections = max(_CONNECTIONS_PER_POD_MIN, -(-CONNECTIONS_MIN // len(pods)))
        self._loading, self._connections = pods, connections * len(pods)

        def begin(number: int) -> None:
            settings = Settings(
                endpoint,
                prefix if is_one_clock else f"{prefix}/{number}",
                connections=connections,
                operations_per_second=_OPERATIONS_PER_SECOND / len(pods),
                first_client=number * _CLIENTS_PER_POD,
                is_patient=is_patient,
                is_silence_a_break=is_silence_a_break,
            )
            self._post(pods[number], "load", asdict(settings))

        with ThreadPoolExecutor() as pool:
            list(pool.map(begin, range(len(pods))))
        self.wait_for_writes(20)

    def _require_reachable(self, pod: str, endpoint: str) -> None:
        answer = self.request("GET", f"{endpoint}/livez", timeout_seconds=2, pod=pod)
        if not answer.status:
            raise NotYetError(answer.body)

    def mark_load(self) -> None:
        """Note this moment in the running load."""
        for pod in self._loading:
            self._post(pod, "load/mark", {})

    def wait_for_writes(self, count: int, seconds: float = 30) -> None:
        """Wait until ``count`` more writes of the load were acknowledged."""
        goal = self._acknowledged() + count

        def require_writes() -> None:
            progress = self._progress()
            if progress["acknowledged"] < goal:
                missing = goal - progress["acknowledged"]
                raise NotYetError(f"{missing} are missing; failures so far: {progress['failures']}")

        wait_until(f"{count} acknowledged writes", require_writes, seconds=seconds)

    def stop_load(self) -> Load:
        """End the load and fetch what happened.

        Raises:
            E2EError: some key could not be read any more.
        """
        with ThreadPoolExecutor() as pool:
            texts = list(pool.map(lambda pod: self._post(pod, "load/stop", {}), self._loading))
        results = [msgspec.json.decode(text, type=LoadResult) for text in texts]
        for result in results:
            if not result.is_read_back:
                raise E2EError(f"the keys could not be read after the load: {result.failures}")
        return Load(results, self._connections)

    def _acknowledged(self) -> int:
        return int(self._progress()["acknowledged"])

    def _progress(self) -> JsonObject:
        """Of all pods together."""
        parts = [json.loads(text) for text in self._in_parallel(self._loading, "load")]
        return {
            "acknowledged": sum(part["acknowledged"] for part in parts),
            "failures": [part["failures"] for part in parts if part["failures"]],
        }

    def _in_parallel(self, pods: list[str], path: str) -> list[str]:
        def fetch(pod: str) -> str:
            return self._kubectl.raw("GET", self._path(pod, path))

        with ThreadPoolExecutor() as pool:
            return list(pool.map(fetch, pods))

    def _post(self, pod: str, path: str, value: JsonObject) -> str:
        return self._kubectl.raw("POST", self._path(pod, path), json.dumps(value))

    def _path(self, pod: str, path: str) -> str:
        where = f"http:{pod}:{PORT}"
        return f"/api/v1/namespaces/{self._namespace}/pods/{where}/proxy/{path}"


def _objects(namespace: str, image: str) -> tuple[JsonObject, JsonObject]:
    """The pods, fit for Pod Security `restricted`, and their code under the modules' own names."""
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
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": _NAME, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": spec},
        },
    }
    return code, daemon_set
