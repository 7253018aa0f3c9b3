"""A cluster of `RawNode`s in one process: each with a disk, a state machine and a network.

`Host` does for one node what the node class does (see `raftkv.raft.rawnode`), step by step and
only when told, so that a test decides about every order and loss. `Cluster` adds the messages in
flight. Used by the commands of `raftkv demo` and of the golden traces, by the paper tests and the
random schedules. An AssertionError means that its caller asked for what cannot be.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from raftkv.raft import (
    Config,
    ConfState,
    Entry,
    EntryId,
    EntryType,
    HardState,
    Index,
    Input,
    InstallSnapshot,
    Member,
    Message,
    NodeId,
    RawNode,
    ReadState,
    Rng,
    SnapshotBase,
    SnapshotWanted,
    Write,
    encode_conf_state,
)
from raftkv.raft.describe import (
    describe_conf_state,
    describe_entry,
    describe_id,
    describe_message,
    describe_soft_state,
    describe_write,
)

ELECTION_TICKS = 10
HEARTBEAT_TICKS = 3
FOUNDED_TERM = 1


class ShortestTimeouts:
    """An `Rng` that always draws the lowest number: election timeouts are ELECTION_TICKS."""

    def randrange(self, start: int, stop: int, /) -> int:
        """The lowest there is."""
        assert start < stop
        return start


def make_conf(
    voters: Sequence[NodeId],
    learners: Sequence[NodeId] = (),
    outgoing: Sequence[NodeId] = (),
) -> ConfState:
    """A configuration whose members all have the session of the founding entry."""
    members = sorted({*voters, *learners, *outgoing})
    return ConfState(
        voters=tuple(sorted(voters)),
        learners=tuple(sorted(learners)),
        voters_outgoing=tuple(sorted(outgoing)),
        members=tuple(map(make_member, members)),
        sessions=tuple((member, 1) for member in members),
    )


def make_member(node_id: NodeId, name: str = "") -> Member:
    """A member with the addresses of its name, which by default is ``n1`` for node 1."""
    name = name or f"n{node_id:x}"
    return Member(node_id, name, f"{name}:7401", f"http://{name}:7400")


def make_entry(index: int, term: int, data: bytes | None = None) -> Entry:
    """An entry of ``data``, by default ``e7`` at index 7."""
    return Entry(term, index, EntryType.NORMAL, f"e{index}".encode() if data is None else data)


def make_config_entry(index: int, term: int, conf: ConfState) -> Entry:
    """An entry that holds a configuration."""
    return Entry(term, index, EntryType.CONFIG, encode_conf_state(conf))


@dataclass
class Disk:
    """What survives a crash."""

    hard_state: HardState = field(default_factory=HardState)
    base: EntryId = field(default_factory=lambda: EntryId(0, 0))
    base_conf: ConfState = field(default_factory=ConfState)
    base_config_index: Index = 0
    entries: list[Entry] = field(default_factory=list)
    # All that was applied up to ``base``: the state machine in the snapshot.
    state: tuple[Entry, ...] = ()

    def snapshot(self, base: SnapshotBase, state: tuple[Entry, ...]) -> None:
        """The log begins after ``base``, whether that is a part of it or replaces it."""
        index = base.last.index
        is_part = any(
            entry_id == base.last for entry_id in (self.base, *(e.id for e in self.entries))
        )
        self.entries = [entry for entry in self.entries if is_part and entry.index > index]
        self.base, self.base_conf = base.last, base.conf
        self.base_config_index = base.config_index
        self.state = state

    def apply(self, write: Write) -> None:
        """The write, but for its snapshot, is durable."""
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.entries:
            del self.entries[write.entries[0].index - self.base.index - 1 :]
            self.entries += write.entries
        indexes = [entry.index for entry in self.entries]
        assert indexes == list(range(self.base.index + 1, self.base.index + 1 + len(indexes)))


class Host:
    """One node: a RawNode with its disk and an applied list in place of a state machine."""

    def __init__(
        self,
        node_id: NodeId,
        disk: Disk,
        rng: Rng,
        say: Callable[[str], None],
        settings: dict[str, int],
    ) -> None:
        self.id = node_id
        self.disk = disk
        self.rng = rng
        self.settings = settings
        self.write: Write | None = None  # started, not durable yet
        self.applied: list[Entry] = []  # by this process; a restart applies from the start
        self.to_apply: list[Entry] = []  # handed out, not applied yet
        self.state: list[Entry] = []  # all that was ever applied: the state machine
        # Snapshots that were received, by their last entry.
        self.files: dict[EntryId, tuple[Entry, ...]] = {}
        self.snapshots_wanted: list[SnapshotWanted] = []
        self.read_states: list[ReadState] = []
        self.reads_dropped: list[int] = []
        self._say = say
        self._raft: RawNode | None = None
        self.start()

    @property
    def is_up(self) -> bool:
        """Whether its process runs."""
        return self._raft is not None

    @property
    def raft(self) -> RawNode:
        """Its core; the node is up."""
        assert self._raft is not None, "the node is down"
        return self._raft

    def start(self, applied: int | None = None) -> None:
        """Start from what the disk holds; ``applied`` if the state machine survived up to there."""
        config = Config(
            id=self.id,
            election_ticks=ELECTION_TICKS,
            election_jitter_ticks=ELECTION_TICKS,
            heartbeat_ticks=HEARTBEAT_TICKS,
            check_invariants=True,
            **self.settings,
        )
        self._raft = RawNode(
            config,
            hard_state=self.disk.hard_state,
            base=self.disk.base,
            base_conf=self.disk.base_conf,
            base_config_index=self.disk.base_config_index,
            entries=tuple(self.disk.entries),
            applied=self.disk.base.index if applied is None else applied,
            rng=self.rng,
        )
        known = self.disk.entries[: self.raft.applied_index - self.disk.base.index]
        self.state = [*self.disk.state, *known]

    def crash(self) -> None:
        """Lose everything but the disk; of a write in flight nothing arrived."""
        self._raft = None
        self.write = None
        self.applied = []
        self.to_apply = []
        self.read_states = []
        self.reads_dropped = []
        self.state = []
        self.files = {}
        self.snapshots_wanted = []

    def take_ready(self) -> list[Message]:
        """Carry out one Ready, but neither finish its write nor apply its entries."""
        ready = self.raft.ready()
        name = describe_id(self.id)
        if ready.soft_state is not None:
            self._say(f"{name} {describe_soft_state(ready.soft_state)}")
        if ready.conf_state is not None:
            self._say(f"{name} configuration {describe_conf_state(ready.conf_state)}")
        if ready.write is not None:
            assert self.write is None, "a second write in flight"
            self.write = ready.write
            self._say(f"{name} {describe_write(ready.write)}")
            if ready.write.snapshot is not None:
                self.to_apply = []
        for wanted in ready.snapshots_wanted:
            peer = describe_id(wanted.peer)
            self._say(f"{name} wants a snapshot of {wanted.min_index} or later for {peer}")
        self.snapshots_wanted += ready.snapshots_wanted
        self.to_apply += ready.committed_entries
        for read in ready.read_states:
            self._say(f"{name} read {read.context} at index {read.index}")
        for context in ready.reads_dropped:
            self._say(f"{name} read {context} dropped")
        self.read_states += ready.read_states
        self.reads_dropped += ready.reads_dropped
        return ready.messages

    def finish_write(self) -> list[Message]:
        """The write in flight is durable."""
        write = self.write
        assert write is not None, "no write in flight"
        self.write = None
        self.write_to_disk(write)
        if write.snapshot is not None:
            self.state = list(self.disk.state)
        self.raft.persisted(write.number)
        return write.messages

    def write_to_disk(self, write: Write) -> None:
        """All of ``write`` is durable; the core is not told yet."""
        if write.snapshot is not None:
            self.disk.snapshot(write.snapshot, self.files[write.snapshot.last])
        self.disk.apply(write)

    def take_snapshot(self) -> SnapshotBase:
        """Snapshot what is applied; the disk's log begins there now, the core's as before."""
        index = len(self.state)
        config_index, conf = self.raft.conf_at(index)
        term = self.raft.term_of(index)
        assert term is not None
        base = SnapshotBase(EntryId(term, index), config_index, conf)
        self.disk.snapshot(base, tuple(self.state))
        return base

    def newest_snapshot(self) -> SnapshotBase:
        """What the disk's log begins after; EntryId(0, 0) if there never was a snapshot."""
        return SnapshotBase(self.disk.base, self.disk.base_config_index, self.disk.base_conf)

    def apply(self) -> None:
        """Apply what was handed out."""
        for entry in self.to_apply:
            self._say(f"{describe_id(self.id)} applies {describe_entry(entry)}")
        if self.to_apply:
            assert self.to_apply[0].index == len(self.state) + 1, "applied out of order"
            self.applied += self.to_apply
            self.state += self.to_apply
            self.raft.applied(self.to_apply[-1].index)
            self.to_apply = []


