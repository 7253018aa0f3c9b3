"""kubectl as a user runs it, and waits that end.

Called by everyone in `tests.e2e`. Knows no RaftKV. Every call has a time limit, and a failed one
raises with kubectl's own words.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.e2e.api_proxy import ApiProxy, path_of

T = TypeVar("T")
JsonObject = dict[str, Any]


class E2EError(Exception):
    """The scenario failed; the text says what was expected and what was seen."""


class CommandError(E2EError):
    """A command ended with an error. ``stderr`` is what it said."""

    def __init__(self, argv: Sequence[str], stderr: str) -> None:
        super().__init__(f"{' '.join(argv)}\n  {stderr.strip()}")
        self.stderr = stderr


class NotYetError(Exception):
    """Raised by a probe of `wait_until`: what is still missing."""


def wait_until(
    what: str, probe: Callable[[], T], *, seconds: float, interval_seconds: float = 0.5
) -> T:
    """The first result of ``probe``, which raises `NotYetError` until there is one.

    A failing command counts as "not yet" too: the API server may be away for a moment.

    Raises:
        E2EError: not within ``seconds``; names the last reason.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return probe()
        except (NotYetError, CommandError) as reason:
            if time.monotonic() > deadline:
                raise E2EError(f"{what}: not within {seconds:g} s: {reason}") from None
        time.sleep(interval_seconds)  # noqa: TID251 - a poll of a real cluster, with a deadline


def hold(seconds: float) -> None:
    """Let a state last: an outage has a length, and what must not happen needs time not to."""
    time.sleep(seconds)  # noqa: TID251 - nothing is hoped for in the meantime


def run_command(
    *argv: str,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    seconds: float = 60,
    cwd: Path | None = None,
) -> str:
    """Run a command and return its output.

    Raises:
        CommandError: it failed, is not installed, or took longer than ``seconds``.
    """
    try:
        finished = subprocess.run(
            argv,
            input=stdin,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise CommandError(argv, f"took longer than {seconds:g} s") from None
    except FileNotFoundError:
        raise CommandError(argv, f"{argv[0]} is not on the PATH") from None
    if finished.returncode:
        raise CommandError(argv, finished.stderr or finished.stdout)
    return finished.stdout


class Kubectl:
    """kubectl with one kubeconfig. Call it with arguments; the output comes back as text."""

    def __init__(self, kubeconfig: str) -> None:
        self.environment = {"KUBECONFIG": kubeconfig}
        self._proxy = ApiProxy({**os.environ, **self.environment})

    def __call__(self, *args: str, stdin: str = "", seconds: float = 60) -> str:
        return run_command(
            "kubectl", *args, environment=self.environment, stdin=stdin, seconds=seconds
        )

    def get(self, *args: str) -> JsonObject:
        """One object, or a list object when ``args`` name none.

        Raises:
            CommandError: there is no such object, for one.
        """
        path = path_of(args)
        text = self("get", *args, "-o", "json") if path is None else self.raw("GET", path)
        found: JsonObject = json.loads(text)
        return found

    def raw(self, method: str, path: str, body: str = "", *, seconds: float = 60) -> str:
        """What the API server answers for ``path``, without a kubectl of its own.

        Raises:
            CommandError: nothing came, or an error.
        """
        try:
            status, text = self._proxy.ask(method, path, body, seconds=seconds)
        except OSError as error:
            raise CommandError((method, path), repr(error)) from None
        if status >= 400:
            reason = f"{'NotFound: ' if status == 404 else ''}{status}: {text}"
            raise CommandError((method, path), reason)
        return text

    def find(self, *args: str) -> JsonObject | None:
        """One object, or None when there is none."""
        path = path_of(args)
        if path is None:
            text = self("get", *args, "-o", "json", "--ignore-not-found")
            return json.loads(text) if text.strip() else None
        try:
            found: JsonObject = json.loads(self.raw("GET", path))
        except CommandError as error:
            if error.stderr.startswith("NotFound"):
                return None
            raise
        return found

    def items(self, *args: str) -> list[JsonObject]:
        """The objects of a list."""
        items: list[JsonObject] = self.get(*args)["items"]
        return items

    def apply(self, *objects: JsonObject) -> None:
        """Create or change objects, as `kubectl apply` does."""
        stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self("apply", "-f", "-", stdin=stdin)

    def delete(self, *args: str, seconds: float = 60) -> None:
        """Delete, and wait until the objects are gone.

        Raises:
            CommandError: they are still there after ``seconds``.
        """
        limit = f"--timeout={seconds:g}s"
        self("delete", *args, "--ignore-not-found", limit, seconds=seconds + 10)

    def patch(self, kind: str, name: str, namespace: str, change: JsonObject) -> None:
        """Merge ``change`` into an object."""
        self("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(change))
