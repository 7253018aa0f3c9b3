"""The decision table of `--peers`, and the loop that asks until there is a cluster."""

import asyncio
import logging
import random
from collections.abc import Mapping

import msgspec
import pytest

from raftkv.node.events import Bootstrapped
from raftkv.node.messages import Failure, FailureCode
from raftkv.raft.messages import Member
from raftkv.server import formation
from raftkv.server.addresses import Address
from raftkv.server.formation import Found, Refuse, Verdict, Wait, decide, form_cluster
from raftkv.server.frames import ProbeReply
from raftkv.server.http.routes import Listener, match_route
from raftkv.server.peer_list import ListedPeer, PeerList, parse_bare, parse_named
from tests.server.waiting import until

TEXT = "n1=h1:7401,n2=h2:7401,n3=h3:7401"
N1 = ListedPeer("n1", Address("h1", 7401))
N2 = ListedPeer("n2", Address("h2", 7401))
N3 = ListedPeer("n3", Address("h3", 7401))


def peers(own: str = "n1") -> PeerList:
    return parse_named(TEXT, own)


def reply(peer: ListedPeer, **changes: object) -> ProbeReply:
    """A node without cluster that was given the same list."""
    number = int(peer.label[1:])
    fresh = ProbeReply(
        name=peer.label,
        member_id=number,
        cluster_id=None,
        state="uninitialised",
        peer_url=str(peer.address),
        client_url=f"http://{peer.address.host}:7400",
        peers_digest=peers().digest,
        lists_sender=None,
    )
    return msgspec.structs.replace(fresh, **changes)


def verdict(
    replies: Mapping[ListedPeer, ProbeReply | None], own: ListedPeer = N1, **changes: object
) -> Verdict:
    return decide(peers(own.label), reply(own, **changes), replies)


def test_the_founder_founds_when_everybody_is_fresh() -> None:
    assert verdict({N2: reply(N2), N3: reply(N3)}) == Found(
        (
            Member(1, "n1", "h1:7401", "http://h1:7400"),
            Member(2, "n2", "h2:7401", "http://h2:7400"),
            Member(3, "n3", "h3:7401", "http://h3:7400"),
        )
    )


def test_a_node_alone_founds_at_once() -> None:
    alone = parse_named("n1=h1:7401", "n1")
    own = reply(N1, peers_digest=alone.digest)
    assert decide(alone, own, {}) == Found((Member(1, "n1", "h1:7401", "http://h1:7400"),))


def test_a_second_node_of_the_founders_name_founds_nothing() -> None:
    """Started with a copied command line, it would gather the same peers for another cluster."""
    everybody = {N2: reply(N2), N3: reply(N3)}
    decided = verdict({N1: reply(N1, member_id=77), **everybody})
    assert isinstance(decided, Refuse)
    assert decided.reason.startswith("another node answers at h1:7401")
    for own in (reply(N1), None):  # not every network lets a node reach itself
        assert isinstance(verdict({N1: own, **everybody}), Found)


@pytest.mark.parametrize("own", [N2, N3])
def test_the_others_never_found(own: ListedPeer) -> None:
    replies = {peer: reply(peer) for peer in (N1, N2, N3) if peer != own}
    assert verdict(replies, own) == Wait("n1 (h1:7401) is to found the cluster")


@pytest.mark.parametrize("silent", [[N2], [N3], [N2, N3]])
def test_silence_means_wait_and_says_for_whom(silent: list[ListedPeer]) -> None:
    replies = {peer: None if peer in silent else reply(peer) for peer in (N2, N3)}
    names = ", ".join(peer.describe() for peer in silent)
    assert verdict(replies) == Wait(f"no answer yet from {names}")


def test_a_founder_that_lost_its_disk_does_not_found_again() -> None:
    """Its peers know the cluster it was a member of under another id."""
    known = reply(N2, cluster_id="c1", lists_sender=False)
    for third in (None, reply(N3), reply(N3, cluster_id="c1", lists_sender=False)):
        decided = verdict({N2: known, N3: third})
        assert isinstance(decided, Refuse)
        assert "c1" in decided.reason
        assert "does not list this node (0000000000000001)" in decided.reason
        # Advice to call what this version does not serve would be a dead end.
        assert "by POST /v1/cluster/members at a member" in decided.reason
        everywhere = Listener.CLIENT | Listener.ADMIN
        assert match_route("POST", "/v1/cluster/members", everywhere).route.handler == "add_member"


@pytest.mark.parametrize("lists_sender", [True, None])
def test_a_cluster_that_may_list_this_node_is_waited_for(lists_sender: bool | None) -> None:
    known = reply(N2, cluster_id="c1", lists_sender=lists_sender)
    assert verdict({N2: known, N3: reply(N3)}) == Wait(
        "n2 (h2:7401) has a cluster and is to contact this node"
    )


def test_another_list_is_refused() -> None:
    other = reply(N2, peers_digest="other")
    assert verdict({N2: other, N3: None}) == Refuse(
        "n2 (h2:7401) was started with another --peers list; give all nodes the same list"
    )
    none = verdict({N2: reply(N2), N3: reply(N3, peers_digest=None)})
    assert isinstance(none, Refuse)
    assert "without --peers" in none.reason


