"""Readers and writers on keep-alive connections, and an honest record of what they were told.

Run by `tests.e2e.pods.client_pod` inside the cluster; the record is judged outside, by
`tests.linearizability`. All times come from the monotonic clock of this one process.

Rules: every attempt is one operation of the history. A request is sent again only when it is
certain that it had no effect (no connection came about, or the answer says `not_committed`).
A write without an answer stays open: it may have taken effect, or may still. A patient load sends
it once more under the same Idempotency-Key, which makes both one operation. Requests are due at
fixed times: what a slow answer held up is made up for, so the rate is the one that was asked for.
"""

import asyncio
import errno
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from urllib.parse import quote

import aiohttp

from tests.linearizability.history import Certainty, Kind, Operation

_LEDGER_SHARE = 10  # percent of the operations that write a key of their own, once
_CONTESTED = {Kind.GET: 40, Kind.PUT: 22, Kind.APPEND: 23, Kind.DELETE: 5}  # percent, the others
_BEHIND_MAX_SECONDS = 1.0  # what is made up for
_METHODS = {Kind.GET: "GET", Kind.PUT: "PUT", Kind.APPEND: "POST", Kind.DELETE: "DELETE"}


@dataclass(frozen=True)
class Settings:
    """What to do, and how fast. All connections together make ``operations_per_second``."""

    endpoint: str  # "http://demo.namespace.svc:7400"
    prefix: str  # of all keys, so that loads do not meet
    connections: int = 8
    keys: int = 6
    operations_per_second: float = 200
    first_client: int = 0  # loads of several pods that are judged as one have other numbers
    request_timeout_seconds: float = 7.0  # above the server's own deadline of 5 s
    retry_pause_seconds: float = 0.05
    # A request whose connection breaks is sent once more, on another one; writes then carry an
    # Idempotency-Key, so that both are one. Only a second break is a failure.
    is_patient: bool = False
    # A machine without power breaks no connection, it only falls silent. A client that gives up
    # on an answer after the timeout has met just that; a patient one then tries once more.
    is_silence_a_break: bool = False


