"""The nodes' HTTP API, as far as the operator uses it: who are you, who are the members, be others.

Called by `observe` and `execute`. A pod is reached by its IP, which may by now be another pod's:
callers compare the name and the id in the answer (rule 14). Retries nothing.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import aiohttp
import msgspec

from raftkv_operator import names
from raftkv_operator.errors import NodeError, NodeRefusedError, describe_error
from raftkv_operator.objects import JsonObject
from raftkv_operator.observed import NodeCluster, NodeStatus

CALL_TIMEOUT_SECONDS = 2.0
# A change is answered when it is committed: the node's own deadline is 5 s.
CHANGE_TIMEOUT_SECONDS = 8.0

_Answer = TypeVar("_Answer")


class BootstrapTarget(msgspec.Struct, frozen=True):
    """One member in the bootstrap call, or a learner to be added."""

    id: str
    name: str
    peer_url: str
    client_url: str


class Nodes(Protocol):
    """What the operator asks of nodes. Every call raises NodeError without a usable answer."""

    async def status(self, ip: str) -> NodeStatus:
        """What the node at ``ip`` says of itself."""

    async def cluster(self, ip: str) -> NodeCluster:
        """The configuration that the node at ``ip`` acts on."""

    async def bootstrap(self, ip: str, cluster_id: str, members: Sequence[BootstrapTarget]) -> None:
        """Found the cluster on the node at ``ip``; the same call again changes nothing."""

    async def add_learner(
        self,
        ip: str,
        cluster_id: str,
        config_index: int,
        member: BootstrapTarget,
        *,
        rejoins: bool = False,
    ) -> None:
        """Add ``member`` without a vote. This and the next three depend on ``config_index``.

        ``rejoins``: it was removed before, and still has the volume that it left with.

        Raises:
            NodeRefusedError: another configuration is in force, or the change is not allowed now.
        """

    async def promote(self, ip: str, cluster_id: str, config_index: int, member_id: str) -> None:
        """Let a learner vote."""

    async def replace(
        self, ip: str, cluster_id: str, config_index: int, member_id: str, by: str
    ) -> None:
        """Let the learner ``by`` vote in the place of the voter ``member_id``."""

    async def remove(self, ip: str, cluster_id: str, config_index: int, member_id: str) -> None:
        """Remove a member for good."""

    async def transfer(self, ip: str, cluster_id: str, member_id: str) -> None:
        """Hand leadership to ``member_id``."""

    async def drain(self, ip: str, cluster_id: str, *, is_draining: bool) -> None:
        """Start or undo the drain of the node at ``ip``."""


class HttpNodes:
    """`Nodes` over HTTP, on the port that only the operator may reach (rule 22)."""

    def __init__(self, session: aiohttp.ClientSession, *, port: int = names.ADMIN_PORT) -> None:
        """The caller keeps and closes ``session``."""
        self._session = session
        self._port = port

    async def status(self, ip: str) -> NodeStatus:
        """See `Nodes`."""
        return _decode(await self._call("GET", ip, "/v1/status"), NodeStatus)

    async def cluster(self, ip: str) -> NodeCluster:
        """See `Nodes`."""
        return _decode(await self._call("GET", ip, "/v1/cluster"), NodeCluster)

    async def bootstrap(self, ip: str, cluster_id: str, members: Sequence[BootstrapTarget]) -> None:
        """See `Nodes`."""
        body = {"cluster_id": cluster_id, "members": msgspec.to_builtins(members)}
        await self._call("POST", ip, "/v1/cluster/bootstrap", body)

    async def add_learner(
        self,
        ip: str,
        cluster_id: str,
        config_index: int,
        member: BootstrapTarget,
        *,
        rejoins: bool = False,
    ) -> None:
        """See `Nodes`."""
        body = {**msgspec.to_builtins(member), "promote": "manual", "rejoin": rejoins}
        await self._change(
            "POST", ip, "/v1/cluster/members", cluster_id, config_index=config_index, body=body
        )

    async def promote(self, ip: str, cluster_id: str, config_index: int, member_id: str) -> None:
        """See `Nodes`."""
        path = f"/v1/cluster/members/{member_id}/promote"
        await self._change("POST", ip, path, cluster_id, config_index=config_index)

    async def replace(
        self, ip: str, cluster_id: str, config_index: int, member_id: str, by: str
    ) -> None:
        """See `Nodes`."""
        path = f"/v1/cluster/members/{member_id}/replace"
        await self._change("POST", ip, path, cluster_id, config_index=config_index, body={"by": by})

    async def remove(self, ip: str, cluster_id: str, config_index: int, member_id: str) -> None:
        """See `Nodes`."""
        path = f"/v1/cluster/members/{member_id}"
        await self._change("DELETE", ip, path, cluster_id, config_index=config_index)

    async def transfer(self, ip: str, cluster_id: str, member_id: str) -> None:
        """See `Nodes`."""
        body = {"target": member_id}
        await self._change("POST", ip, "/v1/cluster/leader", cluster_id, body=body)

    async def drain(self, ip: str, cluster_id: str, *, is_draining: bool) -> None:
        """See `Nodes`."""
        method = "POST" if is_draining else "DELETE"
        await self._change(method, ip, "/v1/maintenance/drain", cluster_id)

    async def _change(
        self,
        method: str,
        ip: str,
        path: str,
        cluster_id: str,
        *,
        config_index: int | None = None,
        body: JsonObject | None = None,
    ) -> None:
        headers = {"X-RaftKV-Cluster": cluster_id}
        if config_index is not None:
            headers["If-Match"] = f'"{config_index}"'
        await self._call(
            method, ip, path, body, headers=headers, timeout_seconds=CHANGE_TIMEOUT_SECONDS
        )

    async def _call(
        self,
        method: str,
        ip: str,
        path: str,
        body: JsonObject | None = None,
        *,
        headers: dict[str, str] | None = None,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> bytes:
        host = f"[{ip}]" if ":" in ip else ip
        url = f"http://{host}:{self._port}{path}"
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        try:
            async with self._session.request(
                method, url, json=body, headers=headers, timeout=timeout
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NodeError(f"{method} {path}: {describe_error(error)}") from error
        if response.status >= 400:
            raise _refusal(f"{method} {path}", response.status, content)
        return content


class _Problem(msgspec.Struct):
    """What the operator reads of a node's problem document."""

    detail: str = ""
    reason: str = ""


def _refusal(what: str, status: int, content: bytes) -> NodeRefusedError:
    try:
        problem = msgspec.json.decode(content, type=_Problem)
    except ValueError:
        problem = _Problem()
    text = problem.detail or content[:500].decode(errors="replace")
    return NodeRefusedError(
        f"{what} answered {status}: {text}", status=status, reason=problem.reason
    )


def _decode(content: bytes, kind: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(content, type=kind)
    except ValueError as error:
        raise NodeError(f"the answer is not one of a RaftKV node: {error}") from error
