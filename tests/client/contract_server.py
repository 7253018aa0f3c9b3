"""A small server that keeps the contract of the API, and breaks connections when told to.

It counts what is really executed, remembers outcomes by Idempotency-Key, and never lets a lease or
a lock end by itself. Values are kept in memory; there is one history for watches.
"""

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

from aiohttp import web

from raftkv.client.wire import to_bytes, to_text
from raftkv.storage.snapshots import HEADER_BYTES, encode_trailer

EPOCH = "cafe"


def backup_of(blob: bytes) -> bytes:
    """A file as nodes send it, as far as its checksum goes."""
    data = bytes(HEADER_BYTES) + blob
    return data + encode_trailer(len(blob), hashlib.blake2b(data, digest_size=32).digest())


@dataclass
class Stored:
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: str = "0"


@dataclass
class Fault:
    """What is to go wrong with one request."""

    before: bool = False  # cut the connection before anything is done
    after: bool = False  # do it, then cut the connection
    status: int = 0  # answer with this problem, and do nothing
    code: str = "no_leader"
    outcome: str = "not_committed"
    retryable: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class ProblemError(Exception):
    def __init__(self, status: int, code: str, **extra: Any) -> None:
        super().__init__(code)
        self.fault = Fault(status=status, code=code, retryable=status == 504, extra=extra)


