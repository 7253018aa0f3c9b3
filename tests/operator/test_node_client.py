"""The nodes' HTTP API as the operator calls it, against a server that speaks it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from raftkv_operator.errors import NodeError, NodeRefusedError
from raftkv_operator.node_client import BootstrapTarget, HttpNodes

STATUS = {
    "name": "demo-0",
    "member_id": "00000000000000aa",
    "cluster_id": None,
    "state": "uninitialised",
    "role": "follower",
    "term": 0,
    "leader": None,
    "leader_name": None,
    "version": "0.1.0",
    "a_field_of_a_later_version": 1,
}
CLUSTER = {
    "cluster_id": "c",
    "leader": "00000000000000aa",
    "term": 3,
    "config_index": 1,
    "voters": ["00000000000000aa"],
    "learners": [],
    "voters_outgoing": [],
    "members": [
        {
            "id": "00000000000000aa",
            "name": "demo-0",
            "role": "leader",
            "voter": True,
            "healthy": True,
            "lag_entries": 0,
        }
    ],
    "fault_tolerance": 0,
}


class Node:
    """Answers what the test set."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {
            "/v1/status": (200, STATUS),
            "/v1/cluster": (200, CLUSTER),
            "/v1/cluster/bootstrap": (200, {}),
        }
        self.received: Any = None
        self.asked = ""  # method, path, and the headers that a change depends on

    async def serve(self, request: web.Request) -> web.Response:
        headers = [request.headers.get(name, "") for name in ("X-RaftKV-Cluster", "If-Match")]
        self.asked = " ".join([request.method, request.path, *headers]).strip()
        self.received = await request.json() if request.can_read_body else None
        code, answer = self.answers[request.path]
        if isinstance(answer, str):
            return web.Response(status=code, text=answer)
        return web.json_response(answer, status=code)


@pytest_asyncio.fixture
async def node_and_client() -> AsyncIterator[tuple[Node, HttpNodes]]:
    node = Node()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", node.serve)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        assert server.port is not None
        yield node, HttpNodes(session, port=server.port)


async def test_answers_are_read_and_what_is_unknown_is_ignored(
    node_and_client: tuple[Node, HttpNodes],
) -> None:
    _, client = node_and_client
    status = await client.status("127.0.0.1")
    assert (status.name, status.state, status.cluster_id) == ("demo-0", "uninitialised", None)
    cluster = await client.cluster("127.0.0.1")
    assert cluster.voters == (status.member_id,)
    assert cluster.members[0].healthy is True


async def test_bootstrap_sends_the_members_as_the_contract_names_them(
    node_and_client: tuple[Node, HttpNodes],
) -> None:
    node, client = node_and_client
    target = BootstrapTarget(
        id="00000000000000aa", name="demo-0", peer_url="h:7401", client_url="http://h:7400"
    )
    await client.bootstrap("127.0.0.1", "c", [target])
    assert node.received == {
        "cluster_id": "c",
        "members": [
            {
                "id": "00000000000000aa",
                "name": "demo-0",
                "peer_url": "h:7401",
                "client_url": "http://h:7400",
            }
        ],
    }


@pytest.mark.parametrize(
    "answer",
    [(409, {"title": "no"}), (500, "oops"), (200, "not json"), (200, {"name": "demo-0"})],
)
async def test_unusable_answer_is_an_error(
    node_and_client: tuple[Node, HttpNodes], answer: tuple[int, Any]
) -> None:
    node, client = node_and_client
    node.answers["/v1/status"] = answer
    with pytest.raises(NodeError):
        await client.status("127.0.0.1")


async def test_node_that_is_away_is_an_error() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(NodeError):
            await HttpNodes(session, port=1).status("127.0.0.1")


MEMBER = "/v1/cluster/members/a"


@pytest.mark.parametrize(
    ("call", "asked", "body"),
    [
        (
            lambda client, ip: client.add_learner(ip, "c", 7, BootstrapTarget("a", "n", "p", "u")),
            'POST /v1/cluster/members c "7"',
            {
                "id": "a",
                "name": "n",
                "peer_url": "p",
                "client_url": "u",
                "promote": "manual",
                "rejoin": False,
            },
        ),
        (
            lambda client, ip: client.add_learner(
                ip, "c", 7, BootstrapTarget("a", "n", "p", "u"), rejoins=True
            ),
            'POST /v1/cluster/members c "7"',
            {
                "id": "a",
                "name": "n",
                "peer_url": "p",
                "client_url": "u",
                "promote": "manual",
                "rejoin": True,
            },
        ),
        (lambda client, ip: client.promote(ip, "c", 7, "a"), f'POST {MEMBER}/promote c "7"', None),
        (
            lambda client, ip: client.replace(ip, "c", 7, "a", "b"),
            f'POST {MEMBER}/replace c "7"',
            {"by": "b"},
        ),
        (lambda client, ip: client.remove(ip, "c", 7, "a"), f'DELETE {MEMBER} c "7"', None),
        (
            lambda client, ip: client.transfer(ip, "c", "a"),
            "POST /v1/cluster/leader c",
            {"target": "a"},
        ),
        (
            lambda client, ip: client.drain(ip, "c", is_draining=True),
            "POST /v1/maintenance/drain c",
            None,
        ),
        (
            lambda client, ip: client.drain(ip, "c", is_draining=False),
            "DELETE /v1/maintenance/drain c",
            None,
        ),
    ],
    ids=["add", "add again", "promote", "replace", "remove", "transfer", "drain", "undrain"],
)
async def test_rule_06_change_names_the_cluster_and_the_configuration_it_is_for(
    node_and_client: tuple[Node, HttpNodes],
    call: Callable[[HttpNodes, str], Awaitable[None]],
    asked: str,
    body: Any,
) -> None:
    node, client = node_and_client
    node.answers = dict.fromkeys([asked.split()[1]], (200, {}))
    await call(client, "127.0.0.1")
    assert (node.asked, node.received) == (asked, body)


@pytest.mark.parametrize(
    ("status", "reason", "is_passing"),
    [
        (409, "learner_lags", True),
        (409, "change_in_progress", True),
        (409, "would_lose_quorum", False),
        (409, "id_reused", False),
        (412, "", True),
        (421, "", False),
        (503, "", True),
    ],
)
async def test_rule_06_refusal_says_whether_another_look_will_do(
    node_and_client: tuple[Node, HttpNodes], status: int, reason: str, is_passing: bool
) -> None:
    node, client = node_and_client
    problem = {"detail": "a sentence", "reason": reason}
    node.answers[f"{MEMBER}/promote"] = (status, problem)
    with pytest.raises(NodeRefusedError, match="a sentence") as caught:
        await client.promote("127.0.0.1", "c", 7, "a")
    assert caught.value.is_passing is is_passing
