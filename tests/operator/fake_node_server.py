"""`FakeNodes` over HTTP, on the admin port of one loopback address for each pod."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from raftkv_operator import names
from raftkv_operator.errors import NodeError, NodeRefusedError
from raftkv_operator.node_client import BootstrapTarget
from tests.operator.fake_nodes import FakeNodes

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Server:
    """The calls that a creation and scaling up need."""

    def __init__(self, nodes: FakeNodes, ip: str) -> None:
        self._nodes = nodes
        self._ip = ip

    def build_app(self) -> web.Application:
        app = web.Application(middlewares=[_refuse])
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/cluster", self._cluster)
        app.router.add_post("/v1/cluster/bootstrap", self._bootstrap)
        app.router.add_post("/v1/cluster/members", self._add)
        app.router.add_post("/v1/cluster/members/{id}/promote", self._promote)
        return app

    async def _status(self, _request: web.Request) -> web.Response:
        return _json(await self._nodes.status(self._ip))

    async def _cluster(self, _request: web.Request) -> web.Response:
        return _json(await self._nodes.cluster(self._ip))

    async def _bootstrap(self, request: web.Request) -> web.Response:
        body = await request.json()
        members = msgspec.convert(body["members"], list[BootstrapTarget])
        await self._nodes.bootstrap(self._ip, body["cluster_id"], members)
        return _json({})

    async def _add(self, request: web.Request) -> web.Response:
        body = await request.json()
        member = msgspec.convert(body, BootstrapTarget)
        await self._nodes.add_learner(*self._meant(request), member, rejoins=body["rejoin"])
        return _json({})

    async def _promote(self, request: web.Request) -> web.Response:
        await self._nodes.promote(*self._meant(request), request.match_info["id"])
        return _json({})

    def _meant(self, request: web.Request) -> tuple[str, str, int]:
        config_index = int(request.headers["If-Match"].strip('"'))
        return self._ip, request.headers["X-RaftKV-Cluster"], config_index


@web.middleware
async def _refuse(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NodeRefusedError as error:
        problem = {"detail": str(error), "reason": error.reason}
        return web.json_response(problem, status=error.status)
    except NodeError as error:
        return web.json_response({"detail": str(error)}, status=503)


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


@asynccontextmanager
async def serving_nodes(nodes: FakeNodes, network: str, count: int) -> AsyncIterator[None]:
    """Serve the first ``count`` nodes at ``network`` + 1, 2, ..."""
    runners = []
    try:
        for number in range(1, count + 1):
            ip = f"{network}{number}"
            runner = web.AppRunner(_Server(nodes, ip).build_app(), access_log=None)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, ip, names.ADMIN_PORT).start()
        yield
    finally:
        for runner in runners:
            await runner.cleanup()
