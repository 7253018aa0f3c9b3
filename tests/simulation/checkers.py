"""The invariants of reference faults I1 to I7, I9, I10 and I15, after every turn of every node.

The checkers look into the nodes but never touch them. They keep what must stay true for the whole
run outside of any node: who led which term, what was committed, what was acknowledged. They also
count the rare paths inside the consensus core, so that a campaign can tell that it took them all.
"""

from collections import Counter

from raftkv.node.events import Effect, Send
from raftkv.node.node import Core
from raftkv.raft.messages import (
    AppendResp,
    ConfState,
    Entry,
    EntryType,
    Index,
    NodeId,
    Term,
    VoteResp,
)
from raftkv.raft.rawnode import RawNode
from raftkv.raft.roles import Leader, Role
from tests.linearizability.checker import find_violation
from tests.linearizability.history import Operation
from tests.linearizability.witness import find_revision_violation
from tests.simulation.cluster import Cluster, Machine, Process
from tests.simulation.oracle import Oracle

# I15: what may lie on a disk at once. Snapshots: the newest, the one before, one that is made, one
# that is received. Segments: those since the snapshot, with what gathers while one is made.
SNAPSHOT_FILES_MAX = 4
SEGMENT_FILES_MAX = 64
PENDING_MAX = 2000


class InvariantError(AssertionError):
    """A promise was broken; the seed replays it."""


