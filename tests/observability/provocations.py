"""One way to provoke each alert on a live cluster, and to end it.

A provocation is an async context manager: inside of it the fault is there. `PROVOCATIONS` says for
each alert which one it is, and on which panel of which dashboard a person would see it.
"""

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.observability.clusters import FaultyCluster, ask, followers, wait_leads
from tests.process.cluster import Cluster, NodeProcess, wait_until

_NEWCOMER = "00000000000abcde"


@dataclass
class Lab:
    """Everything that can be hurt."""

    kills: Cluster
    faults: FaultyCluster
    single: Cluster  # one node, small quota, tokens
    tokens: Path
    admin_token: str
    operator_faults: Path
    restart_operator: Callable[[], None]
    kill_operator: Callable[[], None]
    session: aiohttp.ClientSession


# ---- cluster "kills" ----------------------------------------------------------------------------


@asynccontextmanager
async def one_node_killed(lab: Lab) -> AsyncIterator[None]:
    """SIGKILL to a follower."""
    victim = (await followers(lab.kills))[0]
    victim.kill()
    yield
    victim.start()
    await lab.kills.wait_ready()


@asynccontextmanager
async def two_nodes_killed(lab: Lab) -> AsyncIterator[None]:
    """SIGKILL to both followers: no quorum."""
    victims = await followers(lab.kills)
    for victim in victims:
        victim.kill()
    yield
    for victim in victims:
        victim.start()
    await lab.kills.wait_ready()


@asynccontextmanager
async def learner_that_never_comes(lab: Lab) -> AsyncIterator[None]:
    """A learner is added at an address where nobody listens."""
    leader = await lab.kills.wait_leader(30.0)
    newcomer = {
        "id": _NEWCOMER,
        "name": "n9",
        "peer_url": "127.0.0.1:9",
        "client_url": "http://127.0.0.1:9",
    }
    status, answer = await ask(lab.session, "POST", f"{leader.url}/v1/cluster/members", newcomer)
    assert status == 200, answer
    yield
    url = f"{leader.url}/v1/cluster/members/{_NEWCOMER}"
    status, answer = await ask(lab.session, "DELETE", url)
    assert status == 200, answer


# ---- cluster "faults" ---------------------------------------------------------------------------


@asynccontextmanager
async def leadership_handed_round(lab: Lab) -> AsyncIterator[None]:
    """Four transfers of leadership, one after the other."""
    for _ in range(4):
        leader = await lab.faults.wait_leader(30.0)
        await ask(lab.session, "POST", f"{leader.url}/v1/cluster/leader")
        await wait_leads(lab.faults, leader)
        # Counters are seen when they are scraped.
        await asyncio.sleep(2.5)
    yield


@asynccontextmanager
async def slow_disk(lab: Lab) -> AsyncIterator[None]:
    """Every fdatasync of a follower takes 0.8 s more."""
    node = lab.faults.faulty((await followers(lab.faults))[0])
    node.fail(fdatasync_seconds=0.8)
    yield
    node.fail()


@asynccontextmanager
async def full_disk(lab: Lab) -> AsyncIterator[None]:
    """The volume of a follower has no room left, and somebody wants a snapshot."""
    node = lab.faults.faulty((await followers(lab.faults))[-1])
    url = f"{node.url}/v1/maintenance/snapshot"
    node.fail(is_full=True)

    async def refused() -> bool | None:
        return (await ask(lab.session, "POST", url))[0] == 409 or None

    await wait_until("a snapshot is refused", refused, 10.0)
    yield
    node.fail()

    async def taken() -> bool | None:
        return (await ask(lab.session, "POST", url))[0] == 200 or None

    await wait_until("a snapshot is made", taken, 90.0)


@asynccontextmanager
async def slow_network(lab: Lab) -> AsyncIterator[None]:
    """What peers send to one node arrives 0.3 s later."""
    lab.faults.proxy.delay_seconds = 0.3
    yield
    lab.faults.proxy.delay_seconds = 0.0


@asynccontextmanager
async def starved_process(lab: Lab) -> AsyncIterator[None]:
    """A follower gets no CPU for half a second, again and again (SIGSTOP, SIGCONT)."""
    node = (await followers(lab.faults))[0]

    async def starve() -> None:
        while True:
            node.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(0.5)
            finally:
                node.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.5)

    starving = asyncio.create_task(starve())
    yield
    starving.cancel()
    with suppress(asyncio.CancelledError):
        await starving


@asynccontextmanager
async def memory_that_lies(lab: Lab) -> AsyncIterator[None]:
    """A follower's state differs from the others' by one bit. It is removed; the others restart."""
    wrong = lab.faults.faulty((await followers(lab.faults))[0])
    wrong_status = await lab.faults.status(wrong)
    assert wrong_status is not None
    wrong.fail(is_wrong=True)
    yield
    leader = await lab.faults.wait_leader(30.0)
    url = f"{leader.url}/v1/cluster/members/{wrong_status['member_id']}"
    status, answer = await ask(lab.session, "DELETE", url)
    assert status == 200, answer
    wrong.kill()
    for node in [node for node in lab.faults.nodes if node is not wrong]:
        node.kill()
        node.start()
    await lab.faults.wait_ready([node for node in lab.faults.nodes if node is not wrong])


