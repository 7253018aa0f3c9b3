"""Every row of the API contract on three real nodes: through the leader, and through a follower."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDictProxy
from yarl import URL

from raftkv.server.http.routes import ROUTES, Listener, Route, match_route
from tests.process.cluster import Cluster, wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

_EVERYWHERE = Listener.CLIENT | Listener.ADMIN | Listener.METRICS
STRANGER = {
    "id": "00000000000000ff",
    "name": "n9",
    "peer_url": "127.0.0.1:9",
    "client_url": "http://127.0.0.1:9",
}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        code: str = self.json["code"]
        return code


@dataclass
class Nodes:
    """A cluster, asked at its leader and at a follower in turn."""

    leader: str
    follower: str
    session: aiohttp.ClientSession
    called: set[Route] = field(default_factory=set)

    async def ask(
        self,
        base: str,
        method: str,
        target: str,
        body: bytes | dict[str, Any] | None = None,
        **headers: str,
    ) -> Answer:
        self.called.add(match_route(method, target.partition("?")[0], _EVERYWHERE).route)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        url = URL(base + target, encoded=True)
        async with self.session.request(
            method, url, data=data, headers=lines, allow_redirects=False
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    @property
    def both(self) -> tuple[str, str]:
        return self.leader, self.follower


@asynccontextmanager
async def three_nodes(directory: Path) -> AsyncIterator[Nodes]:
    timeout = aiohttp.ClientTimeout(total=30)
    async with Cluster(directory) as cluster, aiohttp.ClientSession(timeout=timeout) as session:
        leader = await cluster.wait_leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        yield Nodes(leader.url, follower.url, session)


async def test_every_row_is_served_by_leader_and_follower(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as nodes:
        for number, at in enumerate(nodes.both):
            other = nodes.both[1 - number]
            await keys(nodes, at, other)
            await ranges(nodes, at, other)
            await transactions(nodes, at)
            await leases(nodes, at, other)
            await locks(nodes, at, other)
            await once(nodes, at, other)
            await watches(nodes, at)
            await reads(nodes, at)
            await operations(nodes, at)
        await redirects(nodes)
        await drains(nodes)
        assert [route for route in ROUTES if route not in nodes.called] == []


async def keys(nodes: Nodes, at: str, other: str) -> None:
    key = f"/v1/kv/dir/{URL(at).port}%2F%FF"
    created = await nodes.ask(at, "PUT", key, b"one")
    assert (created.status, created.json["version"]) == (201, 1)
    replaced = await nodes.ask(other, "PUT", key + "?prev=true", b"two")
    assert (replaced.status, replaced.json["prev"]["value"]) == (200, "one")
    old = created.headers["ETag"]
    failed = await nodes.ask(at, "PUT", key, b"no", If_Match=old)
    assert (failed.status, failed.code) == (412, "condition_failed")
    assert failed.headers["ETag"] == replaced.headers["ETag"]
    assert (await nodes.ask(at, "PUT", key, b"no", If_None_Match="*")).status == 412
    got = await nodes.ask(at, "GET", key)
    assert (got.body, got.headers["X-RaftKV-Version"]) == (b"two", "2")
    assert (await nodes.ask(at, "HEAD", key)).headers["ETag"] == got.headers["ETag"]
    same = await nodes.ask(at, "GET", key, If_None_Match=got.headers["ETag"])
    assert (same.status, same.body) == (304, b"")
    item = await nodes.ask(at, "GET", key, Accept="application/json")
    assert (item.json["value"], item.headers["ETag"][-3:]) == ("two", '-j"')
    past = await nodes.ask(at, "GET", f"{key}?revision={created.json['revision']}")
    assert past.body == b"one"
    polled = await nodes.ask(at, "GET", f"{key}?after={created.json['revision']}&wait=1s")
    assert polled.body == b"two"
    appended = await nodes.ask(at, "POST", key + "?op=append", b"!")
    assert (appended.status, appended.json["version"]) == (200, 3)
    number = await nodes.ask(at, "POST", f"/v1/kv/n{URL(at).port}?op=increment&by=-5")
    assert (number.status, number.json["value"]) == (201, "-5")
    assert (await nodes.ask(at, "POST", key + "?op=increment")).code == "not_a_counter"
    for method, status in (("PUT", 201), ("POST", 200), ("GET", 200), ("DELETE", 200)):
        query = "?op=append" if method == "POST" else ""
        body = b"" if method in ("PUT", "POST") else None
        answer = await nodes.ask(at, method, "/v1/k/Li4" + query, body)
        assert answer.status == status, answer
    deleted = await nodes.ask(at, "DELETE", key)
    assert (deleted.status, deleted.json["deleted"]) == (200, 1)
    gone = await nodes.ask(other, "GET", key)
    assert (gone.status, gone.code) == (404, "key_not_found")
    assert gone.headers["X-RaftKV-Revision"] == str(deleted.json["revision"])
    short = await nodes.ask(at, "PUT", key + "?ttl=1s", b"soon gone")
    assert short.status == 201

    async def is_gone() -> bool | None:
        return (await nodes.ask(other, "GET", key)).status == 404 or None

    await wait_until("a key with a ttl vanishes", is_gone, 20)


async def ranges(nodes: Nodes, at: str, other: str) -> None:
    for name in ("r/a", "r/b/c", "r/d"):
        await nodes.ask(at, "PUT", f"/v1/kv/{name}", b"v")
    page = (await nodes.ask(at, "GET", "/v1/kv?prefix=r/&delimiter=/&limit=1")).json
    assert [item["key"] for item in page["items"]] == ["r/a"]
    await nodes.ask(at, "PUT", "/v1/kv/r/e", b"later")
    more = f"/v1/kv?prefix=r/&delimiter=/&cursor={page['next_cursor']}"
    rest = (await nodes.ask(other, "GET", more)).json
    assert ([each["prefix"] for each in rest["prefixes"]], len(rest["items"])) == (["r/b/"], 1)
    assert (rest["revision"], rest["next_cursor"]) == (page["revision"], None)
    down = (await nodes.ask(at, "GET", "/v1/kv?start=r/&end=r0&order=desc&keys_only=true")).json
    assert [item["key"] for item in down["items"]] == ["r/e", "r/d", "r/b/c", "r/a"]
    lines = await nodes.ask(at, "GET", "/v1/kv?prefix=r/", Accept="application/x-ndjson")
    assert len(lines.body.splitlines()) == 4
    assert (await nodes.ask(at, "GET", "/v1/kv?prefix=r/&count_only=true")).json["count"] == 4
    assert (await nodes.ask(at, "DELETE", "/v1/kv?start=r/")).code == "bad_parameter"
    assert (await nodes.ask(at, "DELETE", "/v1/kv?prefix=r/")).json["deleted"] == 4


async def transactions(nodes: Nodes, at: str) -> None:
    txn = {
        "compare": [{"key": "t", "target": "version", "op": "=", "value": 0}],
        "success": [
            {"op": "put", "key": "t", "value": "1"},
            {"op": "increment", "key": "t", "by": 2},
            {"op": "append", "key": "t2", "value": "v"},
            {"op": "get", "key": "t"},
        ],
        "failure": [{"op": "delete", "key": "t"}, {"op": "delete_range", "prefix": "t2"}],
    }
    done = (await nodes.ask(at, "POST", "/v1/txn", txn)).json
    assert (done["succeeded"], done["results"][3]["item"]["value"]) == (True, "3")
    assert {each["revision"] for each in done["results"][:3]} == {done["revision"]}
    undone = (await nodes.ask(at, "POST", "/v1/txn", txn)).json
    assert (undone["succeeded"], [each["deleted"] for each in undone["results"]]) == (False, [1, 1])
    bad = {"success": [{"op": "put", "key": "t", "value": "x"}, {"op": "increment", "key": "t"}]}
    failed = await nodes.ask(at, "POST", "/v1/txn", bad)
    assert (failed.status, failed.code) == (409, "not_a_counter")
    assert (failed.json["branch"], failed.json["op"]) == ("success", 1)
    assert (await nodes.ask(at, "GET", "/v1/kv/t")).status == 404


async def leases(nodes: Nodes, at: str, other: str) -> None:
    granted = await nodes.ask(at, "POST", "/v1/leases", {"ttl": "1m30s"})
    assert (granted.status, granted.json["ttl"]) == (201, "90s")
    one = f"/v1/leases/{granted.json['id']}"
    attached = await nodes.ask(other, "PUT", f"/v1/kv/l?lease={granted.json['id']}", b"v")
    assert attached.status == 201
    assert (await nodes.ask(at, "POST", one + "/keepalive")).json["ttl"] == "90s"
    found = (await nodes.ask(at, "GET", one)).json
    assert found["keys"] == [{"key": "l", "key_encoding": "utf-8"}]
    listed = (await nodes.ask(at, "GET", "/v1/leases?limit=1000")).json
    assert granted.json["id"] in [lease["id"] for lease in listed["leases"]]
    assert (await nodes.ask(at, "DELETE", one)).json["deleted"] == 1
    assert (await nodes.ask(other, "GET", "/v1/kv/l")).status == 404
    assert (await nodes.ask(at, "DELETE", one)).code == "lease_not_found"


async def locks(nodes: Nodes, at: str, other: str) -> None:
    lock = "/v1/locks/jobs"
    held = (await nodes.ask(at, "POST", lock, {"ttl": "1m", "owner": "a"})).json
    again = (await nodes.ask(other, "POST", lock, {"ttl": "1m", "owner": "a"})).json
    assert again["token"] == held["token"]
    refused = await nodes.ask(other, "POST", lock, {"ttl": "1m", "wait": "50ms", "owner": "b"})
    assert (refused.status, refused.code) == (409, "lock_held")
    kept = await nodes.ask(at, "POST", f"{lock}/keepalive?token={held['token']}")
    assert kept.json["ttl"] == "60s"
    fence = f"jobs:{held['token']}"
    assert (await nodes.ask(at, "PUT", "/v1/kv/f", b"v", X_RaftKV_Fence=fence)).status in (200, 201)
    waiting = asyncio.create_task(
        nodes.ask(other, "POST", lock, {"ttl": "1m", "wait": "20s", "owner": "c"})
    )

    async def is_queued() -> bool | None:
        waiters = (await nodes.ask(at, "GET", lock)).json["waiters"]
        return [each["owner"] for each in waiters] == ["c"] or None

    await wait_until("the second owner waits", is_queued, 20)
    assert (await nodes.ask(at, "DELETE", f"{lock}?token={held['token']}")).json["released"]
    granted = (await waiting).json
    assert granted["token"] > held["token"]
    late = await nodes.ask(at, "PUT", "/v1/kv/f", b"w", X_RaftKV_Fence=fence)
    assert (late.status, late.code) == (412, "lock_lost")
    assert (await nodes.ask(at, "GET", "/v1/kv/f")).body == b"v"
    assert [each["name"] for each in (await nodes.ask(at, "GET", "/v1/locks")).json["locks"]] == [
        "jobs"
    ]
    assert (await nodes.ask(at, "DELETE", f"{lock}?token={held['token']}")).code == "lock_lost"
    assert (await nodes.ask(at, "DELETE", f"{lock}?token={granted['token']}")).status == 200
    assert (await nodes.ask(at, "GET", lock)).code == "lock_not_found"


async def once(nodes: Nodes, at: str, other: str) -> None:
    key = f"once-{URL(at).port}"
    target = "/v1/kv/once?op=increment"
    first = await nodes.ask(at, "POST", target, Idempotency_Key=key)
    again = await nodes.ask(other, "POST", target, Idempotency_Key=key)
    assert (again.body, again.status) == (first.body, first.status)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    mismatch = await nodes.ask(other, "POST", target + "&by=2", Idempotency_Key=key)
    assert (mismatch.status, mismatch.code) == (422, "idempotency_mismatch")


async def watches(nodes: Nodes, at: str) -> None:
    put = await nodes.ask(at, "PUT", "/v1/kv/watched", b"seen")
    before = put.json["revision"] - 1
    nodes.called.add(match_route("GET", "/v1/watch", _EVERYWHERE).route)
    async with nodes.session.get(f"{at}/v1/watch?key=watched&from={before}") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        text = b""
        while b"event: put" not in text:
            text += await response.content.readany()
    assert b'"seen"' in text


async def reads(nodes: Nodes, at: str) -> None:
    revision = (await nodes.ask(nodes.leader, "PUT", "/v1/kv/read", b"v")).json["revision"]
    local = await nodes.ask(at, "GET", f"/v1/kv/read?consistency=local&min_revision={revision}")
    assert (local.body, local.headers["X-RaftKV-Consistency"]) == (b"v", "local")
    assert "X-RaftKV-Age-Seconds" in local.headers
    bounded = await nodes.ask(at, "GET", "/v1/kv/read?consistency=bounded&max_stale=10s")
    assert bounded.headers["X-RaftKV-Consistency"] in ("bounded", "linearizable")
    never = await nodes.ask(at, "GET", "/v1/kv/read?min_revision=999999&timeout=50ms")
    assert (never.status, never.json["outcome"]) == (504, "not_committed")
    wrong = await nodes.ask(at, "GET", "/v1/kv/read", X_RaftKV_Cluster="other")
    assert (wrong.status, wrong.code) == (421, "wrong_cluster")


async def operations(nodes: Nodes, at: str) -> None:
    status = (await nodes.ask(at, "GET", "/v1/status")).json
    assert status["state"] == "running"
    cluster = await nodes.ask(at, "GET", "/v1/cluster")
    assert len(cluster.json["voters"]) == 3
    members = "/v1/cluster/members"
    stranger = STRANGER | {"id": f"{URL(at).port:016x}"}
    stale = await nodes.ask(at, "POST", members, stranger, If_Match='"999999"')
    assert (stale.status, stale.code) == (412, "config_changed")
    added = await nodes.ask(at, "POST", members, stranger, If_Match=cluster.headers["ETag"])
    assert added.status == 200, added
    one = f"{members}/{stranger['id']}"
    lagging = await nodes.ask(at, "POST", one + "/promote")
    assert (lagging.status, lagging.code) == (409, "change_refused")
    assert lagging.json["reason"] == "learner_lags"
    assert (await nodes.ask(at, "POST", one + "/replace", {"by": "0" * 16})).status == 409
    assert (await nodes.ask(at, "DELETE", one)).status == 200
    left = (await nodes.ask(nodes.leader, "GET", "/v1/cluster")).json
    assert stranger["id"] in left["removed"]
    assert (left["auto_promote"], left["hash_mismatches"]) == ([], 0)
    reused = await nodes.ask(at, "POST", members, stranger)
    assert (reused.status, reused.json["reason"]) == (409, "id_reused")
    assert (await nodes.ask(at, "POST", members, stranger | {"rejoin": True})).status == 200
    back = (await nodes.ask(nodes.leader, "GET", "/v1/cluster")).json
    assert stranger["id"] in [member["id"] for member in back["members"]]
    assert stranger["id"] not in back["removed"]
    assert (await nodes.ask(at, "DELETE", one)).status == 200
    founded = {"cluster_id": "other", "members": [STRANGER]}
    assert (await nodes.ask(at, "POST", "/v1/cluster/bootstrap", founded)).status in (400, 409)
    assert (await nodes.ask(at, "POST", "/v1/maintenance/snapshot")).json["size_bytes"] > 0
    revision = (await nodes.ask(at, "GET", "/v1/status")).json["revision"]
    compacted = await nodes.ask(at, "POST", "/v1/maintenance/compact", {"revision": revision})
    assert compacted.json["compacted_revision"] == revision
    gone = await nodes.ask(at, "GET", f"/v1/kv/a?revision={revision - 1}")
    assert (gone.status, gone.json["oldest_revision"]) == (410, revision)
    assert len((await nodes.ask(at, "GET", "/v1/backup")).body) > 0
    for path in ("/livez", "/readyz", "/readyz?verbose", "/metrics", "/openapi.json"):
        assert (await nodes.ask(at, "GET", path)).status == 200
    page = await nodes.ask(at, "GET", "/")
    assert b'src="console/app.js"' in page.body
    assert (await nodes.ask(at, "GET", "/console/app.js")).status == 200
    for path in ("/v1/status", "/v1/cluster"):
        assert (await nodes.ask(at, "OPTIONS", path, Origin=nodes.leader)).status == 200


async def redirects(nodes: Nodes) -> None:
    answer = await nodes.ask(nodes.follower, "PUT", "/v1/kv/a%2Fb?redirect=true", b"v")
    assert answer.status == 307
    assert answer.headers["Location"] == f"{nodes.leader}/v1/kv/a%2Fb?redirect=true"
    moved = await nodes.ask(nodes.follower, "POST", "/v1/cluster/leader", {})
    assert moved.status == 200
    assert (
        moved.json["leader"] in (await nodes.ask(nodes.leader, "GET", "/v1/cluster")).json["voters"]
    )


async def drains(nodes: Nodes) -> None:
    assert (await nodes.ask(nodes.follower, "POST", "/v1/maintenance/drain")).json["draining"]
    assert (await nodes.ask(nodes.follower, "GET", "/readyz")).status == 503
    assert (await nodes.ask(nodes.follower, "DELETE", "/v1/maintenance/drain")).status == 200
    assert (await nodes.ask(nodes.follower, "PUT", "/v1/kv/after", b"v")).status == 201
