"""A node made of a store in memory: answers as `DriverApi` says, and as a test tells it to."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from raftkv.kv.commands import Command, Put, decode_command, encode_command, join_batch
from raftkv.kv.engine import Table
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import Item, Outcome
from raftkv.kv.records import META_KEY, Meta, encode_meta
from raftkv.kv.store import Store
from raftkv.node import queries
from raftkv.node.events import (
    Answer,
    BackupOpened,
    BackupPiece,
    Bootstrapped,
    Consistency,
    Drained,
    Found,
    Query,
    SnapshotTaken,
    Stale,
)
from raftkv.node.messages import ConfigChanged, Failure, RequestId, Transferred
from raftkv.node.status import ClusterStatus, MemberStatus, State, Status
from raftkv.raft.confchange import ConfigChange
from raftkv.raft.messages import Entry, EntryType, Member, NodeId
from raftkv.server.driver_api import Done, HowToRead

NODE_ID = 0x00AB_CDEF_0123_4567
LEADER_ID = 0xFFFF_0000_0000_0001

STATUS = Status(
    name="n1",
    member_id=NODE_ID,
    cluster_id="c1",
    state=State.RUNNING,
    role="leader",
    term=7,
    leader=NODE_ID,
    leader_name="n1",
    commit_index=12,
    applied_index=11,
    first_log_index=1,
    last_log_index=13,
    durable_index=13,
    revision=100,
    db_bytes=4096,
    keys=3,
    pending_requests=2,
    is_voter=True,
    caught_up=True,
    seconds_since_leader=0.0,
    is_transferring=False,
    version="0.1.0",
)

CLUSTER = ClusterStatus(
    cluster_id="c1",
    leader=NODE_ID,
    leader_name="n1",
    term=7,
    config_index=1,
    voters=(NODE_ID, LEADER_ID),
    learners=(),
    voters_outgoing=(),
    members=(
        MemberStatus(
            NODE_ID, "n1", "n1:7401", "http://n1:7400", "leader", True, 13, 0, 0.0, None, True
        ),
        MemberStatus(
            LEADER_ID, "n2", "n2:7401", "http://n2:7400", "follower", True, 9, 4, 0.1, 0.002, True
        ),
    ),
    fault_tolerance=0,
    state_hash="ab",
    state_hash_index=11,
)


def store_at(revision: int) -> Store:
    """An empty store that has seen ``revision`` changes."""
    engine = MemoryEngine()
    with engine.write() as writer:
        writer.put(Table.META, META_KEY, encode_meta(Meta(revision=revision)))
    return Store(engine)


@dataclass
class FakeDriver:
    """Keeps values in memory and remembers what it was asked."""

    state: Status = STATUS
    members: ClusterStatus = CLUSTER
    store: Store = field(default_factory=lambda: store_at(100))
    failure: Failure | None = None  # the answer to everything, when set
    outcomes: list[Outcome] = field(default_factory=list)  # of the next writes, not applied then
    finds: dict[type, Found] = field(default_factory=dict)  # by the kind of query
    age_seconds: float | None = 0.25  # of what is read without asking anybody
    is_asked: bool = True  # whether a bounded read has to ask
    lock_waits: list[tuple[bytes, float]] = field(default_factory=list)
    gate: asyncio.Event | None = None  # calls wait for it, when set
    stuck: str | None = None
    commands: list[Command] = field(default_factory=list)
    reads: list[tuple[bytes, Consistency, int, float]] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    max_stale_seconds: float = 0.0
    timeouts: list[float] = field(default_factory=list)
    bootstraps: list[tuple[str, tuple[Member, ...]]] = field(default_factory=list)
    drains: list[tuple[bool, tuple[NodeId, ...]]] = field(default_factory=list)
    changes: list[tuple[ConfigChange, int | None]] = field(default_factory=list)
    transfers: list[NodeId | None] = field(default_factory=list)
    backup_bytes: bytes = bytes(range(256)) * 4000
    backups: int = 0
    backups_ended: int = 0
    piece_failure: Failure | None = None
    begun: list[asyncio.Task[Answer]] = field(default_factory=list)
    waiting: int = 0
    cancelled: int = 0

    def __post_init__(self) -> None:
        self.on_revision: Callable[[int], None] = lambda _: None

    @property
    def revision(self) -> int:
        return self.store.revision

    @property
    def items(self) -> dict[bytes, Item]:
        """Everything that is stored now."""
        with self.store.engine.read() as reader:
            keys = [key for key, _ in reader.scan(Table.CUR, b"", None)]
        return {key: item for key in keys if (item := self.store.get(key)) is not None}

    def apply(self, *commands: bytes) -> list[Outcome]:
        """Apply encoded commands as one entry."""
        index = self.store.applied_index + 1
        entry = Entry(1, index, EntryType.NORMAL, join_batch(commands))
        before = self.revision
        (applied,) = self.store.apply([entry])
        if self.revision > before:
            self.on_revision(self.revision)
        return list(applied.outcomes or ())

    def apply_put(self, key: bytes) -> None:
        """Store ``key`` as its own value."""
        self.apply(encode_command(Put(key, key)))

    def change(self, **changes: object) -> None:
        """Report other values from now on."""
        self.state = msgspec.structs.replace(self.state, **changes)

    async def _wait(self) -> None:
        if self.gate is None:
            return
        self.waiting += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1

    async def write(self, command: bytes, timeout_seconds: float) -> Outcome | Failure:
        decoded = decode_command(command)
        self.commands.append(decoded)
        self.timeouts.append(timeout_seconds)
        await self._wait()
        if self.failure is not None:
            return self.failure
        return self.outcomes.pop(0) if self.outcomes else self.apply(command)[0]

    async def read(
        self,
        query: Query,
        consistency: Consistency,
        min_revision: int,
        timeout_seconds: float,
        max_stale_seconds: float = 0.0,
    ) -> Found | Stale | Failure:
        key = getattr(query, "key", getattr(query, "start", b""))
        self.queries.append(query)
        self.reads.append((key, consistency, min_revision, timeout_seconds))
        self.max_stale_seconds = max_stale_seconds
        await self._wait()
        if self.failure is not None:
            return self.failure
        found = self.finds.get(type(query)) or queries.answer(self.store, query)
        is_here = consistency is Consistency.LOCAL or not self.is_asked
        if consistency is Consistency.LINEARIZABLE or not is_here or isinstance(found, Failure):
            return found
        return Stale(found, self.age_seconds)

    def begin_write(self, command: bytes, timeout_seconds: float, done: Done) -> RequestId:
        return self._begin(self.write(command, timeout_seconds), done)

    def begin_read(self, query: Query, how: HowToRead, done: Done) -> RequestId:
        return self._begin(self.read(query, *how), done)

    def _begin(self, asking: Coroutine[Any, Any, Answer], done: Done) -> RequestId:
        task = asyncio.create_task(asking)
        self.begun.append(task)
        task.add_done_callback(lambda task: None if task.cancelled() else done(task.result()))
        return len(self.begun)

    def forget(self, request_id: RequestId) -> None:
        self.begun[request_id - 1].cancel()

    async def lock(
        self, command: bytes, name: bytes, wait_seconds: float, timeout_seconds: float
    ) -> Outcome | Failure:
        self.lock_waits.append((name, wait_seconds))
        return await self.write(command, timeout_seconds)

    async def change_config(
        self, change: ConfigChange, config_index: int | None, timeout_seconds: float
    ) -> ConfigChanged | Failure:
        self.changes.append((change, config_index))
        return self.failure or ConfigChanged(7)

    async def transfer(
        self, target: NodeId | None, timeout_seconds: float
    ) -> Transferred | Failure:
        self.transfers.append(target)
        return self.failure or Transferred(target or 2, 8)

    async def snapshot(self) -> SnapshotTaken | Failure:
        return self.failure or SnapshotTaken("100-7.snapshot", 100, self.revision, 4096)

    async def backup(self) -> BackupOpened | Failure:
        self.backups += 1
        taken = SnapshotTaken("100-7.snapshot", 100, self.revision, len(self.backup_bytes))
        return self.failure or BackupOpened(taken, 7)

    async def backup_piece(self, handle: int, offset: int, size: int) -> BackupPiece | Failure:
        assert handle == 7
        return self.piece_failure or BackupPiece(self.backup_bytes[offset : offset + size])

    def backup_end(self, handle: int) -> None:
        assert handle == 7
        self.backups_ended += 1

    async def bootstrap(
        self, cluster_id: str, members: tuple[Member, ...]
    ) -> Bootstrapped | Failure:
        repeated = (cluster_id, members) in self.bootstraps
        self.bootstraps.append((cluster_id, members))
        return self.failure or Bootstrapped(cluster_id, repeated)

    async def drain(self, *, draining: bool, avoid: tuple[NodeId, ...] = ()) -> Drained | Failure:
        self.drains.append((draining, avoid))
        self.change(state=State.DRAINING if draining else State.RUNNING)
        return self.failure or Drained(draining)

    def status(self) -> Status:
        return msgspec.structs.replace(self.state, revision=self.revision)

    def cluster(self) -> ClusterStatus:
        return self.members

    def look(self) -> None:
        """The members stay as they are."""

    def client_url_of(self, member: NodeId) -> str | None:
        urls = {each.id: each.client_url for each in self.members.members}
        return urls.get(member)

    def is_stuck(self) -> str | None:
        return self.stuck
