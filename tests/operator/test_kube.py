"""The connection to the API server: what is asked, and what refusals become."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes_asyncio.client import Configuration

from raftkv_operator import names
from raftkv_operator.errors import (
    ConflictError,
    ForbiddenError,
    GoneError,
    KubeError,
    NotFoundError,
    RejectedError,
)
from raftkv_operator.kube import Kube
from raftkv_operator.resources import CONFIG_MAP, POD_MONITOR, SERVICE
from tests.operator.world import World


def config_map(name: str = "a", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "data": {"key": name},
    }


async def test_apply_creates_and_then_changes_the_one_with_that_uid(world: World) -> None:
    created = await world.kube.apply(CONFIG_MAP, config_map())
    uid = created["metadata"]["uid"]
    again = await world.kube.apply(CONFIG_MAP, config_map(), live_uid=uid)
    assert again["metadata"]["uid"] == uid
    with pytest.raises(ConflictError):
        await world.kube.apply(CONFIG_MAP, config_map(), live_uid="another")


async def test_delete_only_the_one_with_that_uid_and_absence_is_success(world: World) -> None:
    created = await world.kube.apply(CONFIG_MAP, config_map())
    with pytest.raises(ConflictError):
        await world.kube.delete(CONFIG_MAP, "default", "a", uid="another")
    await world.kube.delete(CONFIG_MAP, "default", "a", uid=created["metadata"]["uid"])
    await world.kube.delete(CONFIG_MAP, "default", "a", uid=created["metadata"]["uid"])
    with pytest.raises(NotFoundError):
        await world.kube.get(CONFIG_MAP, "default", "a")


async def test_list_selects_and_completes_items(world: World) -> None:
    await world.kube.apply(CONFIG_MAP, config_map("a", mine="yes"))
    await world.kube.apply(CONFIG_MAP, config_map("b"))
    items, _ = await world.kube.list(CONFIG_MAP, "default", selector="mine=yes")
    assert [(item["kind"], item["metadata"]["name"]) for item in items] == [("ConfigMap", "a")]
    everywhere, _ = await world.kube.list(CONFIG_MAP, None)
    assert len(everywhere) == 2


async def test_watch_tells_what_came_after_the_list(world: World) -> None:
    await world.kube.apply(CONFIG_MAP, config_map("a"))
    _, since = await world.kube.list(CONFIG_MAP, "default")
    await world.kube.apply(CONFIG_MAP, config_map("b"))
    world.kubernetes.remove("configmaps", "a")
    seen = []
    async for change in world.kube.watch(CONFIG_MAP, "default", since=since):
        seen.append((change["type"], change["object"]["metadata"]["name"]))
        if len(seen) == 2:
            break
    assert seen == [("ADDED", "b"), ("DELETED", "a")]


async def test_known_kinds(world: World) -> None:
    assert await world.kube.knows(SERVICE)
    assert await world.kube.knows(names.CLUSTER_KIND)
    assert not await world.kube.knows(POD_MONITOR)


async def answering(status: int, text: str) -> tuple[TestServer, Kube]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    return server, Kube(Configuration(host=str(server.make_url("")).rstrip("/")))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedError),
        (401, ForbiddenError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, GoneError),
        (422, RejectedError),
        (429, KubeError),
        (503, KubeError),
    ],
)
async def test_refusal_keeps_the_sentence_of_the_api_server(
    status: int, kind: type[KubeError]
) -> None:
    server, kube = await answering(status, '{"message": "because", "reason": "R"}')
    async with server, kube:
        with pytest.raises(kind) as caught:
            await kube.get(CONFIG_MAP, "default", "a")
    assert (str(caught.value), caught.value.code, caught.value.reason) == ("because", status, "R")


async def test_answer_of_something_else_than_kubernetes_is_an_error_too() -> None:
    server, kube = await answering(502, "<html>bad gateway")
    async with server, kube:
        with pytest.raises(KubeError, match="bad gateway"):
            await kube.get(CONFIG_MAP, "default", "a")


async def test_watch_that_is_too_old_is_gone() -> None:
    line = '{"type": "ERROR", "object": {"code": 410, "message": "too old"}}\n'
    server, kube = await answering(200, line)
    async with server, kube:
        with pytest.raises(GoneError, match="too old"):
            async for _ in kube.watch(CONFIG_MAP, None, since="1"):
                pass


async def test_api_server_that_is_away_is_an_error() -> None:
    server, kube = await answering(200, "{}")
    await server.close()
    async with kube:
        with pytest.raises(KubeError):
            await kube.get(CONFIG_MAP, "default", "a")


async def test_every_request_is_counted_by_its_verb(world: World) -> None:
    verbs: list[str] = []
    world.kube.on_request = verbs.append
    created = await world.kube.apply(CONFIG_MAP, config_map())
    await world.kube.get(CONFIG_MAP, "default", "a")
    _, since = await world.kube.list(CONFIG_MAP, "default")
    watch = world.kube.watch(CONFIG_MAP, "default", since=since)
    await world.kube.delete(CONFIG_MAP, "default", "a", uid=created["metadata"]["uid"])
    assert (await anext(watch))["type"] == "DELETED"
    assert verbs == ["patch", "get", "get", "delete", "watch"]
