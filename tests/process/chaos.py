"""Everything at once to real nodes whose links go through a fault proxy; all of it is judged.

    python -m tests.process.chaos --seconds 300        (make chaos CHAOS_SECONDS=300)

Harm follows harm, drawn from a seed: kills, pauses, partitions of every shape, slow, thin and
broken links, transfers of the leadership, members replaced, snapshots. Each goes on until what it
is for was seen to happen, and the run fails if that never was. Meanwhile clients read and write
keys (`tests.process.load`), count, lock, lease and watch (`tests.process.sessions`). At the end all
is healed, and the histories are judged.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic, monotonic_ns

from yarl import URL

from raftkv.client import Client, ClientError, RequestFailedError
from raftkv.storage.disk import run_task
from raftkv.storage.dump import Record, SegmentReader, read_listing, read_segment
from raftkv.storage.os_disk import OsDisk
from raftkv.storage.record import Snapshot
from tests.linearizability.history import write_history
from tests.process.cluster import NodeProcess, wait_until
from tests.process.fault_proxy import Fault, Link, around, everywhere
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
    #: What was seen to happen to nodes; what happened to links, the proxy counts.
    seen: Counter[str] = field(default_factory=Counter)
    spare: NodeProcess | None = None

    async def hold(self, least: float = 0.6, most: float = 2.5) -> None:
        await asyncio.sleep(self.random.uniform(least, most))

    def effects(self) -> Counter[str]:
        """All that was seen to happen so far."""
        return self.seen + self.cluster.proxy.effects()

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

    async def leading(self) -> tuple[NodeProcess, int]:
        """The leader and its term."""

        async def look() -> tuple[NodeProcess, int] | None:
            leader = await self.cluster.leader()
            status = leader and await self.cluster.status(leader)
            return (leader, status["term"]) if leader and status else None

        return await wait_until("some node leads", look, READY_SECONDS)

    async def other_leads(self, than: NodeProcess | None, term: int) -> None:
        """Wait until a member other than ``than`` leads a term after ``term``."""

        async def look() -> bool | None:
            for node in self.members():
                status = None if node is than else await self.cluster.status(node)
                if status and status["role"] == "leader" and status["term"] > term:
                    return True
            return None

        await wait_until(f"another leader in a term after {term}", look, READY_SECONDS)

    async def writes_go_on(self) -> None:
        """Wait until a write that is made from now on is acknowledged."""
        now_ns = monotonic_ns()

        async def look() -> bool | None:
            return self.load.first_write_called_after(now_ns) is not None or None

        await wait_until("writes go on", look, READY_SECONDS)

    async def suffer(
        self,
        kind: str,
        faults: dict[Link, Fault],
        enough: Callable[[Iterable[bool]], bool] = all,
    ) -> None:
        """Hurt links for a while, and until ``kind`` was done to ``enough`` of them."""
        proxy = self.cluster.proxy
        before = proxy.done.copy()
        proxy.set_faults(faults)
        await self.hold()

        async def look() -> bool | None:
            return enough(proxy.done[kind, link] > before[kind, link] for link in faults) or None

        await wait_until(f"{kind} on {sorted(faults)}", look, READY_SECONDS)


# ---- harms ---------------------------------------------------------------------------------


def gone(run: Run, node: NodeProcess) -> None:
    """SIGKILL what runs there; count that it ended of that."""
    run.cluster.check_alive([node])
    node.kill()
    assert node.process is not None
    assert node.process.returncode == -signal.SIGKILL, f"{node.name} ended by itself"
    run.seen["kill"] += 1


async def kill_one(run: Run) -> None:
    node = await run.some(leader=run.random.random() < 0.6 or None)
    gone(run, node)
    if run.random.random() < 0.5:
        await run.hold()
    node.start()


async def kill_majority(run: Run) -> None:
    chosen = run.random.sample(run.members(), len(run.members()) // 2 + 1)
    for node in chosen:
        gone(run, node)
    await run.hold(0.0, 1.0)
    for node in chosen:
        node.start()


async def kill_all(run: Run) -> None:
    run.cluster.check_alive(run.members())
    for node in run.members():
        node.send_signal(signal.SIGKILL)
    for node in run.members():
        assert await run.cluster.wait_exit(node, 30.0) == -signal.SIGKILL
        run.seen["kill"] += 1
    for node in run.members():
        node.start()


async def drain_one(run: Run) -> None:
    node = await run.some()
    # One that is only just starting ends at once.
    codes = {0} if await run.cluster.status(node) else {0, -signal.SIGTERM}
    node.send_signal(signal.SIGTERM)
    # Nobody to hand over to, or to answer: it waits for its disk and its clients, not for ever.
    assert await run.cluster.wait_exit(node, 30.0) in codes
    run.seen["drain"] += 1
    node.start()


async def pause_one(run: Run) -> None:
    node = await run.some(leader=run.random.random() < 0.7 or None)
    node.send_signal(signal.SIGSTOP)
    try:
        await run.hold(0.3, 3.0)
        # It stands still now, and so it did since.
        assert stands_still(node), f"{node.name} was not paused"
        run.seen["pause"] += 1
    finally:
        node.send_signal(signal.SIGCONT)


def stands_still(node: NodeProcess) -> bool:
    state = os.waitid(os.P_PID, node.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    return state is not None and state.si_status == signal.SIGSTOP


async def isolate_leader(run: Run) -> None:
    """While it is cut off, another leads in a higher term."""
    leader, term = await run.leading()
    await run.suffer("cut", around([leader.name], run.names()))
    await run.other_leads(leader, term)
    await run.writes_go_on()


async def isolate_follower(run: Run) -> None:
    await run.suffer("cut", around([(await run.some(leader=False)).name], run.names()))
    await run.writes_go_on()


async def no_majority(run: Run) -> None:
    await run.suffer("cut", everywhere(Fault(is_cut=True), run.names()))


async def one_way(run: Run) -> None:
    """Nobody hears one node, which hears everybody; or the other way round."""
    node = (await run.some(leader=run.random.random() < 0.6)).name
    is_deaf = run.random.random() < 0.5
    cut = {
        (other, node) if is_deaf else (node, other): Fault(is_cut=True)
        for other in run.names()
        if other != node
    }
    await run.suffer("cut", cut)
    await run.writes_go_on()


async def bridge(run: Run) -> None:
    """Two nodes that reach each other through a third alone, which is enough to go on."""
    first, second = run.random.sample(run.names(), 2)
    cut = Fault(is_cut=True)
    await run.suffer("cut", {(first, second): cut, (second, first): cut})
    await run.writes_go_on()


async def slow_links(run: Run) -> None:
    fault = Fault(delay_seconds=run.random.choice([0.005, 0.02, 0.08]))
    await run.suffer("delay", everywhere(fault, run.names()))


async def lossy_links(run: Run) -> None:
    fault = Fault(clog_chance=0.1, clog_seconds=0.2)
    await run.suffer("clog", everywhere(fault, run.names()), any)


async def thin_links(run: Run) -> None:
    await run.suffer("thin", everywhere(Fault(bytes_per_second=100_000), run.names()))


async def broken_links(run: Run) -> None:
    await run.suffer("reset", everywhere(Fault(reset_chance=0.03), run.names()), any)


async def sliced_links(run: Run) -> None:
    await run.suffer("slice", everywhere(Fault(is_sliced=True), run.names()))


async def flipped_bits(run: Run) -> None:
    await run.suffer("flip", everywhere(Fault(flip_chance=0.05), run.names()), any)


async def behind_a_snapshot(run: Run) -> None:
    """A follower misses so much that the leader has no entries for it any more."""
    cluster, client = run.cluster, run.client
    await cluster.wait_ready(run.members(), READY_SECONDS)
    node = await run.some(leader=False)
    await run.suffer("cut", around([node.name], run.names()))
    for number in range(8):
        value = run.random.randbytes(40_000)
        await change(partial(client.put, b"big/%d" % number, value))
    for other in run.members():
        if other is not node:
            await change(partial(client.snapshot, URL(other.url)))
            # Its log in memory would reach farther back.
            gone(run, other)
            other.start()
            await cluster.wait_ready([other], READY_SECONDS)
    before = await asyncio.to_thread(installs, node)
    cluster.proxy.heal()
    await run.hold(0.2, 1.0)
    gone(run, node)
    node.start()

    async def look() -> bool | None:
        return bool(await asyncio.to_thread(installs, node) - before) or None

    await wait_until(f"{node.name} installs a snapshot", look, READY_SECONDS)
    run.seen["install"] += 1


def installs(node: NodeProcess) -> set[str]:
    """The snapshots that the node took in place of its log, as its log on disk has it."""
    disk = OsDisk(str(node.data))
    listing = run_task(disk, read_listing())
    reader, names = SegmentReader(), set()
    for segment in listing.segments:
        content = run_task(disk, read_segment(segment))
        if content is None:
            continue  # removed meanwhile
        for item in reader.read(segment, content, is_last=segment is listing.segments[-1]):
            record = item.record if isinstance(item, Record) else None
            if isinstance(record, Snapshot) and record.installs:
                names.add(record.snapshot.name)
    return names


async def transfer(run: Run) -> None:
    _, term = await run.leading()
    await change(run.client.transfer_leader)
    await run.other_leads(None, term)
    run.seen["transfer"] += 1


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
    listed = {member.id for member in await run.client.members()}
    assert new_id in listed
    assert old_id not in listed
    run.seen["replacement"] += 1
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


async def change(ask: Callable[[], Awaitable[object]], done: Sequence[str] = ()) -> None:
    """A change, asked for until it has happened; ``done``: refused for having happened before."""
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

#: What must have been seen to happen once more when a harm is over.
EFFECTS: Mapping[Harm, str] = {
    kill_one: "kill", kill_majority: "kill", kill_all: "kill", drain_one: "drain",
    pause_one: "pause", isolate_leader: "cut", isolate_follower: "cut", no_majority: "cut",
    one_way: "cut", bridge: "cut", slow_links: "delay", lossy_links: "clog", thin_links: "thin",
    broken_links: "reset", sliced_links: "slice", flipped_bits: "flip",
    behind_a_snapshot: "install", transfer: "transfer", replace_member: "replacement",
}  # fmt: skip


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
        try:
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
        finally:
            # Of a run that ends here it is the evidence.
            write_history(directory / "history.jsonl", load.history)
        cluster.check_alive(run.members())
    judge(load.history, directory)
    said.append(summary(load.history))
    harmed, effects = (
        ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        for counts in (run.done, run.effects())
    )
    return f"seed {seed}\nharms: {harmed}\neffects: {effects}\n" + "\n".join(said)


async def _do(run: Run, harms: Callable[[Random], Harm | None]) -> None:
    while (harm := harms(run.random)) is not None:
        run.done[harm.__name__] += 1
        effect, before = EFFECTS[harm], run.effects()
        await harm(run)
        assert run.effects()[effect] > before[effect], f"{harm.__name__}: no {effect}"
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
