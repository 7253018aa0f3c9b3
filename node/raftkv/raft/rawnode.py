"""The consensus core as its host sees it: inputs as method calls, outputs as one `Ready`.

Owned and called by the node class (`raftkv.node.node`), by the simulation and by the tests, from
one thread. It has no clock, disk, socket or randomness of its own. The host's loop:

    1. Call inputs in any number and order: `tick`, `step`, `propose`, `read_index`, `persisted`,
       `applied`, ...
       `InstallSnapshot` is stepped by this node's own host, once the file is durable.
    2. Take `ready()` and
       a. send ``messages``, in any order; losing, doubling or delaying some is harmless;
       b. start the ``write``, if there is one. When it is durable: `persisted(write.number)`,
          and send ``write.messages``. Never before: they promise what the write makes true. If
          the write fails, the process must end. A write with a ``snapshot`` replaces log and
          state machine; what was handed out and is not applied yet is void.
       c. apply ``committed_entries`` in order, then call `applied`;
       d. serve each read of ``read_states`` once everything up to its index is applied; ask
          again, with a new context, for those in ``reads_dropped``;
       e. send a snapshot to each of ``snapshots_wanted``, and report `snapshot_sent` or
          `snapshot_failed`;
       f. propose what `learners_to_promote` lists, on a leader, now and then;
       g. `compact` the log, when it grows too long.
    3. Repeat when there is a new input; inputs need not wait for the write or for apply.

After a crash the host makes a new RawNode of what its disk holds. Source: the shape is that of
etcd-io/raft's ``rawnode.go``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from raftkv.raft import election, membership, reading, replication, snapshotting
from raftkv.raft.confchange import ConfigChange
from raftkv.raft.config import Config, Rng
from raftkv.raft.durability import Write
from raftkv.raft.invariants import Observation, check_basic, check_delta, observe
from raftkv.raft.log import RaftLog
from raftkv.raft.messages import (
    ConfState,
    Entry,
    EntryId,
    HardState,
    Index,
    Input,
    InstallSnapshot,
    Member,
    Message,
    NodeId,
    SnapshotBase,
    Term,
)
from raftkv.raft.progress import Progress, ProgressState
from raftkv.raft.raft import Raft
from raftkv.raft.read_only import ReadState
from raftkv.raft.roles import Leader, Role, SoftState
from raftkv.raft.snapshotting import SnapshotWanted

__all__ = ["Config", "RawNode", "Ready", "Rng"]

_NO_PROGRESS: Mapping[NodeId, Progress] = MappingProxyType({})


@dataclass(slots=True)
class Ready:
    """Everything the host has to do now; taking it takes it out of the core."""

    soft_state: SoftState | None = None  # when changed since the last Ready
    messages: list[Message] = field(default_factory=list)  # may be sent now
    write: Write | None = None  # to be started now; None also while one is in flight
    # To be applied in order; the next batch comes once this one is `applied`.
    committed_entries: list[Entry] = field(default_factory=list)
    read_states: list[ReadState] = field(default_factory=list)
    reads_dropped: list[int] = field(default_factory=list)  # contexts never to be answered
    conf_state: ConfState | None = None  # when the configuration in force changed
    # Whom to stay connected to, when that changed: the other members, and those just removed.
    contacts: tuple[Member, ...] | None = None
    snapshots_wanted: list[SnapshotWanted] = field(default_factory=list)  # each said once


class Positions(NamedTuple):
    """How far the log of this node is."""

    is_leader: bool
    last_index: Index
    handed_out_index: Index  # durable up to here, or will be by the write in flight
    commit_index: Index


class RawNode:
    """One node's consensus core; see the module docstring for the host's duties."""

    def __init__(
        self,
        config: Config,
        *,
        hard_state: HardState,
        base: EntryId,
        base_conf: ConfState,
        entries: Sequence[Entry],
        applied: Index,
        rng: Rng,
        base_config_index: Index | None = None,
    ) -> None:
        """Start from what the disk holds.

        Args:
            config: The settings.
            hard_state: The newest that is durable; all zero for a new node.
            base: The last entry that the log dropped; EntryId(0, 0) if it is complete.
            base_conf: The configuration in force at ``base``.
            entries: The log after ``base``, without gap, all durable.
            applied: How far the state machine is; entries up to it are not handed out again.
            rng: For election timeouts.
            base_config_index: The index of the entry that held ``base_conf``; None: as ``base``.
        """
        if hard_state.term < base.term:
            # Killed between the snapshot and the hard state of one write. No vote of that term
            # was sent, as it was never durable.
            hard_state = HardState(base.term, None, hard_state.commit)
        log = RaftLog(base, base_conf, entries, hard_state.commit, applied, base_config_index)
        self._raft = Raft(config, hard_state, log, rng)
        # What the host was told last; a new node is expected to be a follower.
        self._told_soft_state = SoftState(Role.FOLLOWER, None, hard_state.term)
        self._told_conf_state = log.conf_state
        self._told_contacts: tuple[Member, ...] = self._raft.contacts
        self._observation: Observation | None = None
        self._check()

    # ---- inputs -----------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick interval passed."""
        self._raft.tick()
        self._check()

    def step(self, message: Input) -> None:
        """Take a message from a peer. What cannot be right is dropped and counted.

        An `InstallSnapshot` must only come from this node's own host, never off the wire.
        """
        self._raft.step(message)
        self._check()

    def propose(self, data: bytes) -> EntryId:
        """Append ``data`` to the log, and return the name of its entry.

        It is committed if and only if an entry of this name is among the committed ones; if
        another term's entry comes to be committed at its index, it never will be.

        Raises:
            ProposalDropped: Nothing was appended; ``reason`` says why.
        """
        entry_id = self._raft.propose(data)
        self._check()
        return entry_id

    def propose_config(self, change: ConfigChange) -> EntryId:
        """Append the configuration after ``change``, and return the name of its entry.

        It is in force at once, and may still be lost with its entry, as with `propose`.

        Raises:
            ConfigChangeRefused: Nothing was changed; the reason and a sentence say why.
        """
        entry_id = membership.propose(self._raft, change)
        self._check()
        return entry_id

    def learners_to_promote(self) -> list[NodeId]:
        """Learners added with ``promote_when_caught_up`` that `propose_config` would promote now.

        Empty but on a leader. One at a time: the next is listed when the first is committed.
        """
        return membership.learners_to_promote(self._raft)

    def read_index(self, context: int) -> None:
        """Ask from which index on a read that arrived before this call is linearizable.

        The answer is a ReadState in some later Ready, or ``context`` in ``reads_dropped``; on a
        follower neither may come for an election timeout. ``context`` must never be used twice
        in the cluster, also not to retry: an old answer must not pass for a new one.

        Raises:
            ReadDropped: No leader is known.
        """
        reading.read_index(self._raft, context)
        self._check()

    def bootstrap(self, conf: ConfState) -> None:
        """Found a cluster (see the package docstring). Once per cluster, on one node.

        ``conf`` is simple, lists this node as voter and gives every voter the session 1.

        Raises:
            BootstrapRefused: The node is not empty, or ``conf`` is not as it must be.
        """
        self._raft.bootstrap(conf)
        self._check()

    def transfer_leader(self, target: NodeId) -> None:
        """Hand leadership to ``target``, another voter; only to be called on the leader.

        Proposals are dropped until the transfer is done or, after an election timeout, given
        up. Ignored while founding, as that leadership ends by itself.
        """
        self._raft.transfer_leader(target)
        self._check()

    def campaign(self) -> None:
        """Campaign now, as if the election timeout had passed. Ignored by who cannot or leads."""
        if self._raft.may_campaign and not isinstance(self._raft.role, Leader):
            election.campaign(self._raft)
            self._check()

    def persisted(self, write_number: int) -> None:
        """The write of this number is durable. The caller now sends that write's messages."""
        self._raft.persisted(write_number)
        self._check()

    def applied(self, index: Index) -> None:
        """The state machine is at ``index``, which was handed out."""
        self._raft.log.applied_to(index)
        self._check()

    def compact(self, index: Index) -> None:
        """Drop the entries up to ``index`` from memory, as far as they are applied and durable.

        A peer that needs one of them gets a snapshot instead, so the host should keep some for
        those that are a little behind; and, while a snapshot is on its way to a peer, those after
        it, or the peer will need another.
        """
        log = self._raft.log
        index = min(index, log.applied, log.durable)
        if index > log.base.index:  # never so while a snapshot is being installed
            log.compact(index)
        self._check()

    def snapshot_sent(self, peer: NodeId, index: Index) -> None:
        """``peer``'s host has a snapshot up to ``index``, verified and durable.

        Its core will answer; if nothing comes for an election timeout, it is asked.
        """
        snapshotting.sent(self._raft, peer, index)
        self._check()

    def snapshot_failed(self, peer: NodeId) -> None:
        """The snapshot for ``peer`` did not arrive. It is wanted again, if it still is needed."""
        snapshotting.failed(self._raft, peer)
        self._check()

    # ---- outputs ----------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether `ready` would hold anything."""
        raft, log = self._raft, self._raft.log
        leader = raft.role
        return bool(
            raft.messages
            or raft.read_states
            or raft.reads_dropped
            or log.has_applicable
            or raft.durability.can_begin(raft.term, raft.vote, log)
            or raft.durability.can_release(raft.term, raft.vote, log.durable)
            or log.conf_state is not self._told_conf_state
            or raft.contacts is not self._told_contacts
            or self._is_role_news()
            or (
                isinstance(leader, Leader)
                and (
                    leader.is_heartbeat_due
                    or leader.has_news
                    or reading.can_begin_round(raft, leader)
                )
            )
        )

    def ready(self) -> Ready:
        """Take out the work. Called again without a new input, it is empty."""
        raft, log, durability = self._raft, self._raft.log, self._raft.durability
        if isinstance(raft.role, Leader):
            replication.flush(raft, raft.role)
        ready = Ready(
            messages=raft.messages,
            read_states=raft.read_states,
            reads_dropped=raft.reads_dropped,
            committed_entries=list(log.take_applicable(raft.config.apply_bytes_max)),
        )
        raft.messages, raft.read_states, raft.reads_dropped = [], [], []
        ready.snapshots_wanted, raft.snapshots_wanted = raft.snapshots_wanted, []
        # What is true on disk already does not wait for the next write.
        ready.messages += durability.release(raft.term, raft.vote, log.durable)
        if durability.can_begin(raft.term, raft.vote, log):
            ready.write = durability.begin(raft.hard_state, log)
        if self._is_role_news():
            soft_state = SoftState(self.role, raft.leader_id, raft.term)
            ready.soft_state = self._told_soft_state = soft_state
        if log.conf_state is not self._told_conf_state:
            ready.conf_state = self._told_conf_state = log.conf_state
        if raft.contacts is not self._told_contacts:
            ready.contacts = self._told_contacts = raft.contacts
        self._check()
        return ready

    def _is_role_news(self) -> bool:
        """Whether the soft state is another than the one that was told last."""
        told, raft = self._told_soft_state, self._raft
        return (
            raft.term != told.term or raft.leader_id != told.leader_id or self.role is not told.role
        )

    def _check(self) -> None:
        if not self._raft.config.check_invariants:
            return
        now = observe(self._raft)
        check_basic(self._raft)
        if self._observation is not None:
            check_delta(self._observation, now)
        self._observation = now

    # ---- what it is, for status, metrics and tests ------------------------------------------

    def positions(self) -> Positions:
        """How far the log is, for measuring; cheap, to be called every turn."""
        log = self._raft.log
        is_leader = isinstance(self._raft.role, Leader)
        return Positions(is_leader, log.last_index, log.handed_out, log.commit)

    @property
    def id(self) -> NodeId:
        """This node."""
        return self._raft.id

    @property
    def term(self) -> Term:
        """The current term; it may not be durable yet."""
        return self._raft.term

    @property
    def vote(self) -> NodeId | None:
        """The vote cast in ``term``."""
        return self._raft.vote

    @property
    def role(self) -> Role:
        """What this node is in ``term``."""
        return self._raft.role.name

    @property
    def is_founding(self) -> bool:
        """Whether this node leads term 1 until the first configuration is committed."""
        return isinstance(self._raft.role, Leader) and self._raft.role.is_founding

    @property
    def leader_id(self) -> NodeId | None:
        """The leader of ``term``, None if not known."""
        return self._raft.leader_id

    @property
    def commit_index(self) -> Index:
        """The highest index known to be committed."""
        return self._raft.log.commit

    @property
    def applied_index(self) -> Index:
        """What the host reported last as applied."""
        return self._raft.log.applied

    @property
    def durable_index(self) -> Index:
        """The log is on this node's disk up to here."""
        return self._raft.log.durable

    @property
    def first_index(self) -> Index:
        """The lowest index in the log; ``last_index + 1`` if there is none."""
        return self._raft.log.first_index

    @property
    def last_index(self) -> Index:
        """The highest index in the log, 0 if nothing was ever appended."""
        return self._raft.log.last_index

    @property
    def installing(self) -> EntryId | None:
        """The last entry of the snapshot that replaces the log, until it is durable; else None."""
        log = self._raft.log
        return log.base if log.is_installing else None

    @property
    def last_term(self) -> Term:
        """The term of the entry at ``last_index``."""
        return self._raft.log.last_term

    @property
    def conf_state(self) -> ConfState:
        """The configuration in force: the newest in the log, committed or not."""
        return self._raft.log.conf_state

    @property
    def config_index(self) -> Index:
        """The index of the entry that holds ``conf_state``."""
        return self._raft.log.config_index

    def conf_at(self, index: Index) -> tuple[Index, ConfState]:
        """The configuration in force at ``index`` and the index of the entry that holds it.

        ``index`` is from ``first_index - 1`` to ``last_index``.
        """
        return self._raft.log.conf_at(index)

    @property
    def contacts(self) -> tuple[Member, ...]:
        """Whom to stay connected to: the other members, and on a leader those just removed."""
        return self._raft.contacts

    @property
    def is_removed(self) -> bool:
        """Whether this node was a member, and a committed configuration says that it left."""
        return membership.is_removed(self._raft)

    @property
    def is_installing(self) -> bool:
        """Whether a snapshot replaced the log and is not durable yet."""
        return self._raft.log.is_installing

    @property
    def log_bytes(self) -> int:
        """Bytes of entry data in memory."""
        return self._raft.log.data_bytes

    @property
    def is_voter(self) -> bool:
        """Whether ``conf_state`` lists this node as voter, in either half."""
        return self._raft.is_voter

    @property
    def is_learner(self) -> bool:
        """Whether ``conf_state`` lists this node as learner only."""
        return self.id in self.conf_state.learners and not self.is_voter

    @property
    def transferee(self) -> NodeId | None:
        """Who leadership is being handed to."""
        role = self._raft.role
        return role.transfer.target if isinstance(role, Leader) and role.transfer else None

    @property
    def progress(self) -> Mapping[NodeId, Progress]:
        """On a leader each member's progress, its own included; empty elsewhere. Read only."""
        role = self._raft.role
        return MappingProxyType(role.progress) if isinstance(role, Leader) else _NO_PROGRESS

    @property
    def dropped_messages(self) -> int:
        """How many messages were implausible, misdirected or of an ended session."""
        return self._raft.dropped_messages

    def install_message(self, peer: NodeId, snapshot: SnapshotBase) -> InstallSnapshot | None:
        """What to tell the core of ``peer`` along with the file; None: not this node's business."""
        role = self._raft.role
        if not isinstance(role, Leader) or peer not in role.progress:
            return None
        return InstallSnapshot(
            self.id,
            peer,
            self.term,
            role.progress[peer].session,
            snapshot.last,
            snapshot.config_index,
            snapshot.conf,
        )

    def expects_nothing_of(self, peer: NodeId) -> bool:
        """Whether an acceptance from ``peer`` would change nothing that is to be done.

        So on a leader whose whole log is committed, and was sent to ``peer``: the answer is still
        to be stepped, but may come with whatever is next.
        """
        role, log = self._raft.role, self._raft.log
        if not isinstance(role, Leader) or role.transfer is not None or log.commit < log.last_index:
            return False
        progress = role.progress.get(peer)
        return (
            progress is not None
            and progress.state is ProgressState.REPLICATE
            and progress.next > log.last_index
            and progress.commit_sent >= log.commit
            and progress.leaves_at is None
            and progress.is_heard(self._raft.config.election_ticks)
        )

    def term_of(self, index: Index) -> Term | None:
        """The term of the entry at ``index``; None if it is compacted or not there (yet)."""
        return self._raft.log.term_of(index)

    def entries(self, first: Index, end: Index) -> tuple[Entry, ...]:
        """The entries from ``first`` up to, not including, ``end``, all within the log."""
        return self._raft.log.entries(first, end)
