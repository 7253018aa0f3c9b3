"""Everything at once to real nodes whose links go through a fault proxy; all of it is judged.

    python -m tests.process.chaos --seconds 300        (make chaos CHAOS_SECONDS=300)

Harm follows harm, drawn from a seed: kills, pauses, partitions of every shape, slow, thin and
broken links, transfers of the leadership, members replaced, snapshots. Meanwhile clients read and
write keys (`tests.process.load`), count, lock, lease and watch (`tests.process.sessions`). At the
end all is healed, and the histories are judged.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic

from yarl import URL

from raftkv.client import Client, ClientError, RequestFailedError
from tests.process.cluster import NodeProcess, wait_until
from tests.process.fault_proxy import Fault
from tests.process.judge import judge, summary
from tests.process.load import Load
from tests.process.proxied import ProxiedCluster
from tests.process.sessions import Counting, Leasing, Locking, Session, Watching

# Snapshots and segments dropped all the time, a history that lasts as long as the run.
SETTINGS = ("--snapshot-min-bytes", "65536", "--history-keep", "3h", "--drain-seconds", "1")

# No promise: on a machine with many other things to do a process takes its time to start.
READY_SECONDS = 180.0


@dataclass
class Run:
    """What the harms act on."""

    cluster: ProxiedCluster
    client: Client
    load: Load
    random: Random
    done: Counter[str] = field(default_factory=Counter)
    spare: NodeProcess | None = None

    async def hold(self, least: float = 0.6, most: float = 2.5) -> None:
        await asyncio.sleep(self.random.uniform(least, most))

    def members(self) -> list[NodeProcess]:
        """All nodes that are in the cluster."""
        return [node for node in self.cluster.nodes if node is not self.spare]

    def names(self) -> list[str]:
        return [node.name for node in self.members()]

    async def some(self, *, leader: bool | None = None) -> NodeProcess:
        """The leader, a follower, or (None) any member."""
        if leader is None:
            return self.random.choice(self.members())
        leading = await self.cluster.wait_leader(30.0)
        if leader:
            return leading
        return self.random.choice([node for node in self.members() if node is not leading])


# ---- harms ---------------------------------------------------------------------------------


async def kill_one(run: Run) -> None:
    node = await run.some(leader=run.random.random() < 0.6 or None)
    node.kill()
    if run.random.random() < 0.5:
        await run.hold()
    node.start()


async def kill_majority(run: Run) -> None:
    chosen = run.random.sample(run.members(), len(run.members()) // 2 + 1)
    for node in chosen:
        node.kill()
    await run.hold(0.0, 1.0)
    for node in chosen:
        node.start()


async def kill_all(run: Run) -> None:
    for node in run.members():
        node.send_signal(signal.SIGKILL)
    for node in run.members():
        node.kill()
        node.start()


async def drain_one(run: Run) -> None:
    node = await run.some()
    node.send_signal(signal.SIGTERM)
    # Nobody to hand over to, or to answer: it waits for its disk and its clients, not for ever.
    await run.cluster.wait_exit(node, 30.0)
    node.start()


async def pause_one(run: Run) -> None:
    node = await run.some(leader=run.random.random() < 0.7 or None)
    node.send_signal(signal.SIGSTOP)
    try:
        await run.hold(0.3, 3.0)
    finally:
        node.send_signal(signal.SIGCONT)


async def isolate_leader(run: Run) -> None:
    run.cluster.proxy.isolate([(await run.some(leader=True)).name], run.names())
    await run.hold()


async def isolate_follower(run: Run) -> None:
    run.cluster.proxy.isolate([(await run.some(leader=False)).name], run.names())
    await run.hold()


async def no_majority(run: Run) -> None:
    names = run.names()
    run.cluster.proxy.set_faults(
        {(a, b): Fault(is_cut=True) for a in names for b in names if a != b}
    )
    await run.hold()


async def one_way(run: Run) -> None:
    """Nobody hears one node, which hears everybody; or the other way round."""
    node = (await run.some(leader=run.random.random() < 0.6)).name
    is_deaf = run.random.random() < 0.5
    run.cluster.proxy.set_faults(
        {
            (other, node) if is_deaf else (node, other): Fault(is_cut=True)
            for other in run.names()
            if other != node
        }
    )
    await run.hold()


async def bridge(run: Run) -> None:
    """Two nodes that reach each other through a third alone."""
    first, second = run.random.sample(run.names(), 2)
    cut = Fault(is_cut=True)
    run.cluster.proxy.set_faults({(first, second): cut, (second, first): cut})
    await run.hold()


async def slow_links(run: Run) -> None:
    fault = Fault(delay_seconds=run.random.choice([0.005, 0.02, 0.08]))
    run.cluster.proxy.everywhere(fault, run.names())
    await run.hold()


async def lossy_links(run: Run) -> None:
    run.cluster.proxy.everywhere(Fault(clog_chance=0.1, clog_seconds=0.2), run.names())
    await run.hold()


async def thin_links(run: Run) -> None:
    run.cluster.proxy.everywhere(Fault(bytes_per_second=100_000), run.names())
    await run.hold()


async def broken_links(run: Run) -> None:
    run.cluster.proxy.everywhere(Fault(reset_chance=0.03), run.names())
    await run.hold()


async def sliced_links(run: Run) -> None:
    run.cluster.proxy.everywhere(Fault(is_sliced=True), run.names())
    await run.hold()


async def flipped_bits(run: Run) -> None:
    run.cluster.proxy.everywhere(Fault(flip_chance=0.05), run.names())
    await run.hold()


async def behind_a_snapshot(run: Run) -> None:
    """A follower misses so much that the leader has no entries for it any more."""
    node = await run.some(leader=False)
    run.cluster.proxy.isolate([node.name], run.names())
    with suppress(ClientError):
        for number in range(8):
            await run.client.put(b"big/%d" % number, run.random.randbytes(40_000))
        for other in run.members():
            if other is not node:
                await run.client.snapshot(URL(other.url))
                # Its log in memory would reach farther back.
                other.kill()
                other.start()
                await run.cluster.wait_ready([other], READY_SECONDS)
    run.cluster.proxy.heal()
    await run.hold(0.2, 1.0)
    node.kill()
    node.start()


async def transfer(run: Run) -> None:
    with suppress(ClientError):
        await run.client.transfer_leader()


async def replace_member(run: Run) -> None:
    """A member is replaced, and its machine is the next spare, with an empty disk."""
    cluster = run.cluster
    spare = run.spare
    if spare is None:
        spare = run.spare = await cluster.add_spare("s1")

    async def own_id() -> str | None:
        status = await cluster.status(spare)
        return status["member_id"] if status and status["state"] == "uninitialised" else None

    new_id = await wait_until("the spare's id", own_id, 60.0)
    await cluster.wait_ready(run.members(), READY_SECONDS)
    victim = await run.some(leader=False)
    status = await cluster.status(victim)
    assert status is not None
    old_id = status["member_id"]
    await change(
        lambda: run.client.add_member(
            new_id, name=spare.name, peer_url=cluster.advertised(spare), client_url=spare.url
        ),
        done=("already_member",),
    )
    await cluster.learn_names()
    await change(lambda: run.client.replace_member(old_id, by=new_id), done=("unknown_member",))
    run.spare = victim
    run.load.urls = [node.url for node in run.members()]
    victim.kill()
    shutil.rmtree(victim.data)
    arguments = list(victim.arguments)
    if "--peers" in arguments:
        place = arguments.index("--peers")
        del arguments[place : place + 2]
    victim.arguments = arguments
    victim.start()


async def change(ask: Callable[[], Awaitable[object]], done: Sequence[str]) -> None:
    """A change of the membership, asked for until it has happened."""
    deadline = monotonic() + 60.0
    while True:
        try:
            await ask()
        except ClientError as error:
            if isinstance(error, RequestFailedError) and any(each in str(error) for each in done):
                return
            if monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


Harm = Callable[[Run], Awaitable[None]]

HARMS: tuple[Harm, ...] = (
    kill_one, kill_one, kill_majority, kill_all, drain_one, pause_one, pause_one, isolate_leader,
    isolate_follower, no_majority, one_way, one_way, bridge, slow_links, lossy_links, thin_links,
    broken_links, sliced_links, flipped_bits, behind_a_snapshot, transfer, replace_member,
)  # fmt: skip


# ---- a run ---------------------------------------------------------------------------------


async def chaos(directory: Path, harms: Callable[[Random], Harm | None], seed: int) -> str:
    """Do ``harms`` until they end (None); judge. What was done, for a person."""
    cluster = ProxiedCluster(directory, 3, SETTINGS, seed=seed)
    async with cluster, Client(cluster.urls, timeout_seconds=10.0) as client:
        watching = Watching(cluster.urls)
        sessions: list[Session] = [Counting(), Locking(), Leasing()]
        stopping = asyncio.Event()
        load = Load(cluster.urls, clients=4, pause_seconds=0.02, seed=seed)
        run = Run(cluster, client, load, Random(seed))
        async with asyncio.TaskGroup() as watchers:
            watchers.create_task(watching.run(client, stopping))
            await watching.begun()
            async with asyncio.TaskGroup() as group:
                for session in sessions:
                    group.create_task(session.run(client, stopping))
                try:
                    async with load:
                        await _do(run, harms)
                        await _heal(run)
                finally:
                    stopping.set()
            said = [await session.check(client) for session in sessions]
            await load.read_back()
            await client.put(watching.end, b"")
        said.append(await watching.check(client, load.history))
        cluster.check_alive(run.members())
    judge(load.history, directory)
    said.append(summary(load.history))
    harmed = ", ".join(f"{count} {name}" for name, count in sorted(run.done.items()))
    proxy = ", ".join(f"{count} {name}" for name, count in sorted(cluster.proxy.done.items()))
    return f"seed {seed}\nharms: {harmed}\nproxy: {proxy}\n" + "\n".join(said)


async def _do(run: Run, harms: Callable[[Random], Harm | None]) -> None:
    while (harm := harms(run.random)) is not None:
        run.done[harm.__name__] += 1
        await harm(run)
        run.cluster.proxy.heal()
        if run.random.random() < 0.7:
            await run.cluster.wait_ready(run.members(), READY_SECONDS)
            await run.hold(0.1, 0.8)


async def _heal(run: Run) -> None:
    run.cluster.proxy.heal()
    for node in run.members():
        if not node.is_running:
            node.start()
    await run.cluster.wait_ready(run.members(), READY_SECONDS)


def at_random(seconds: float) -> Callable[[Random], Harm | None]:
    """Any harms, for so long."""
    end_at = monotonic() + seconds
    return lambda random: random.choice(HARMS) if monotonic() < end_at else None


def one_after_the_other(*harms: Harm) -> Callable[[Random], Harm | None]:
    """These, in this order."""
    left = list(harms)
    return lambda _: left.pop(0) if left else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="raftkv-chaos-"))
    print(f"histories and logs are in {place}", flush=True)  # noqa: T201 the report
    print(asyncio.run(chaos(place, at_random(options.seconds), options.seed)))  # noqa: T201
    shutil.rmtree(place)
    sys.exit(0)
