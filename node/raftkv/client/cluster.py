"""Looking at the cluster and operating it."""

import msgspec
from yarl import URL

from raftkv.client.calls import Caller
from raftkv.client.errors import UnreachableError
from raftkv.client.model import JsonObject, Member
from raftkv.client.transport import InterruptedRequestError, NotSentError, Repeat, Request
from raftkv.client.wire import Answer, decode


class _MembersBody(msgspec.Struct, frozen=True):
    members: tuple[Member, ...]


class ClusterCalls(Caller):
    """Status, members and maintenance.

    Calls that change the membership are refused (`RequestFailedError`, the reason in its text)
    when they would endanger the cluster. None of them is ever sent twice by itself.
    """

    async def status(self, endpoint: URL | None = None) -> JsonObject:
        """What one node says of itself: the one at ``endpoint``, or whichever answers."""
        request = Request("GET", "/v1/status")
        if endpoint is None:
            return decode(await self._transport.call(request), JsonObject)
        return decode(await self._ask(endpoint, request), JsonObject)

    async def cluster(self, endpoint: URL | None = None) -> JsonObject:
        """The configuration and its members.

        As the node at ``endpoint`` sees them, or else as the leader does if it can be asked.
        """
        if endpoint is not None:
            return decode(await self._ask(endpoint, Request("GET", "/v1/cluster")), JsonObject)
        return decode(await self._cluster_answer(), JsonObject)

    async def members(self) -> list[Member]:
        """The members; how far each is, only the leader knows."""
        return list(decode(await self._cluster_answer(), _MembersBody).members)

    async def add_member(
        self,
        member_id: str,
        *,
        name: str,
        peer_url: str,
        client_url: str,
        promote: bool = False,
        config_index: int | None = None,
    ) -> JsonObject:
        """Add a node as a learner: it gets everything and has no vote yet.

        Args:
            member_id: 16 hex digits, from the new node's `status`.
            name: letters, digits and ``. _ -``.
            peer_url: host and port where its peers reach it.
            client_url: where clients reach it.
            promote: let it vote by itself once it has caught up.
            config_index: only if the configuration is still this one (`cluster`).
        """
        fields = {
            "id": member_id,
            "name": name,
            "peer_url": peer_url,
            "client_url": client_url,
        }
        if promote:
            fields["promote"] = "auto"
        return await self._change("POST", "/v1/cluster/members", fields, config_index)

    async def promote_member(
        self, member_id: str, *, config_index: int | None = None
    ) -> JsonObject:
        """Give a learner that has caught up its vote."""
        path = f"/v1/cluster/members/{member_id}/promote"
        return await self._change("POST", path, None, config_index)

    async def replace_member(
        self, member_id: str, *, by: str, config_index: int | None = None
    ) -> JsonObject:
        """Let the learner ``by`` take the place of a voter, in one step."""
        path = f"/v1/cluster/members/{member_id}/replace"
        return await self._change("POST", path, {"by": by}, config_index)

    async def remove_member(self, member_id: str, *, config_index: int | None = None) -> JsonObject:
        """Remove a member; its id never comes back."""
        return await self._change("DELETE", f"/v1/cluster/members/{member_id}", None, config_index)

    async def transfer_leader(self, target: str | None = None) -> JsonObject:
        """Hand leadership to ``target`` (default: the most caught-up voter).

        Answered when the new leader has committed.
        """
        fields = {} if target is None else {"target": target}
        return await self._change("POST", "/v1/cluster/leader", fields, None)

    async def snapshot(self, endpoint: URL | None = None) -> JsonObject:
        """Let one node write a snapshot of its state to its disk now."""
        request = Request("POST", "/v1/maintenance/snapshot", repeat=Repeat.SAFE)
        if endpoint is None:
            return decode(await self._transport.call(request), JsonObject, is_write=True)
        return decode(await self._ask(endpoint, request), JsonObject, is_write=True)

    async def compact(self, revision: int) -> JsonObject:
        """Forget the history before ``revision``; what is stored now stays."""
        body = msgspec.json.encode({"revision": revision})
        # Forgetting it twice is no harm, so it goes without a key.
        request = Request(
            "POST", "/v1/maintenance/compact", body=body, has_deadline=True, to_leader=True
        )
        return decode(await self._transport.call(request), JsonObject, is_write=True)

    async def _change(
        self, method: str, path: str, fields: dict[str, str] | None, config_index: int | None
    ) -> JsonObject:
        headers = {} if config_index is None else {"If-Match": f'"{config_index}"'}
        body = None if fields is None else msgspec.json.encode(fields)
        request = Request(
            method,
            path,
            headers=headers,
            body=body,
            repeat=Repeat.NEVER,
            has_deadline=True,
            to_leader=True,
        )
        return decode(await self._transport.call(request), JsonObject, is_write=True)

    async def _ask(self, endpoint: URL, request: Request) -> Answer:
        try:
            return await self._transport.once(endpoint, request, self._transport.timeout_seconds)
        except NotSentError as error:
            raise UnreachableError(f"cannot connect to {error}") from None
        except InterruptedRequestError as error:
            raise UnreachableError(f"{endpoint.origin()} did not answer: {error}") from None
