"""A client inside the cluster, told over HTTP what to ask of RaftKV.

The harness reaches it through the API server's pod proxy, so a call of it survives nothing less
than the pod itself. `POST /request` makes one request; `POST /load` starts a load, `GET /load`
says how it goes, `POST /load/mark` notes a moment, `POST /load/stop` ends it and answers with the
whole history. Every machine has one; their loads are judged as one where they have one clock.
"""

import time
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from tests.e2e.pods.workload import Settings, Workload
from tests.linearizability.history import Operation

PORT = 8080
_LOAD = web.AppKey("load", dict[str, Workload])
_READ_BACK_SECONDS = 40.0


class LoadResult(msgspec.Struct, frozen=True):
    """What a load did and saw. ``is_read_back``: every key could be read in the end."""

    is_read_back: bool
    seconds: float
    sent: int
    failed: int
    retried: int
    reconnected: int
    clock: str  # pods that name the same one have the same monotonic clock
    started_ns: int
    stopped_ns: int
    acknowledged_ns: list[int]  # when writes were acknowledged
    marks_ns: list[int]  # when `POST /load/mark` came
    failures: dict[str, int]
    refusals: dict[str, int]
    history: list[Operation]


async def make_request(request: web.Request) -> web.Response:
    """One request with a body of Latin-1 text; any answer is a success here."""
    asked = await request.json()
    timeout = aiohttp.ClientTimeout(total=asked.get("timeout_seconds", 10))
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(
                asked["method"],
                asked["url"],
                headers=asked.get("headers"),
                data=asked.get("body", "").encode("latin-1") or None,
            ) as response,
        ):
            body = (await response.read()).decode("latin-1")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return web.json_response({"status": response.status, "headers": headers, "body": body})
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return web.json_response({"status": 0, "headers": {}, "body": repr(error)})


async def start_load(request: web.Request) -> web.Response:
    """Start the only load."""
    loads = request.app[_LOAD]
    if "current" in loads:
        return web.json_response({"error": "a load is running"}, status=409)
    loads["current"] = Workload(Settings(**await request.json()))
    loads["current"].start()
    return web.json_response({})


async def show_load(request: web.Request) -> web.Response:
    """How many writes have been acknowledged so far, and how long ago the last one was."""
    load = request.app[_LOAD]["current"]
    return web.json_response(
        {
            "acknowledged": len(load.acknowledged_ns),
            "failures": load.failures,
        }
    )


async def show_clock(_: web.Request) -> web.Response:
    """Which monotonic clock this is."""
    return web.Response(text=_clock())


async def mark_load(request: web.Request) -> web.Response:
    """Note this moment."""
    request.app[_LOAD]["current"].marks_ns.append(time.monotonic_ns())
    return web.json_response({})


async def stop_load(request: web.Request) -> web.Response:
    """End the load, read all keys back, and hand over what happened."""
    load = request.app[_LOAD].pop("current")
    is_read_back = await load.finish(_READ_BACK_SECONDS)
    result = LoadResult(
        is_read_back=is_read_back,
        seconds=(load.stopped_ns - load.started_ns) / 1e9,
        sent=load.sent_count,
        failed=load.failed_count,
        retried=load.retried_count,
        reconnected=load.reconnected_count,
        clock=_clock(),
        started_ns=load.started_ns,
        stopped_ns=load.stopped_ns,
        acknowledged_ns=load.acknowledged_ns,
        marks_ns=load.marks_ns,
        failures=dict(load.failures),
        refusals=dict(load.refusals),
        history=load.history,
    )
    return web.Response(body=msgspec.json.encode(result), content_type="application/json")


def _clock() -> str:
    """The kernel's start and the time namespace: together they say which clock this is."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/time').readlink()}"


def build_app() -> web.Application:
    """The application of the client pod."""
    app = web.Application()
    app[_LOAD] = {}
    app.router.add_get("/healthz", _healthz)
    app.router.add_post("/request", make_request)
    app.router.add_post("/load", start_load)
    app.router.add_get("/clock", show_clock)
    app.router.add_get("/load", show_load)
    app.router.add_post("/load/mark", mark_load)
    app.router.add_post("/load/stop", stop_load)
    return app


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


if __name__ == "__main__":
    web.run_app(build_app(), port=PORT, access_log=None)
