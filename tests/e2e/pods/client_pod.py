"""A client inside the cluster, told over HTTP what to ask of RaftKV.

The harness reaches it through the API server's pod proxy, so a call of it survives nothing less
than the pod itself. `POST /request` makes one request; `POST /load` starts a load, `GET /load`
says how it goes, `POST /load/stop` ends it and answers with the whole history.
"""

import time
from itertools import pairwise

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
    longest_gap_seconds: float  # between two acknowledged writes of any connection
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
    last_ns = load.acknowledged_ns[-1] if load.acknowledged_ns else load.started_ns
    return web.json_response(
        {
            "acknowledged": len(load.acknowledged_ns),
            "silent_seconds": (time.monotonic_ns() - last_ns) / 1e9,
            "failures": load.failures,
        }
    )


async def stop_load(request: web.Request) -> web.Response:
    """End the load, read all keys back, and hand over what happened."""
    load = request.app[_LOAD].pop("current")
    is_read_back = await load.finish(_READ_BACK_SECONDS)
    times = [load.started_ns, *sorted(load.acknowledged_ns), load.stopped_ns]
    gaps_ns = [later - earlier for earlier, later in pairwise(times)]
    result = LoadResult(
        is_read_back=is_read_back,
        seconds=(load.stopped_ns - load.started_ns) / 1e9,
        sent=load.sent_count,
        failed=load.failed_count,
        retried=load.retried_count,
        reconnected=load.reconnected_count,
        longest_gap_seconds=max(gaps_ns) / 1e9,
        failures=dict(load.failures),
        refusals=dict(load.refusals),
        history=load.history,
    )
    return web.Response(body=msgspec.json.encode(result), content_type="application/json")


def build_app() -> web.Application:
    """The application of the client pod."""
    app = web.Application()
    app[_LOAD] = {}
    app.router.add_get("/healthz", _healthz)
    app.router.add_post("/request", make_request)
    app.router.add_post("/load", start_load)
    app.router.add_get("/load", show_load)
    app.router.add_post("/load/stop", stop_load)
    return app


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


if __name__ == "__main__":
    web.run_app(build_app(), port=PORT, access_log=None)