def test_crossed_addresses_are_refused() -> None:
    crossed = {N2: reply(N3, name="n3"), N3: reply(N2, name="n2")}
    assert verdict(crossed) == Refuse("the node at h2:7401 is n3, not n2")


def test_one_node_under_two_addresses_is_refused() -> None:
    twice = verdict({N2: reply(N1), N3: reply(N3)})
    assert isinstance(twice, Refuse)
    assert "n1 (h1:7401) and n2 (h2:7401) are the same node" in twice.reason


def test_bare_nodes_with_one_name_are_refused() -> None:
    bare = parse_bare("h2:7401", Address("h1", 7401))
    own = reply(N1, name="host", peers_digest=bare.digest)
    other = reply(N2, name="host", peers_digest=bare.digest)
    decided = decide(bare, own, {bare.others[0]: other})
    assert isinstance(decided, Refuse)
    assert "same name host; give each its own --id" in decided.reason


def test_bare_lists_agree_whoever_leaves_itself_out() -> None:
    first = parse_bare("h2:7401,h3:7401", Address("h1", 7401))
    second = parse_bare("h1:7401, h3:7401", Address("h2", 7401))
    third = parse_bare("h3:7401,h1:7401,h2:7401", Address("h3", 7401))
    assert first.digest == second.digest == third.digest
    assert [each.founder.label for each in (first, second, third)] == ["h1:7401"] * 3
    assert first.digest != parse_bare("h2:7401", Address("h1", 7401)).digest


def test_the_order_of_a_list_means_nothing() -> None:
    again = parse_named("n3=h3:7401, n1=h1:7401 ,n2=h2:7401", "n2")
    assert again.digest == peers().digest
    assert again.founder == N1


# ---- the loop -------------------------------------------------------------------------------


class FormingNode:
    """Takes the bootstrap, and perhaps fails the first ones."""

    member_id = 1

    def __init__(self, failures: int = 0) -> None:
        self.cluster_id: str | None = None
        self.calls: list[tuple[str, tuple[Member, ...]]] = []
        self._failures = failures

    async def bootstrap(
        self, cluster_id: str, members: tuple[Member, ...]
    ) -> Bootstrapped | Failure:
        self.calls.append((cluster_id, members))
        if len(self.calls) <= self._failures:
            return Failure(FailureCode.UNINITIALISED, "the node is starting")
        self.cluster_id = cluster_id
        return Bootstrapped(cluster_id, repeated=False)


class Network:
    """What the peers answer, changed by the test as time passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.replies: dict[str, ProbeReply] = {}
        self.rounds = 0
        monkeypatch.setattr(formation, "probe", self._probe)

    async def _probe(self, peer_url: str, sender: int, _tls: object) -> ProbeReply:
        assert sender == 1
        self.rounds += peer_url.startswith("h2")
        if peer_url not in self.replies:
            raise ConnectionRefusedError
        return self.replies[peer_url]


def run(node: FormingNode, own: PeerList | None = None) -> "asyncio.Task[None]":
    return asyncio.ensure_future(
        form_cluster(
            node, lambda _: reply(N1), own or peers(), random.Random(7), interval_seconds=0.001
        )
    )


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


async def test_the_cluster_is_founded_once_when_the_last_peer_comes_up(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node = FormingNode()
    forming = run(node)
    network.replies["h2:7401"] = reply(N2)
    await until("some rounds", lambda: network.rounds > 5)
    assert node.calls == []
    waits = [text for text in caplog.messages if "no answer yet from n3" in text]
    assert len(waits) == 1, "an unchanged reason is not told again every round"
    network.replies["h3:7401"] = reply(N3)
    await forming
    [(cluster_id, members)] = node.calls
    assert [member.id for member in members] == [1, 2, 3]
    assert len(cluster_id) == 32
    assert int(cluster_id, 16)


async def test_a_node_also_asks_who_answers_at_its_own_address(network: Network) -> None:
    network.replies = {f"h{n}:7401": reply(peer) for n, peer in ((2, N2), (3, N3))}
    network.replies["h1:7401"] = reply(N1, member_id=77)
    node = FormingNode()
    forming = run(node)
    await until("some rounds", lambda: network.rounds > 5)
    assert node.calls == []
    network.replies["h1:7401"] = reply(N1)
    await forming
    assert len(node.calls) == 1


async def test_a_failed_bootstrap_is_tried_again_with_the_same_cluster_id(
    network: Network,
) -> None:
    network.replies = {"h2:7401": reply(N2), "h3:7401": reply(N3)}
    node = FormingNode(failures=2)
    await run(node)
    assert len(node.calls) == 3
    assert len(set(node.calls)) == 1


async def test_a_refusal_is_told_once_and_ends_when_its_cause_does(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    network.replies = {"h2:7401": reply(N2, peers_digest="old"), "h3:7401": reply(N3)}
    node = FormingNode()
    forming = run(node)
    await until("some rounds", lambda: network.rounds > 5)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "another --peers list" in record.getMessage()
    network.replies["h2:7401"] = reply(N2)
    await forming
    assert len(node.calls) == 1


async def test_forming_ends_when_the_node_is_adopted(network: Network) -> None:
    node = FormingNode()
    forming = run(node)
    await until("some rounds", lambda: network.rounds > 2)
    node.cluster_id = "c1"
    await forming
    assert node.calls == []