class ContractServer:
    def __init__(self) -> None:
        self.items: dict[bytes, Stored] = {}
        self.revision = 100
        self.history: list[list[dict[str, Any]]] = []  # the events of a revision together
        self.outcomes: dict[str, tuple[tuple[object, ...], int, dict[str, Any]]] = {}
        self.executed: list[tuple[str, str]] = []  # method and raw target, in order
        self.requests: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self.leases: dict[str, str] = {}  # id -> ttl
        self.locks: dict[str, dict[str, Any]] = {}
        self.faults: Callable[[web.BaseRequest], Fault | None] = lambda _: None
        self.changed = asyncio.Event()
        self.watch_ids: list[str | None] = []  # Last-Event-ID of every watch
        self.oldest_revision = 0
        self.epoch = EPOCH
        # Cut a watch after so many events, counted anew for each; None: never.
        self.cut_after: Callable[[int], int | None] = lambda _: None
        self.members: list[dict[str, Any]] = []
        self.leader: str | None = None
        self.member_id = "00000000000000a1"
        self.backup = backup_of(b"backup " * 1000)
        self.port = 0
        self.scheme = "http"

    # ---- one request ------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        body = await request.read()
        self.bodies.append(body)
        fault = self.faults(request)
        if fault is not None and fault.before:
            self._cut(request)
        if fault is not None and fault.status:
            return self._problem(fault)
        path, _, query_text = request.raw_path.partition("?")
        query = dict(parse_qsl(query_text, keep_blank_values=True))
        if path == "/v1/watch":
            return await self._watch(request, query)
        try:
            status, answer = self._once(request, path, query, body)
        except ProblemError as problem:
            return self._problem(problem.fault)
        if fault is not None and fault.after:
            self._cut(request)
        if isinstance(answer, web.Response):
            return answer
        headers = {"X-RaftKV-Revision": str(self.revision)}
        return web.json_response(answer, status=status, headers=headers)

    def _once(
        self, request: web.BaseRequest, path: str, query: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        key = request.headers.get("Idempotency-Key")
        fence = request.headers.get("X-RaftKV-Fence", "")
        print_ = (request.method, request.raw_path, request.headers.get("If-Match"), fence, body)
        if key is not None and key in self.outcomes:
            known, status, answer = self.outcomes[key]
            if known != print_:
                raise ProblemError(422, "idempotency_mismatch")
            return status, answer
        if request.method not in ("GET", "HEAD"):
            self.executed.append((request.method, request.raw_path))
            self._check_fence(fence)
        status, answer = self._route(request, path, query, body)
        if key is not None:
            self.outcomes[key] = (print_, status, answer)
        return status, answer

    def _check_fence(self, fence: str) -> None:
        name, _, token = fence.rpartition(":")
        if fence and self.locks.get(unquote(name), {}).get("token") != int(token):
            raise ProblemError(412, "lock_lost")

    def _route(
        self, request: web.BaseRequest, path: str, query: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        parts = path.split("/")[2:]
        match request.method, parts:
            case method, ["kv", *_] if path.startswith("/v1/kv/"):
                key = unquote_to_bytes(path.removeprefix("/v1/kv/"))
                return self._key(method, key, query, body, request)
            case "GET", ["kv"]:
                return self._range(request, query)
            case "DELETE", ["kv"]:
                prefix = query.get("prefix", "").encode()
                gone = [key for key in self.items if key.startswith(prefix)]
                deleted = self._apply([(key, None) for key in gone])
                return 200, {"deleted": deleted, "revision": self.revision}
            case "POST", ["txn"]:
                return 200, self._txn(json.loads(body))
            case method, ["leases", *rest]:
                return self._lease(method, rest, body)
            case method, ["locks", *rest]:
                return self._lock(method, [unquote(part) for part in rest], query, body)
            case "GET", ["status"]:
                return 200, {"member_id": self.member_id, "name": "n1", "role": "leader"}
            case "GET", ["cluster"]:
                return 200, {"leader": self.leader, "members": self.members, "config_index": 7}
            case "GET", ["backup"]:
                return 200, web.Response(body=self.backup, headers={"X-RaftKV-Revision": "105"})
            case method, ["cluster" | "maintenance", *_]:
                asked = json.loads(body) if body else None
                return 200, {"asked": asked, "if_match": request.headers.get("If-Match")}
            case _:
                raise ProblemError(404, "unknown_path")

    # ---- keys -------------------------------------------------------------------------------

    def _key(
        self,
        method: str,
        key: bytes,
        query: dict[str, str],
        body: bytes,
        request: web.BaseRequest,
    ) -> tuple[int, Any]:
        stored = self.items.get(key)
        if method == "GET":
            return self._get(key, stored, query)
        wanted = request.headers.get("If-Match")
        if wanted is not None and (stored is None or wanted != f'"{stored.mod_revision}"'):
            raise ProblemError(412, "condition_failed")
        prev = None if stored is None else self._item(key, stored)
        extra = {"prev": prev} if query.get("prev") == "true" else {}
        if method == "DELETE":
            deleted = self._apply([(key, None)]) if stored is not None else 0
            return 200, {"deleted": deleted, "revision": self.revision, **extra}
        value = body
        if query.get("op") == "append":
            value = (b"" if stored is None else stored.value) + body
        elif query.get("op") == "increment":
            value = str(int(stored.value if stored else b"0") + int(query["by"])).encode()
        self._apply([(key, value)], query.get("lease", "0"))
        now = self.items[key]
        fields = {
            "revision": self.revision,
            "version": now.version,
            "value": value.decode(errors="replace"),
        }
        return (201 if now.version == 1 else 200), fields | extra

    def _get(
        self, key: bytes, stored: Stored | None, query: dict[str, str]
    ) -> tuple[int, web.Response]:
        headers = {"X-RaftKV-Revision": str(self.revision)}
        if int(query.get("min_revision", "0")) > self.revision:
            raise ProblemError(504, "deadline")
        if "after" in query and (stored is None or stored.mod_revision <= int(query["after"])):
            return 204, web.Response(status=204, headers=headers)
        if stored is None:
            raise ProblemError(404, "key_not_found")
        headers |= {
            "X-RaftKV-Create-Revision": str(stored.create_revision),
            "X-RaftKV-Mod-Revision": str(stored.mod_revision),
            "X-RaftKV-Version": str(stored.version),
            "X-RaftKV-Lease": stored.lease,
        }
        return 200, web.Response(body=stored.value, headers=headers)

    def _range(self, request: web.BaseRequest, query: dict[str, str]) -> tuple[int, Any]:
        prefix, start = (query.get(name, "").encode() for name in ("prefix", "start"))
        items = [
            self._item(key, stored)
            for key, stored in sorted(self.items.items())
            if key.startswith(prefix) and key >= start
        ]
        if "ndjson" in request.headers.get("Accept", ""):
            lines = "".join(json.dumps(item) + "\n" for item in items)
            revision = query.get("revision", str(self.revision))
            return 200, web.Response(
                text=lines,
                headers={"X-RaftKV-Revision": revision},
                content_type="application/x-ndjson",
            )
        skip, limit = int(query.get("cursor", "0")), int(query["limit"])
        more = str(skip + limit) if skip + limit < len(items) else None
        page = {"revision": self.revision, "items": items[skip : skip + limit], "prefixes": []}
        return 200, page | {"next_cursor": more}

    @staticmethod
    def _item(key: bytes, stored: Stored) -> dict[str, Any]:
        name, key_encoding = to_text(key)
        value, value_encoding = to_text(stored.value)
        return {
            "key": name,
            "key_encoding": key_encoding,
            "value": value,
            "value_encoding": value_encoding,
            "create_revision": stored.create_revision,
            "mod_revision": stored.mod_revision,
            "version": stored.version,
            "lease": stored.lease,
        }

    def _apply(self, changes: list[tuple[bytes, bytes | None]], lease: str = "0") -> int:
        """Store or remove (None) all of ``changes`` at one revision."""
        self.revision += 1
        events = []
        for key, value in changes:
            old = self.items.pop(key, None)
            name, encoding = to_text(key)
            event = {"key": name, "key_encoding": encoding, "mod_revision": self.revision}
            if value is not None:
                created = self.revision if old is None else old.create_revision
                version = 1 if old is None else old.version + 1
                self.items[key] = Stored(value, created, self.revision, version, lease)
                event = self._item(key, self.items[key])
            event["prev"] = None if old is None else self._item(key, old)
            events.append({"event": "delete" if value is None else "put", "data": event})
        self.history.append(events)
        self.changed.set()
        return len(changes)

    def _txn(self, asked: dict[str, Any]) -> dict[str, Any]:
        def holds(compare: dict[str, Any]) -> bool:
            stored = self.items.get(to_bytes(compare["key"], compare.get("key_encoding", "utf-8")))
            if compare["target"] == "value":
                wanted: object = to_bytes(compare["value"], compare.get("value_encoding", "utf-8"))
                is_now: object = None if stored is None else stored.value
            else:
                wanted, is_now = compare["value"], getattr(stored, compare["target"], 0)
            signs = {"=": is_now == wanted, "!=": is_now != wanted}
            return signs.get(compare["op"], isinstance(is_now, int) and is_now > int(str(wanted)))

        succeeded = all(holds(compare) for compare in asked["compare"])
        results: list[dict[str, Any]] = []
        changes: list[tuple[bytes, bytes | None]] = []
        for op in asked["success" if succeeded else "failure"]:
            key = to_bytes(op.get("key", ""), op.get("key_encoding", "utf-8"))
            stored = self.items.get(key)
            result: dict[str, Any] = {"op": op["op"]}
            match op["op"]:
                case "get":
                    result["item"] = None if stored is None else self._item(key, stored)
                case "put":
                    value = to_bytes(op["value"], op.get("value_encoding", "utf-8"))
                    changes.append((key, value))
                    result["version"] = 1 if stored is None else stored.version + 1
                case "delete":
                    result["deleted"] = int(stored is not None)
                    changes += [(key, None)] if stored is not None else []
                case "increment":
                    total = int(stored.value if stored else b"0") + op["by"]
                    changes.append((key, str(total).encode()))
                    result |= {"value": str(total), "version": 1}
                case "append":
                    earlier = [value for name, value in changes if name == key]
                    before = [b"" if stored is None else stored.value, *earlier][-1] or b""
                    suffix = to_bytes(op["value"], op.get("value_encoding", "utf-8"))
                    changes.append((key, before + suffix))
                    known = 0 if stored is None else stored.version
                    result["version"] = known + len(earlier) + 1
                case other:
                    raise ProblemError(400, f"bad op {other}")
            results.append(result)
        if changes:
            self._apply(changes)
        return {"succeeded": succeeded, "revision": self.revision, "results": results}

    # ---- leases and locks -------------------------------------------------------------------

    def _lease(self, method: str, rest: list[str], body: bytes) -> tuple[int, Any]:
        match method, rest:
            case "POST", []:
                self.revision += 1
                lease = f"{self.revision:016x}"
                self.leases[lease] = json.loads(body)["ttl"]
                return 201, {"id": lease, "ttl": self.leases[lease], "revision": self.revision}
            case "GET", []:
                listed = [
                    {"id": each, "ttl": ttl, "remaining": ttl} for each, ttl in self.leases.items()
                ]
                return 200, {"revision": self.revision, "leases": listed, "next_cursor": None}
            case _:
                pass
        lease = rest[0]
        if lease not in self.leases:
            raise ProblemError(404, "lease_not_found")
        ttl = self.leases[lease]
        keys = sorted(key for key, stored in self.items.items() if stored.lease == lease)
        fields = {"id": lease, "ttl": ttl, "remaining": ttl, "revision": self.revision}
        if method == "DELETE":
            del self.leases[lease]
            self._apply([(key, None) for key in keys])
            return 200, {"id": lease, "deleted": len(keys), "revision": self.revision}
        return 200, fields | {
            "keys": [dict(zip(("key", "key_encoding"), to_text(key), strict=True)) for key in keys]
        }

    def _lock(
        self, method: str, rest: list[str], query: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        if not rest:
            return 200, {"locks": list(self.locks.values()), "next_cursor": None}
        held = self.locks.get(rest[0])
        if method == "POST" and len(rest) == 1:
            asked = json.loads(body)
            if held is not None and held["owner"] != asked["owner"]:
                raise ProblemError(409, "lock_held")
            if held is None:
                self.revision += 1
                lease = f"{self.revision:016x}"
                held = {"name": rest[0], "token": self.revision, "lease": lease}
                held |= {"ttl": asked["ttl"], "owner": asked["owner"]}
                self.locks[rest[0]] = held
            return 200, held
        if method == "GET":
            if held is None:
                raise ProblemError(404, "lock_not_found")
            return 200, held
        if held is None or held["token"] != int(query["token"]):
            raise ProblemError(412, "lock_lost")
        if method == "DELETE":
            del self.locks[rest[0]]
        return 200, held

    # ---- watches ----------------------------------------------------------------------------

    async def _watch(self, request: web.BaseRequest, query: dict[str, str]) -> web.StreamResponse:
        last = request.headers.get("Last-Event-ID")
        self.watch_ids.append(last)
        cut_after = self.cut_after(len(self.watch_ids))
        at = int(query.get("from", str(self.revision)))
        if last is not None:
            epoch, _, number = last.rpartition(":")
            if epoch != self.epoch:
                return self._problem(Fault(status=410, code="epoch_changed", retryable=False))
            at = int(number)
        if at < self.oldest_revision:
            extra = {"oldest_revision": self.oldest_revision}
            fault = Fault(status=410, code="compacted", retryable=False, extra=extra)
            return self._problem(fault)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(self._sse("progress", {"revision": at}, f"{self.epoch}:{at}"))
        sent = 0
        while True:
            self.changed.clear()
            for revision in range(at + 1, self.revision + 1):
                events = self._events(revision, query)
                for event in events:
                    if sent == cut_after:
                        self._cut(request)
                    is_last = event is events[-1]
                    name = f"{self.epoch}:{revision}" if is_last else None
                    await response.write(self._sse(event["event"], event["data"], name))
                    sent += 1
                at = revision
            await self.changed.wait()

    def _events(self, revision: int, query: dict[str, str]) -> list[dict[str, Any]]:
        index = revision - self.revision + len(self.history) - 1
        events = self.history[index] if index >= 0 else []
        prefix = query.get("prefix")
        return [
            event
            for event in events
            if (
                event["data"]["key"] == query.get("key")
                if prefix is None
                else event["data"]["key"].startswith(prefix)
            )
        ]

    @staticmethod
    def _sse(kind: str, data: object, event_id: str | None) -> bytes:
        lines = [f"event: {kind}", f"data: {json.dumps(data)}"]
        lines += [] if event_id is None else [f"id: {event_id}"]
        return ("\n".join(lines) + "\n\n").encode()

    # ---- how it fails -----------------------------------------------------------------------

    @staticmethod
    def _cut(request: web.BaseRequest) -> None:
        assert request.transport is not None
        request.transport.abort()
        raise asyncio.CancelledError

    def _problem(self, fault: Fault) -> web.Response:
        body = {
            "detail": f"because {fault.code}",
            "code": fault.code,
            "retryable": fault.retryable,
            "outcome": fault.outcome,
        }
        headers = {"X-RaftKV-Revision": str(self.revision)} | fault.headers
        return web.json_response(body | fault.extra, status=fault.status, headers=headers)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@asynccontextmanager
async def contract_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[ContractServer]:
    served = ContractServer()
    runner = web.ServerRunner(web.Server(served.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    served.port = site.port
    served.scheme = "http" if tls is None else "https"
    try:
        yield served
    finally:
        await runner.cleanup()
