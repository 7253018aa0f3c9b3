"""The nodes' HTTP API, as far as the operator uses it: who are you, who are the members, bootstrap.

Called by `observe` and `execute`. A pod is reached by its IP, which may by now be another pod's:
callers compare the name and the id in the answer (rule 14). Retries nothing.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import aiohttp
import msgspec

from raftkv_operator import names
from raftkv_operator.errors import NodeError, describe_error
from raftkv_operator.objects import JsonObject
from raftkv_operator.observed import NodeCluster, NodeStatus

CALL_TIMEOUT_SECONDS = 2.0

_Answer = TypeVar("_Answer")


class BootstrapTarget(msgspec.Struct, frozen=True):
    """One member in the bootstrap call."""

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

    async def _call(self, method: str, ip: str, path: str, body: JsonObject | None = None) -> bytes:
        host = f"[{ip}]" if ":" in ip else ip
        url = f"http://{host}:{self._port}{path}"
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_SECONDS)
        try:
            async with self._session.request(method, url, json=body, timeout=timeout) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NodeError(f"{method} {path}: {describe_error(error)}") from error
        if response.status >= 400:
            text = content[:500].decode(errors="replace")
            raise NodeError(f"{method} {path} answered {response.status}: {text}")
        return content


def _decode(content: bytes, kind: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise NodeError(f"the answer is not one of a RaftKV node: {error}") from error
