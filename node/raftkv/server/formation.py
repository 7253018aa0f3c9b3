"""How the nodes of one `--peers` list become a cluster without anybody's help.

Owns the safety rules of the API contract ('Command line'): exactly one node of a list may found,
the one that sorts first, and only when *every* other listed node has just answered that it belongs
to no cluster and was given the same list. So a node that lost its disk, and starts again with the
old command line, never founds a second cluster beside the one it was a member of: its peers know
the first. Whoever is not the founder waits to be contacted by it.

`decide` is pure; `form_cluster` asks the peers again and again until the node has a cluster. A
refusal does not end the process: the node stays uninitialised, harmless and observable, says
once what stands in the way, and goes on if that changes (or if it is added to the cluster).
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from raftkv.node.events import Bootstrapped
from raftkv.node.messages import Failure
from raftkv.raft.messages import Member, NodeId
from raftkv.server.frames import ProbeReply
from raftkv.server.peer_connection import probe
from raftkv.server.peer_list import ListedPeer, PeerList

_LOG: Final = logging.getLogger(__name__)

PROBE_INTERVAL_SECONDS: Final = 0.25
# An unchanged reason to wait is told again after this time.
TELL_AGAIN_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet; ``reason`` says for whom."""

    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """All agree, and this node is the one to found the cluster."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Waiting will not help: ``reason`` says what a person has to do."""

    reason: str


Verdict = Wait | Found | Refuse


def decide(
    peers: PeerList, own: ProbeReply, replies: Mapping[ListedPeer, ProbeReply | None]
) -> Verdict:
    """What to do, given what each listed node answered just now; None is silence.

    ``replies`` has the answer at this node's own address too: where another process answers, two
    nodes have the same name or address, and each of them could take itself for the founder.
    """
    at_own_address = replies.get(peers.own)
    if at_own_address is not None and at_own_address.member_id != own.member_id:
        return Refuse(
            f"another node answers at {peers.own.address}, which is to be this one's address; "
            "give each node its own --id and --advertise-peer"
        )
    answered = [
        (peer, reply) for peer, reply in replies.items() if reply is not None and peer != peers.own
    ]
    refusal = _refuse_known_cluster(own, answered) or _refuse_contradiction(peers, own, answered)
    if refusal is not None:
        return refusal
    silent = [peer.describe() for peer in peers.others if replies.get(peer) is None]
    if silent:
        return Wait(f"no answer yet from {', '.join(silent)}")
    joined = [peer for peer, reply in answered if reply.cluster_id is not None]
    if joined:
        return Wait(f"{joined[0].describe()} has a cluster and is to contact this node")
    if peers.founder != peers.own:
        return Wait(f"{peers.founder.describe()} is to found the cluster")
    everybody = [(peers.own, own), *answered]
    return Found(
        tuple(
            Member(reply.member_id, reply.name, str(peer.address), reply.client_url)
            for peer, reply in sorted(everybody, key=lambda pair: pair[0])
        )
    )


def _refuse_known_cluster(
    own: ProbeReply, answered: list[tuple[ListedPeer, ProbeReply]]
) -> Refuse | None:
    for peer, reply in answered:
        if reply.cluster_id is not None and reply.lists_sender is False:
            return Refuse(
                f"{peer.describe()} belongs to cluster {reply.cluster_id}, which does not list "
                f"this node ({own.member_id:016x}); no second one is founded. If the data of a "
                "member is still somewhere, start this node with it as --data; in the place of a "
                "member whose data is lost, let it join by POST /v1/cluster/members at a member"
            )
    return None


def _refuse_contradiction(
    peers: PeerList, own: ProbeReply, answered: list[tuple[ListedPeer, ProbeReply]]
) -> Refuse | None:
    """Peers that are not who the list says, or were given another list."""
    ids: dict[NodeId, ListedPeer] = {own.member_id: peers.own}
    names: dict[str, ListedPeer] = {own.name: peers.own}
    for peer, reply in answered:
        if reply.member_id in ids:
            same = ids[reply.member_id].describe()
            return Refuse(
                f"{same} and {peer.describe()} are the same node; list each node once, under "
                "the address that its --advertise-peer names"
            )
        if peers.is_named and reply.name != peer.label:
            return Refuse(f"the node at {peer.address} is {reply.name}, not {peer.label}")
        if reply.name in names:
            return Refuse(
                f"{names[reply.name].describe()} and {peer.describe()} have the same name "
                f"{reply.name}; give each its own --id"
            )
        if reply.cluster_id is None and reply.peers_digest != own.peers_digest:
            how = "without --peers" if reply.peers_digest is None else "with another --peers list"
            return Refuse(f"{peer.describe()} was started {how}; give all nodes the same list")
        ids[reply.member_id] = names[reply.name] = peer
    return None


class FormingNode(Protocol):
    """What formation needs of the driver."""

    @property
    def member_id(self) -> NodeId | None:
        """Known: recovery is done."""
        ...

    @property
    def cluster_id(self) -> str | None:
        """None: belongs to no cluster."""
        ...

    async def bootstrap(
        self, cluster_id: str, members: tuple[Member, ...]
    ) -> Bootstrapped | Failure:
        """Found a cluster on this node."""
        ...


class Describe(Protocol):
    """Says who this node is, given who asks."""

    def __call__(self, sender: NodeId, /) -> ProbeReply | None:
        """None until recovery is done."""
        ...


class Rng(Protocol):
    """The injected source of randomness."""

    def getrandbits(self, k: int, /) -> int:
        """An integer of ``k`` random bits."""
        ...


async def form_cluster(
    node: FormingNode,
    describe: Describe,
    peers: PeerList,
    rng: Rng,
    *,
    tls: ssl.SSLContext | None = None,
    interval_seconds: float = PROBE_INTERVAL_SECONDS,
) -> None:
    """Return when the node belongs to a cluster: founded by it, or by the one that sorts first.

    ``tls``: how peers are connected to, if links are encrypted.
    """
    cluster_id = f"{rng.getrandbits(128):032x}"
    clock = asyncio.get_running_loop().time
    told, told_at = "", 0.0
    while node.cluster_id is None:
        assert node.member_id is not None, "formation begins after recovery"
        own = describe(node.member_id)
        assert own is not None, "formation begins after recovery"
        replies = dict(
            zip(
                peers.entries,
                await asyncio.gather(*(_ask(peer, own.member_id, tls) for peer in peers.entries)),
                strict=True,
            )
        )
        verdict = decide(peers, own, replies)
        if isinstance(verdict, Found):
            _LOG.info("founding cluster %s with %d members", cluster_id, len(verdict.members))
            answer = await node.bootstrap(cluster_id, verdict.members)
            if isinstance(answer, Bootstrapped):
                return
            verdict = Refuse(f"it could not be founded: {answer.detail}")
        is_due = isinstance(verdict, Wait) and clock() - told_at > TELL_AGAIN_SECONDS
        if verdict.reason != told or is_due:
            told, told_at = verdict.reason, clock()
            level = logging.INFO if isinstance(verdict, Wait) else logging.ERROR
            _LOG.log(level, "waiting for a cluster: %s", told)
        await asyncio.sleep(interval_seconds)


async def _ask(peer: ListedPeer, sender: NodeId, tls: ssl.SSLContext | None) -> ProbeReply | None:
    try:
        return await probe(str(peer.address), sender, tls)
    except OSError:
        return None
