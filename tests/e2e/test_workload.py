"""The load tells the truth: what is sent again, what stays open, what is lost."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.e2e.kubectl import E2EError
from tests.e2e.load import Load, judge
from tests.e2e.pods.client_pod import LoadResult
from tests.e2e.pods.workload import Settings, Workload
from tests.linearizability.history import Certainty, Kind, Operation

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeStore:
    """A correct store of one process, with an answer of its own for chosen requests."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[bytes, int]] = {}
        self.revision = 0
        self.requests: list[tuple[str, str]] = []
        self.override: Callable[[web.Request], web.StreamResponse | None] = lambda _: None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        body = await request.read()
        self.requests.append((request.method, body.decode()))
        overridden = self.override(request)
        return overridden if overridden is not None else self._answer(request.method, key, body)

    def _answer(self, method: str, key: str, body: bytes) -> web.Response:
        value, mod_revision = self.values.get(key, (b"", 0))
        existed = key in self.values
        if method == "GET":
            headers = {
                "X-RaftKV-Revision": str(self.revision),
                "X-RaftKV-Mod-Revision": str(mod_revision),
            }
            return web.Response(status=200 if existed else 404, body=value, headers=headers)
        if method == "DELETE":
            self.revision += existed
            self.values.pop(key, None)
        else:
            self.revision += 1
            self.values[key] = ((value if method == "POST" else b"") + body, self.revision)
        said = {"revision": self.revision, "deleted": int(existed)}
        headers = {"X-RaftKV-Revision": str(self.revision)}
        status = 200 if existed or method == "DELETE" else 201
        return web.json_response(said, status=status, headers=headers)


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/v1/kv/{key:.+}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def run_load(store: FakeStore, *, writes: int) -> Workload:
    """Run until ``writes`` writes were acknowledged, then read everything back."""
    async with serve(store.handle) as endpoint:
        load = Workload(Settings(endpoint, "t", connections=2, operations_per_second=2000))
        load.start()
        while len(load.acknowledged_ns) < writes:
            await load.progress.wait()
            load.progress.clear()
        assert await load.finish(read_seconds=10)
    return load


def result_of(load: Workload) -> Load:
    result = LoadResult(
        is_read_back=True,
        seconds=1.0,
        sent=load.sent_count,
        failed=load.failed_count,
        retried=load.retried_count,
        reconnected=0,
        clock="one",
        started_ns=load.started_ns,
        stopped_ns=load.stopped_ns,
        acknowledged_ns=load.acknowledged_ns,
        marks_ns=load.marks_ns,
        failures=dict(load.failures),
        refusals=dict(load.refusals),
        history=load.history,
    )
    return Load([result], connections=2)


async def test_a_correct_store_passes() -> None:
    store = FakeStore()
    load = await run_load(store, writes=200)
    assert load.sent_count == len(load.history) == len(store.requests)
    assert (load.failed_count, load.retried_count) == (0, 0)
    judge(result_of(load))


async def test_what_certainly_had_no_effect_is_sent_again() -> None:
    store = FakeStore()
    refused: list[str] = []

    def refuse_first_put(request: web.Request) -> web.StreamResponse | None:
        if request.method != "PUT" or refused:
            return None
        refused.append(request.path)
        return web.json_response({"code": "no_leader", "outcome": "not_committed"}, status=503)

    store.override = refuse_first_put
    load = await run_load(store, writes=20)
    dropped = [item for item in load.history if item.certainty is Certainty.NOT_COMMITTED]
    assert len(dropped) == load.retried_count == load.failed_count == 1
    again = [item for item in load.history if item.argument == dropped[0].argument]
    assert [item.certainty for item in again] == [Certainty.NOT_COMMITTED, Certainty.KNOWN]
    judge(result_of(load))


@pytest.mark.parametrize("is_broken", [True, False], ids=["broken-connection", "504-unknown"])
async def test_a_write_without_an_answer_is_sent_once_and_stays_open(is_broken: bool) -> None:
    store = FakeStore()
    lost: list[str] = []

    def lose_one_put(request: web.Request) -> web.StreamResponse | None:
        # Not the first, so that the connection is one that was kept.
        if request.method != "PUT" or lost or len(store.requests) < 20:
            return None
        lost.append(store.requests[-1][1])
        if is_broken and request.transport is not None:
            request.transport.abort()
        return web.json_response({"code": "unknown", "outcome": "unknown"}, status=504)

    store.override = lose_one_put
    load = await run_load(store, writes=60)
    assert [body for _, body in store.requests].count(lost[0]) == 1
    open_writes = [item for item in load.history if item.argument == lost[0]]
    assert [item.certainty for item in open_writes] == [Certainty.UNKNOWN]
    assert open_writes[0].return_ns is None
    assert load.retried_count == 0
    judge(result_of(load))


async def test_a_refused_request_fails_the_run() -> None:
    store = FakeStore()
    store.override = lambda request: (
        web.json_response({"code": "malformed"}, status=400) if request.method == "POST" else None
    )
    load = await run_load(store, writes=20)
    with pytest.raises(E2EError, match=r"refused: .*400 malformed"):
        judge(result_of(load))


def test_a_lost_write_is_named() -> None:
    put = Operation(0, "t/ledger/0/1", Kind.PUT, 1, 2, argument="0.1;", existed=False, revision=1)
    read = Operation(0, "t/ledger/0/1", Kind.GET, 3, 4, existed=False, revision=1)
    load = Workload(Settings("", ""), history=[put, read])
    with pytest.raises(E2EError, match=r"1 acknowledged writes are lost.*ledger/0/1"):
        judge(result_of(load))


def test_a_stale_read_is_found() -> None:
    history = [
        Operation(0, "k", Kind.PUT, 1, 2, argument="a", existed=False, revision=1),
        Operation(0, "k", Kind.PUT, 3, 4, argument="b", existed=True, revision=2),
        Operation(1, "k", Kind.GET, 5, 6, existed=True, value="a", mod_revision=1, revision=2),
    ]
    with pytest.raises(E2EError, match="contradicts itself"):
        judge(result_of(Workload(Settings("", ""), history=history)))