class Invariants:
    """All invariants of one run."""

    def __init__(self, cluster: Cluster) -> None:
        self.oracle = Oracle()
        self.reached: Counter[str] = Counter()
        # What each member's log held when it was last seen: the configuration that was committed,
        # and those after it; with their indexes.
        self.configurations: dict[NodeId, list[tuple[Index, ConfState]]] = {}
        self.committed_config_index: Index = 0
        self._payloads: dict[tuple[Index, Term], Entry] = {}
        self._payload_last: dict[NodeId, tuple[Index, Term]] = {}
        self._led: dict[NodeId, tuple[Term, Index]] = {}  # I2: a leader's term and last index
        self._config_seen: dict[NodeId, tuple[Process, Index]] = {}
        self._last_ids: dict[NodeId, tuple[Term, Index]] = {}
        self._leaders: dict[Term, NodeId] = {}  # I1
        self._votes: dict[tuple[NodeId, Term], NodeId] = {}  # I1's cause: one vote a term
        # I3
        self._entries: dict[tuple[Index, Term], tuple[Term | None, EntryType, bytes]] = {}
        self._committed: dict[Index, Term] = {}  # I4
        self._applied: dict[Index, bytes] = {}  # I5: chain hash after each index
        self._seen_last: dict[NodeId, tuple[Index, Term]] = {}  # how far I3 is checked
        self._acknowledged: dict[NodeId, tuple[Index, Term]] = {}  # I7: said to be durable
        self._terms: dict[NodeId, Term] = {}  # I10: the highest term each node spoke of
        self._looked_at: dict[Machine, tuple[object, ...]] = {}
        self._leaver_seen: tuple[NodeId, Term] | None = None
        self.elections = 0
        cluster.on_turn = self.after_turn
        cluster.on_recovered = self.after_recovery

    # ---- hooks ------------------------------------------------------------------------------

    def after_turn(self, machine: Machine, effects: list[Effect]) -> None:
        """Check everything that this turn can have broken."""
        process = machine.process
        assert process is not None
        for effect in effects:
            if isinstance(effect, Send):
                for message in effect.frame.messages:
                    self._check_promise(message)
        core = process.node.core
        if core is None:
            return
        if not self._is_as_it_was(machine, process, core):
            self.look(process, core)
        raft = core.raft
        spoken_for = self._acknowledged.get(raft.id)
        if spoken_for is not None and raft.last_index < spoken_for[0]:
            # A leader made it drop a suffix that was never committed.
            self._acknowledged[raft.id] = (raft.last_index, raft.last_term)

    def look(self, process: Process, core: Core) -> None:
        """Check what a node is, whether it changed or not."""
        raft, store = core.raft, core.store
        self._last_ids[raft.id] = (raft.last_term, raft.last_index)
        self._note_payloads(raft)
        self._check_log_matching(raft)
        self._check_leader(raft)
        self._check_indexes(raft, store.applied_index)
        self._check_committed(raft)
        self._check_configurations(raft, process)
        self._check_applied(store.applied_index, store.chain_hash)

    def after_recovery(self, machine: Machine) -> None:
        """What a node said was durable must be there when it comes back (I7, I10)."""
        process = machine.process
        assert process is not None
        core = process.node.core
        assert core is not None
        raft = core.raft
        for book in (self._seen_last, self._payload_last, self._led):
            book.pop(raft.id, None)
        index, term = self._acknowledged.get(raft.id, (0, 0))
        if raft.last_index < index:
            raise InvariantError(
                f"I7: {machine.name} said that {index}@{term} is durable, "
                f"but came back with a log that ends at {raft.last_index}"
            )
        if machine.harm is not None and machine.harm.is_fatal:
            raise InvariantError(f"I14: {machine.name} started with damage: {machine.harm.what}")
        if raft.term < self._terms.get(raft.id, 0):
            raise InvariantError(
                f"I10: {machine.name} came back in term {raft.term} "
                f"after it spoke in term {self._terms[raft.id]}"
            )

    def check_bounds(self, machine: Machine) -> None:
        """I15, at checkpoints: queues and files stay bounded whatever happened."""
        process = machine.process
        if process is None or process.node.core is None:
            return
        paths = machine.disk.paths()
        snapshots = [path for path in paths if path.startswith("snapshots/")]
        segments = [path for path in paths if path.startswith("wal/")]
        pending = len(process.node.requests)
        if len(snapshots) > SNAPSHOT_FILES_MAX or len(segments) > SEGMENT_FILES_MAX:
            raise InvariantError(f"I15: {machine.name} holds {snapshots} and {segments}")
        if pending > PENDING_MAX:
            raise InvariantError(f"I15: {pending} requests are pending on {machine.name}")

    def _is_as_it_was(self, machine: Machine, process: Process, core: Core) -> bool:
        """Whether nothing changed that `look` looks at, so that it cannot fail."""
        # It compares a node with what it remembers. All that it reads of the node is in ``now``,
        # and was the same after this process's last turn, which passed. What it remembers of all
        # nodes only grows, and what is known of an index or a term is never replaced: if another
        # node adds what this one contradicts, it is found in that node's turn. Only which of the
        # node's configurations are known to be committed may change by others alone: who holds one
        # that was not is looked at again after each commit. Turns in which reads wait are counted.
        raft = core.raft._raft
        log, role, store = raft.log, raft.role, core.store
        is_leader = isinstance(role, Leader)
        now = (
            process,
            raft.term,
            is_leader,
            log.base,
            log.last_index,
            log.last_term,
            log.term_of(log.commit),
            log.commit,
            log.applied,
            log.durable,
            log.config_index,
            log.conf_state,
            store.applied_index,
            store.chain_hash,
            0 if len(self.configurations.get(raft.id, ())) == 1 else len(self._committed),
        )
        before, self._looked_at[machine] = self._looked_at.get(machine), now
        return now == before and not (isinstance(role, Leader) and role.reads.waiting)

    # ---- invariants -------------------------------------------------------------------------

    def _check_promise(self, message: object) -> None:
        match message:
            case VoteResp(sender=voter, receiver=candidate, term=term, granted=True):
                if self._votes.setdefault((voter, term), candidate) != candidate:
                    raise InvariantError(f"I1: {voter:x} voted twice in term {term}")
                self._terms[voter] = max(term, self._terms.get(voter, 0))
            case VoteResp(sender=voter, receiver=candidate, granted=False):
                if self._last_ids.get(voter, (0, 0)) > self._last_ids.get(candidate, (0, 0)):
                    self.reached["vote refused for an old log"] += 1
            case AppendResp(sender=sender, term=term, match=match, rejected_index=None):
                known, _ = self._acknowledged.get(sender, (0, 0))
                if match > known:
                    self._acknowledged[sender] = (match, term)
                self._terms[sender] = max(term, self._terms.get(sender, 0))
            case _:
                pass

    def _note_payloads(self, raft: RawNode) -> None:
        """Every entry of every log, durable or not, so that the oracle finds it once committed."""
        seen_index, seen_term = self._payload_last.get(raft.id, (0, 0))
        last_index, last_term = raft.last_index, raft.last_term
        if (seen_index, seen_term) == (last_index, last_term):
            return
        start = max(seen_index + 1, raft.first_index)
        if seen_index > last_index or (
            seen_index >= raft.first_index and raft.term_of(seen_index) != seen_term
        ):
            self.reached["log truncated"] += 1
            start = raft.first_index
        for entry in raft.entries(start, last_index + 1):
            self._payloads[entry.index, entry.term] = entry
        self._payload_last[raft.id] = (last_index, last_term)

    def _check_leader(self, raft: RawNode) -> None:
        if raft.role is not Role.LEADER:
            self._led.pop(raft.id, None)
            return
        term, last_index = self._led.get(raft.id, (raft.term, 0))
        if term == raft.term and raft.last_index < last_index:
            raise InvariantError(f"I2: the leader of term {term} dropped its entry {last_index}")
        self._led[raft.id] = (raft.term, raft.last_index)
        # It counts itself without a message.
        if raft.durable_index > self._acknowledged.get(raft.id, (0, 0))[0]:
            self._acknowledged[raft.id] = (raft.durable_index, raft.term)
        if raft.id not in raft.conf_state.ids and self._leaver_seen != (raft.id, raft.term):
            self._leaver_seen = (raft.id, raft.term)
            self.reached["leader that leaves"] += 1
        leader = raft._raft.role
        if isinstance(leader, Leader) and leader.reads.waiting:
            self.reached["read waited for a commit of the own term"] += 1
        known = self._leaders.get(raft.term)
        if known is None:
            self._leaders[raft.term] = raft.id
            self.elections += 1
            self._check_completeness(raft)
        elif known != raft.id:
            raise InvariantError(f"I1: {known:x} and {raft.id:x} both lead term {raft.term}")

    def _check_completeness(self, raft: RawNode) -> None:
        for index, term in self._committed.items():
            if index >= raft.first_index and (
                index > raft.last_index or raft.term_of(index) != term
            ):
                raise InvariantError(
                    f"I4: the leader of term {raft.term} lacks the committed entry {index}@{term}"
                )

    def _check_log_matching(self, raft: RawNode) -> None:
        """I2 and I3: an (index, term) names one entry with one predecessor, everywhere.

        A leader's own entries count once they are durable: before, nobody may have seen them.
        """
        last_index = raft.durable_index if raft.role is Role.LEADER else raft.last_index
        seen_index, seen_term = self._seen_last.get(raft.id, (0, 0))
        start = seen_index + 1
        if seen_index > last_index or (
            seen_index >= raft.first_index and raft.term_of(seen_index) != seen_term
        ):
            start = raft.first_index  # the log was cut: look at all of it again
        for entry in raft.entries(max(start, raft.first_index), last_index + 1):
            previous = raft.term_of(entry.index - 1)
            found = (previous, entry.type, entry.data)
            if self._entries.setdefault((entry.index, entry.term), found) != found:
                raise InvariantError(f"I3: two different entries are {entry.index}@{entry.term}")
        self._seen_last[raft.id] = (last_index, raft.term_of(last_index) or 0)

    def _check_indexes(self, raft: RawNode, applied_index: Index) -> None:
        if not raft.applied_index <= raft.commit_index <= raft.last_index:
            raise InvariantError(
                f"applied {raft.applied_index} <= commit {raft.commit_index} "
                f"<= last {raft.last_index} does not hold"
            )
        # A log that is being replaced by a snapshot is not durable until that is.
        is_replaced = raft.first_index - 1 > applied_index
        if applied_index > raft.durable_index and not is_replaced:
            raise InvariantError(
                f"rule 8: applied {applied_index}, but durable only {raft.durable_index}"
            )

    def _check_committed(self, raft: RawNode) -> None:
        index = raft.commit_index
        while index >= raft.first_index and index not in self._committed:
            term = raft.term_of(index)
            assert term is not None
            self._committed[index] = term
            index -= 1
        if index >= raft.first_index and self._committed[index] != raft.term_of(index):
            raise InvariantError(f"I4: two different entries are committed at {index}")
        following = self.oracle.applied_index + 1
        while following in self._committed:
            self.oracle.feed(self._payloads[following, self._committed[following]])
            following += 1

    def _check_configurations(self, raft: RawNode, process: Process) -> None:
        """I9: a log holds at most one configuration that nobody knows to be committed."""
        index, conf = raft.conf_at(raft.last_index)
        of_process, before = self._config_seen.get(raft.id, (process, index))
        if of_process is process and index < before:
            self.reached["configuration rolled back"] += 1
        self._config_seen[raft.id] = (process, index)
        held = [(index, conf)]
        # By name: another entry may be committed at this index, and this one is to go.
        while index >= raft.first_index and self._committed.get(index) != raft.term_of(index):
            index, conf = raft.conf_at(index - 1)
            held.append((index, conf))
        self.configurations[raft.id] = held
        self.committed_config_index = max(self.committed_config_index, index)
        if len(held) > 2:
            raise InvariantError(f"I9: {raft.id:x} holds {len(held) - 1} uncommitted ones")

    def _check_applied(self, index: Index, chain_hash: bytes) -> None:
        if self._applied.setdefault(index, chain_hash) != chain_hash:
            raise InvariantError(f"I5: replicas differ after applying {index}")


def check_history(history: list[Operation]) -> None:
    """I6: what clients saw is linearizable; by search, and by the revisions themselves."""
    for find in (find_revision_violation, find_violation):
        violation = find(history)
        if violation is not None:
            raise InvariantError(f"I6: {violation.explain()}")
