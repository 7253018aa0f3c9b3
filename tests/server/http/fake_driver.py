"""A node made of a dict: answers as the contract of `DriverApi` says, and as a test tells it to."""

import asyncio
from dataclasses import dataclass, field

import msgspec

from raftkv.kv.commands import (
    Append,
    Command,
    ConditionFailed,
    Delete,
    Deleted,
    Item,
    Outcome,
    Put,
    TooLarge,
    Written,
    decode_command,
)
from raftkv.node.events import Bootstrapped, Consistency, Drained, Failure, Query, ReadResult
from raftkv.node.status import ClusterStatus, MemberStatus, State, Status
from raftkv.raft.messages import Member, NodeId

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


@dataclass
class FakeDriver:
    """Keeps values in memory and remembers what it was asked."""

    state: Status = STATUS
    members: ClusterStatus = CLUSTER
    items: dict[bytes, Item] = field(default_factory=dict)
    revision: int = 100
    failure: Failure | None = None  # the answer to everything, when set
    gate: asyncio.Event | None = None  # calls wait for it, when set
    stuck: str | None = None
    commands: list[Command] = field(default_factory=list)
    reads: list[tuple[bytes, Consistency, int, float]] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    bootstraps: list[tuple[str, tuple[Member, ...]]] = field(default_factory=list)
    drains: list[tuple[bool, tuple[NodeId, ...]]] = field(default_factory=list)
    waiting: int = 0
    cancelled: int = 0

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
        return self.failure or self._apply(decoded)

    async def read(
        self,
        query: Query,
        consistency: Consistency,
        min_revision: int,
        timeout_seconds: float,
    ) -> ReadResult | Failure:
        self.reads.append((query.key, consistency, min_revision, timeout_seconds))
        await self._wait()
        return self.failure or ReadResult(self.items.get(query.key), self.revision)

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

    def client_url_of(self, member: NodeId) -> str | None:
        urls = {each.id: each.client_url for each in self.members.members}
        return urls.get(member)

    def is_stuck(self) -> str | None:
        return self.stuck

    def _apply(self, command: Command) -> Outcome:
        old = self.items.get(command.key)
        condition = command.condition
        if condition is not None:
            mod_revision = old.mod_revision if old else 0
            if condition.revisions is not None:
                holds = mod_revision in condition.revisions
            else:
                holds = (old is not None) is condition.exists
            if not holds:
                return ConditionFailed(self.revision, mod_revision)
        match command:
            case Put():
                return self._store(command.key, command.value, old)
            case Append():
                value = (old.value if old else b"") + command.suffix
                if len(value) > command.value_bytes_max:
                    return TooLarge(self.revision, len(value))
                return self._store(command.key, value, old)
            case Delete():
                if old is None:
                    return Deleted(self.revision, 0)
                del self.items[command.key]
                self.revision += 1
                return Deleted(self.revision, 1)

    def _store(self, key: bytes, value: bytes, old: Item | None) -> Outcome:
        self.revision += 1
        version = old.version + 1 if old else 1
        created = old.create_revision if old else self.revision
        self.items[key] = Item(key, value, created, self.revision, version)
        return Written(self.revision, version)
