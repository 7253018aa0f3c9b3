"""The API server by plain HTTP through one `kubectl proxy`, for what is asked again and again.

A kubectl of its own for every poll costs half a second of CPU, which on a small machine is taken
from the cluster under test.
"""

import atexit
import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote

_APPS = "apis/apps/v1"
_RAFTKV = "apis/raftkv.io/v1alpha1"
_NAMESPACED = {
    "daemonset": f"{_APPS}/%s/daemonsets",
    "events": "api/v1/%s/events",
    "pod": "api/v1/%s/pods",
    "pods": "api/v1/%s/pods",
    "pvc": "api/v1/%s/persistentvolumeclaims",
    "raftkvcluster": f"{_RAFTKV}/%s/raftkvclusters",
    "raftkvclusters": f"{_RAFTKV}/%s/raftkvclusters",
    "rkv": f"{_RAFTKV}/%s/raftkvclusters",
    "service": "api/v1/%s/services",
    "statefulset": f"{_APPS}/%s/statefulsets",
}
_GLOBAL = {"node": "api/v1/nodes", "nodes": "api/v1/nodes"}


def path_of(args: Sequence[str]) -> str | None:
    """The path of what ``kubectl get`` would ask for; None: ask kubectl."""
    words: list[str] = []
    flags: dict[str, str] = {}
    rest = iter(args)
    for word in rest:
        if word in ("-n", "-l"):
            flags[word] = next(rest, "")
        elif word.startswith("-") or "/" in word:
            return None
        else:
            words.append(word)
    if not 1 <= len(words) <= 2 or (len(words) == 2 and "-l" in flags):
        return None
    path = _GLOBAL.get(words[0])
    if path is None and words[0] in _NAMESPACED and "-n" in flags:
        path = _NAMESPACED[words[0]] % f"namespaces/{flags['-n']}"
    if path is None:
        return None
    path = "/".join((f"/{path}", *words[1:]))
    return f"{path}?labelSelector={quote(flags['-l'])}" if "-l" in flags else path


class ApiProxy:
    """One `kubectl proxy`, started when it is first needed, ended with this process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        self._lock = threading.Lock()

    def ask(self, method: str, path: str, body: str = "", *, seconds: float) -> tuple[int, str]:
        """Status and body.

        Raises:
            OSError: no proxy, or no answer.
        """
        with self._lock:
            self._require()
        connection = HTTPConnection("127.0.0.1", self._port, timeout=seconds)
        try:
            connection.request(method, path, body or None)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except HTTPException as error:
            raise OSError(f"{path}: {error!r}") from None
        finally:
            connection.close()

    def _require(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._process = subprocess.Popen(
            ["kubectl", "proxy", "--port=0"],
            env={**self._environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        atexit.register(self._process.kill)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if found is None:
            raise OSError(f"kubectl proxy: {line.strip()}")
        self._port = int(found[1])
