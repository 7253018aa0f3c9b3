"""The cluster and its nodes over HTTP: what the changing calls ask. Pure.

Whether a change makes sense now is the node's to say; here is only what it means.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from raftkv.kv.commands import Compact
from raftkv.raft.confchange import (
    AddLearner,
    PromoteLearner,
    RemoveMember,
    ReplaceMember,
)
from raftkv.raft.messages import Member, NodeId
from raftkv.server.http import parameters as take
from raftkv.server.http.bodies import HexId, decode_body
from raftkv.server.http.conditions import parse_tags
from raftkv.server.http.problems import BAD_HEADER, BAD_ID, Refused
from raftkv.server.http.requests import Headers
from raftkv.server.http.targets import parse_query

# 1 to 65535.
_PORT: Final = (
    "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
_HOST_PORT: Final = r"([0-9A-Za-z._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):" + _PORT + r"\Z"


class MemberBody(msgspec.Struct, forbid_unknown_fields=True):
    """A node, as a list of members names it."""

    id: HexId
    name: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z._-]{1,253}\Z")]
    peer_url: Annotated[str, msgspec.Meta(pattern="^" + _HOST_PORT)]
    client_url: Annotated[str, msgspec.Meta(pattern="^https?://" + _HOST_PORT)]

    def member(self) -> Member:
        """The same, as the node takes it."""
        return Member(int(self.id, 16), self.name, self.peer_url, self.client_url)


class BootstrapBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of `POST /v1/cluster/bootstrap`."""

    cluster_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z._-]{1,64}\Z")]
    members: Annotated[list[MemberBody], msgspec.Meta(min_length=1)]


class AddMemberBody(MemberBody, forbid_unknown_fields=True):
    """Of `POST /v1/cluster/members`."""

    promote: Literal["auto", "manual"] = "manual"
    rejoin: bool = False  # a removed member, with the data directory that it left with


class ReplaceBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of `POST /v1/cluster/members/{id}/replace`."""

    by: HexId  # a learner that has caught up


class TransferBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of `POST /v1/cluster/leader`."""

    target: HexId | None = None  # null: the most caught-up voter


class DrainBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of `POST /v1/maintenance/drain`."""

    avoid: list[HexId] = []


class CompactBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of `POST /v1/maintenance/compact`."""

    revision: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class FoundCluster:
    """Bootstrap: found ``cluster_id`` with these voters."""

    cluster_id: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class SetDrain:
    """Start or undo the drain; ``avoid`` names members that should not become leader."""

    draining: bool
    avoid: tuple[NodeId, ...] = ()


def parse_bootstrap(query: str, body: bytes) -> FoundCluster:
    """POST /v1/cluster/bootstrap. Whether the list makes sense is the node's to say."""
    parse_query(query, ())
    asked = decode_body(body, BootstrapBody)
    return FoundCluster(asked.cluster_id, tuple(each.member() for each in asked.members))


def parse_drain(method: str, query: str, body: bytes) -> SetDrain:
    """POST and DELETE of the drain; POST may name members to avoid in its body."""
    parse_query(query, ())
    if method == "DELETE" or not body:
        return SetDrain(draining=method != "DELETE")
    avoid = decode_body(body, DrainBody).avoid
    return SetDrain(draining=True, avoid=tuple(int(member, 16) for member in avoid))


def parse_add(body: bytes) -> AddLearner:
    """POST /v1/cluster/members."""
    asked = decode_body(body, AddMemberBody)
    is_auto = asked.promote == "auto"
    return AddLearner(asked.member(), promote_when_caught_up=is_auto, rejoins=asked.rejoin)


def parse_promote(member: str) -> PromoteLearner:
    """POST /v1/cluster/members/{id}/promote."""
    return PromoteLearner(member_id(member))


def parse_replace(member: str, body: bytes) -> ReplaceMember:
    """POST /v1/cluster/members/{id}/replace."""
    return ReplaceMember(member_id(member), int(decode_body(body, ReplaceBody).by, 16))


def parse_remove(member: str) -> RemoveMember:
    """DELETE /v1/cluster/members/{id}."""
    return RemoveMember(member_id(member))


def parse_transfer(body: bytes) -> NodeId | None:
    """POST /v1/cluster/leader: whom to hand leadership to; no body is no preference."""
    target = decode_body(body, TransferBody).target if body else None
    return None if target is None else int(target, 16)


def parse_compact(body: bytes) -> Compact:
    """POST /v1/maintenance/compact."""
    return Compact(decode_body(body, CompactBody).revision)


def member_id(text: str) -> NodeId:
    """The member that a path names."""
    return take.hex_id("a member's id", text, BAD_ID)


def parse_config_index(headers: Headers) -> int | None:
    """The configuration that If-Match makes a change depend on; None: any."""
    if headers.get("If-None-Match") is not None:
        raise Refused(BAD_HEADER, "a change of the membership takes If-Match only")
    tags = parse_tags("If-Match", headers.getall("If-Match", []))
    if tags is None or tags.is_any:
        return None
    index = tags.tags[0] if len(tags.tags) == 1 else ""
    if not (index.isascii() and index.isdigit() and len(index) <= 19 and int(index) < 2**63):
        raise Refused(BAD_HEADER, 'If-Match names one configuration by its index, as in "7"')
    return int(index)