class Cluster:
    """Hosts and the messages between them. ``lines`` tells what happened, for traces."""

    def __init__(self, rng: Rng | None = None, settings: dict[str, int] | None = None) -> None:
        self.hosts: dict[NodeId, Host] = {}
        self.in_flight: list[Input] = []  # in the order they were sent
        self.files: dict[EntryId, tuple[Entry, ...]] = {}  # snapshots that were ever sent
        self.lines: list[str] = []
        self.cut: set[tuple[NodeId, NodeId]] = set()  # one-way links that lose everything
        self._rng = rng or ShortestTimeouts()
        self._settings = {} if settings is None else settings  # the caller may change it

    # ---- building ---------------------------------------------------------------------------

    def add_empty(self, ids: Iterable[NodeId]) -> None:
        """Nodes that belong to no cluster yet."""
        for node_id in ids:
            self._add(node_id, Disk())

    def add_founded(self, conf: ConfState, ids: Iterable[NodeId]) -> None:
        """Nodes that hold the founding entry, committed and applied by nobody yet."""
        for node_id in ids:
            self.add_with_log(node_id, [make_config_entry(1, FOUNDED_TERM, conf)], commit=1)

    def add_with_log(
        self,
        node_id: NodeId,
        entries: list[Entry],
        *,
        term: int | None = None,
        vote: NodeId | None = None,
        commit: int = 0,
    ) -> None:
        """A node that restarts with this log, all of it durable."""
        last_term = entries[-1].term if entries else 0
        hard_state = HardState(last_term if term is None else term, vote, commit)
        self._add(node_id, Disk(hard_state, entries=entries))

    def _add(self, node_id: NodeId, disk: Disk) -> None:
        self.hosts[node_id] = Host(node_id, disk, self._rng, self.lines.append, self._settings)
        self.hosts = dict(sorted(self.hosts.items()))

    # ---- single steps -----------------------------------------------------------------------

    def raft(self, node_id: NodeId) -> RawNode:
        """The core of a node that is up."""
        return self.hosts[node_id].raft

    def up(self) -> list[Host]:
        """All nodes that are not crashed."""
        return [host for host in self.hosts.values() if host.is_up]

    def send(self, messages: Iterable[Input]) -> None:
        """Put ``messages`` in flight, but for those that a cut link loses."""
        for message in messages:
            if (message.sender, message.receiver) in self.cut:
                self.lines.append(f"{describe_message(message)} (lost)")
                self.lost(message)
            else:
                self.in_flight.append(message)
                self.lines.append(describe_message(message))

    def take_ready(self, node_id: NodeId) -> None:
        """`Host.take_ready`, and send its messages."""
        self.send(self.hosts[node_id].take_ready())

    def finish_write(self, node_id: NodeId) -> None:
        """`Host.finish_write`, and send its messages."""
        self.send(self.hosts[node_id].finish_write())

    def deliver(self, message: Input) -> None:
        """Hand over a message in flight; nodes that are down or unknown get nothing."""
        self.in_flight.remove(message)
        self.hand_over(message)

    def hand_over(self, message: Input) -> None:
        """Step ``message`` into its receiver, whether or not it was ever sent."""
        host = self.hosts.get(message.receiver)
        if host is None or not host.is_up:
            self.lost(message)
        elif isinstance(message, InstallSnapshot):
            host.files[message.last] = self.files[message.last]
            host.raft.step(message)
            self._tell_that_it_arrived(message)
        else:
            host.raft.step(message)

    def _tell_that_it_arrived(self, message: InstallSnapshot) -> None:
        """The hosts' own protocol: the sender learns that the file and its message are there."""
        sender = self.hosts.get(message.sender)
        if (message.receiver, message.sender) in self.cut:
            self.lost(message)
        elif sender is not None and sender.is_up:
            sender.raft.snapshot_sent(message.receiver, message.last.index)

    def lost(self, message: Input) -> None:
        """The hosts' own protocol: the sender of a file learns that nobody confirmed it."""
        sender = self.hosts.get(message.sender)
        if isinstance(message, InstallSnapshot) and sender is not None and sender.is_up:
            sender.raft.snapshot_failed(message.receiver)

    def send_snapshot(self, node_id: NodeId, peer: NodeId) -> None:
        """Send the newest snapshot of ``node_id`` to ``peer``: file and message in one."""
        host = self.hosts[node_id]
        snapshot = host.newest_snapshot()
        message = host.raft.install_message(peer, snapshot)
        if message is not None:
            self.files[snapshot.last] = host.disk.state
            self.send([message])

    def send_wanted_snapshots(self, host: Host) -> bool:
        """Send what the core of ``host`` asked for. Returns whether it asked."""
        wants, host.snapshots_wanted = host.snapshots_wanted, []
        for wanted in wants:
            if host.raft.is_installing:
                host.raft.snapshot_failed(wanted.peer)  # it has no state to give
                continue
            if host.disk.base.index < wanted.min_index:
                host.take_snapshot()
            self.send_snapshot(host.id, wanted.peer)
        return bool(wants)

    def isolate(self, *sides: Iterable[NodeId]) -> None:
        """Cut all links between the given sides, both ways."""
        groups = [set(side) for side in sides]
        for group in groups:
            for other in groups:
                if group is not other:
                    self.cut |= {(a, b) for a in group for b in other}

    # ---- many steps -------------------------------------------------------------------------

    def settle(self, ids: Iterable[NodeId] | None = None) -> None:
        """Carry out everything among ``ids`` (default: all) until nothing is left to do.

        Writes are durable at once and entries applied at once. Messages to other nodes stay in
        flight.
        """
        among = [host for host in self.up() if ids is None or host.id in set(ids)]
        members = {host.id for host in among}
        while True:
            is_idle = True
            for host in among:
                is_idle = not self._run(host) and is_idle
                is_idle = not self.send_wanted_snapshots(host) and is_idle
            arriving = [m for m in self.in_flight if m.receiver in members or ids is None]
            for message in arriving:
                self.deliver(message)
                is_idle = False
            if is_idle:
                return

    def _run(self, host: Host) -> bool:
        """Take Readys and finish writes until the host has nothing to do."""
        has_run = False
        while host.raft.has_ready() or host.write is not None or host.to_apply:
            has_run = True
            if host.raft.has_ready():
                self.take_ready(host.id)
            if host.write is not None:
                self.finish_write(host.id)
            host.apply()
        return has_run

    def tick(self, node_id: NodeId, count: int = 1) -> None:
        """Let ``count`` ticks pass on a node."""
        for _ in range(count):
            self.raft(node_id).tick()

    def leader(self) -> NodeId | None:
        """The leader of the highest term, if any node leads."""
        leaders = [host for host in self.up() if host.raft.role == "leader"]
        return max(leaders, key=lambda host: host.raft.term).id if leaders else None

    def elect(self, node_id: NodeId) -> None:
        """Let ``node_id`` win an election, and everything settle."""
        self.raft(node_id).campaign()
        self.settle()
        assert self.leader() == node_id


def founded_cluster(*voters: NodeId, rng: Rng | None = None, **settings: int) -> Cluster:
    """A cluster of ``voters`` after founding, without a leader."""
    cluster = Cluster(rng, settings)
    cluster.add_founded(make_conf(voters), voters)
    return cluster