@dataclass
class Workload:
    """One load, from `run` to `finish`."""

    settings: Settings
    history: list[Operation] = field(default_factory=list)
    sent_count: int = 0
    failed_count: int = 0  # attempts that ended with a 5xx, a broken connection or a timeout
    reconnected_count: int = 0  # sent once more after the connection broke (a patient load)
    retried_count: int = 0  # of those: sent again, since they are known to have had no effect
    acknowledged_ns: list[int] = field(default_factory=list)  # when a write was acknowledged
    marks_ns: list[int] = field(default_factory=list)  # moments that the harness asked to note
    failures: Counter[str] = field(default_factory=Counter)  # what the failed ones met
    refusals: Counter[str] = field(default_factory=Counter)  # answers that no request should get
    started_ns: int = 0
    stopped_ns: int = 0
    progress: asyncio.Event = field(default_factory=asyncio.Event)  # set by every acknowledgement
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        """Open the connections and begin."""
        self.started_ns = time.monotonic_ns()
        self._tasks = [
            asyncio.create_task(self._connection(number))
            for number in range(self.settings.connections)
        ]

    async def finish(self, read_seconds: float) -> bool:
        """End the load, then read every key once more; False: not all within the time."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        self.stopped_ns = time.monotonic_ns()
        keys = sorted({operation.key for operation in self.history})
        shares = [keys[number :: self.settings.connections] for number in range(len(self._tasks))]
        readers = [self._read_back(number, share) for number, share in enumerate(shares)]
        try:
            await asyncio.wait_for(asyncio.gather(*readers), read_seconds)
        except TimeoutError:
            return False
        return True

    async def _connection(self, number: int) -> None:
        random = Random(number)
        kinds, weights = list(_CONTESTED), list(_CONTESTED.values())
        period_seconds = self.settings.connections / self.settings.operations_per_second
        number += self.settings.first_client
        async with _session(self.settings.request_timeout_seconds) as session:
            count = 0
            due = time.monotonic()
            while not self._stopping.is_set():
                count += 1
                if random.randrange(100) < _LEDGER_SHARE:
                    kind, key = Kind.PUT, f"{self.settings.prefix}/ledger/{number}/{count}"
                else:
                    kind = random.choices(kinds, weights)[0]
                    key = f"{self.settings.prefix}/k{random.randrange(self.settings.keys)}"
                argument = f"{number}.{count};" if kind in (Kind.PUT, Kind.APPEND) else ""
                await self._until_certain(session, number, kind, key, argument)
                due = max(due + period_seconds, time.monotonic() - _BEHIND_MAX_SECONDS)
                await self._pause(due - time.monotonic())

    async def _until_certain(
        self, session: aiohttp.ClientSession, client: int, kind: Kind, key: str, argument: str
    ) -> None:
        """Send, and send again for as long as nothing can have come of it."""
        while await self._attempt(session, client, kind, key, argument):
            if self._stopping.is_set():
                return
            self.retried_count += 1
            await self._pause(self.settings.retry_pause_seconds)

    async def _read_back(self, client: int, keys: list[str]) -> None:
        client += self.settings.first_client
        async with _session(self.settings.request_timeout_seconds) as session:
            for key in keys:
                while True:
                    await self._attempt(session, client, Kind.GET, key, "")
                    last = self.history[-1]
                    if last.key == key and last.certainty is Certainty.KNOWN:
                        break
                    await asyncio.sleep(self.settings.retry_pause_seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait, or until the load ends."""
        if seconds > 0 and not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), seconds)
            except TimeoutError:
                return

    async def _attempt(
        self, session: aiohttp.ClientSession, client: int, kind: Kind, key: str, argument: str
    ) -> bool:
        """Send once and record it; whether it is worth sending again."""
        url = f"{self.settings.endpoint}/v1/kv/{quote(key)}"
        self.sent_count += 1
        call_ns = time.monotonic_ns()
        asked = Operation(client, key, kind, call_ns, argument=argument)
        try:
            status, answer_headers, body = await self._send(session, asked, url)
            return_ns = time.monotonic_ns()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return self._fail(asked, Certainty.NOT_COMMITTED, _describe(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return self._fail(asked, Certainty.UNKNOWN, _describe(error))
        answer = _read_answer(asked, status, answer_headers, body)
        if answer is None:
            return self._refused(asked, status, body)
        self.history.append(_with(asked, return_ns=return_ns, **answer))
        if kind is not Kind.GET:
            self.acknowledged_ns.append(return_ns)
            self.progress.set()
        return False

    async def _send(
        self, session: aiohttp.ClientSession, asked: Operation, url: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request, or two when the connection of the first broke and the load is patient."""
        headers = {}
        if self.settings.is_patient and asked.kind is not Kind.GET:
            headers["Idempotency-Key"] = f"{asked.client}-{asked.call_ns}-{self.settings.prefix}"
        for is_last in (not self.settings.is_patient, True):
            try:
                async with session.request(
                    _METHODS[asked.kind],
                    url,
                    params={"op": "append"} if asked.kind is Kind.APPEND else None,
                    data=asked.argument.encode() if asked.argument else None,
                    headers=headers,
                ) as response:
                    return response.status, response.headers, await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if is_last or not self._is_break(error):
                    raise
                self.reconnected_count += 1
        raise AssertionError("the last attempt returns or raises")

    def _is_break(self, error: Exception) -> bool:
        """Whether the connection broke; an answer that is only late does not break it."""
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return True
        if isinstance(error, TimeoutError):
            return self.settings.is_silence_a_break
        return isinstance(
            error, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError)
        )

    def _refused(self, asked: Operation, status: int, body: bytes) -> bool:
        problem = _parse_object(body)
        text = f"{status} {problem.get('code', body[:80].decode('latin-1'))}"
        is_certain = problem.get("outcome") == "not_committed"
        if status < 500 and status != 429:
            self.refusals[text] += 1
        return self._fail(asked, Certainty.NOT_COMMITTED if is_certain else Certainty.UNKNOWN, text)

    def _fail(self, asked: Operation, certainty: Certainty, text: str) -> bool:
        self.failed_count += 1
        self.failures[f"{asked.kind.value}: {text}"] += 1
        self.history.append(_with(asked, certainty=certainty))
        return asked.kind is Kind.GET or certainty is Certainty.NOT_COMMITTED


def _session(timeout_seconds: float) -> aiohttp.ClientSession:
    """One connection, kept alive."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=60),
        timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=2),
    )
    # A PUT or DELETE on a kept connection that breaks would silently be sent twice: an effect
    # that the history does not know. aiohttp has no public switch; its test client does the same.
    session._retry_connection = False
    return session


def _read_answer(
    asked: Operation, status: int, headers: Mapping[str, str], body: bytes
) -> dict[str, object] | None:
    """What a successful answer says, as fields of the operation; None for all others."""
    revision = headers.get("X-RaftKV-Revision")
    if revision is None:
        return None
    seen: dict[str, object] = {"revision": int(revision)}
    if asked.kind is Kind.GET:
        if status == 404:
            return {**seen, "existed": False}
        if status == 200:
            mod_revision = int(headers["X-RaftKV-Mod-Revision"])
            value = body.decode("latin-1")
            return {**seen, "existed": True, "value": value, "mod_revision": mod_revision}
        return None
    if status not in (200, 201):
        return None
    said = _parse_object(body)
    seen["revision"] = said["revision"]
    is_delete = asked.kind is Kind.DELETE
    return {**seen, "existed": said["deleted"] == 1 if is_delete else status == 200}


def _parse_object(body: bytes) -> dict[str, object]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _with(operation: Operation, **changes: object) -> Operation:
    values = {name: getattr(operation, name) for name in operation.__struct_fields__}
    return Operation(**(values | changes))


def _describe(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    name = errno.errorcode.get(number) if isinstance(number, int) else None
    return f"{type(error).__name__} {name}" if name else type(error).__name__