# ---- the single node ----------------------------------------------------------------------------


@asynccontextmanager
async def quota_filled(lab: Lab) -> AsyncIterator[None]:
    """Values until the node refuses the next one; then they are deleted and compacted."""
    node: NodeProcess = lab.single.nodes[0]
    headers = {"Authorization": f"Bearer {lab.admin_token}"}
    number = 0
    for size in (50_000, 2_000):
        while True:
            number += 1
            url = f"{node.url}/v1/kv/fill/{number}"
            async with lab.session.put(url, data=b"f" * size, headers=headers) as response:
                if response.status == 507:
                    break
                assert response.status == 201, await response.text()
    yield
    url = f"{node.url}/v1/kv?prefix=fill/"
    async with lab.session.delete(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        revision = (await response.json())["revision"]
    compact = f"{node.url}/v1/maintenance/compact"
    async with lab.session.post(compact, json={"revision": revision}, headers=headers) as response:
        assert response.status == 200, await response.text()


@asynccontextmanager
async def broken_token_file(lab: Lab) -> AsyncIterator[None]:
    """Somebody saves a token file that is none."""
    lab.tokens.write_text("this is not a token file\n")
    yield
    lab.tokens.write_text(token_line(lab.admin_token))


def token_line(token: str) -> str:
    return f"{hashlib.sha256(token.encode()).hexdigest()} admin\n"


# ---- the operator -------------------------------------------------------------------------------


@asynccontextmanager
async def rights_withdrawn(lab: Lab) -> AsyncIterator[None]:
    """The API server refuses the Service that the operator wants to repair."""
    lab.operator_faults.write_text('{"is_refusing": true}')
    yield
    lab.operator_faults.write_text("{}")


@asynccontextmanager
async def silent_nodes(lab: Lab) -> AsyncIterator[None]:
    """No node of the cluster answers the operator."""
    lab.operator_faults.write_text('{"is_silent": true}')
    yield
    lab.operator_faults.write_text("{}")


@asynccontextmanager
async def operator_killed(lab: Lab) -> AsyncIterator[None]:
    """SIGKILL to the operator."""
    lab.kill_operator()
    yield
    lab.restart_operator()


# ---- which alert, and where it shows ------------------------------------------------------------

Provoke = Callable[[Lab], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Provocation:
    """How an alert of a job is provoked, and what its panel then shows."""

    job: str
    provoke: Provoke
    dashboard: str
    panel: str
    shows: Callable[[float], bool]  # one of the panel's values


def above(limit: float) -> Callable[[float], bool]:
    return lambda value: value > limit


def below(limit: float) -> Callable[[float], bool]:
    return lambda value: value < limit


PROVOCATIONS: dict[str, Provocation] = {
    "RaftKVNodeDown": Provocation("kills", one_node_killed, "cluster", "Targets", below(1)),
    "RaftKVQuorumFragile": Provocation(
        "kills", one_node_killed, "cluster", "Fault tolerance", below(1)
    ),
    "RaftKVInsufficientMembers": Provocation(
        "kills", two_nodes_killed, "cluster", "Nodes up", below(2)
    ),
    "RaftKVNoLeader": Provocation("kills", two_nodes_killed, "cluster", "Leader known", below(1)),
    "RaftKVProposalsFailing": Provocation(
        "kills", two_nodes_killed, "cluster", "Writes", above(0.05)
    ),
    "RaftKVLearnerStuck": Provocation(
        "kills", learner_that_never_comes, "cluster", "Learners", above(0)
    ),
    "RaftKVLeaderFlapping": Provocation(
        "faults", leadership_handed_round, "cluster", "Leader changes", above(2.9)
    ),
    "RaftKVFsyncSlow": Provocation("faults", slow_disk, "latency", "Write and fsync", above(0.5)),
    "RaftKVSnapshotFailing": Provocation(
        "faults", full_disk, "storage", "Snapshots fail on", above(0)
    ),
    "RaftKVPeerSlow": Provocation(
        "faults", slow_network, "cluster", "Round trip to peers", above(0.15)
    ),
    "RaftKVEventLoopLag": Provocation(
        "faults", starved_process, "latency", "Event loop late, 99th percentile", above(0.3)
    ),
    "RaftKVHashMismatch": Provocation(
        "faults", memory_that_lies, "cluster", "State hash", above(0)
    ),
    "RaftKVQuotaNearlyFull": Provocation(
        "single", quota_filled, "storage", "Quota used", above(0.9)
    ),
    "RaftKVReloadFailing": Provocation(
        "single", broken_token_file, "storage", "Files not reloaded", above(0)
    ),
    "RaftKVReconcileStuck": Provocation(
        "operator", rights_withdrawn, "operator", "Failed passes", above(0)
    ),
    "RaftKVClusterUnavailable": Provocation(
        "operator", silent_nodes, "operator", "Available", below(1)
    ),
    "RaftKVOperatorDown": Provocation(
        "operator", operator_killed, "operator", "Operator", below(1)
    ),
}
