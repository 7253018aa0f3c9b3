"""What must hold of a whole cluster at every moment (paper fig. 3; reference: thesis fig. 3.2).

`ClusterChecker.check` is called after every step of a random schedule. It keeps what the
invariants are about: who ever led a term, every entry ever seen, all that was ever committed and
applied. What must hold of one node is checked by `raftkv.raft.invariants` inside RawNode.
"""

from collections.abc import Iterable

from raftkv.demo.cluster import Cluster, Host
from raftkv.raft import ConfState, Entry, EntryType, NodeId, ReadState, decode_conf_state
from raftkv.raft.quorum import Quorum


class ClusterChecker:
    """Election safety, log matching, leader completeness, state-machine safety, durability.

    All of it whatever the configurations were; and at most one of them is not committed.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.leaders: dict[int, NodeId] = {}  # by term
        # (index, term) -> the entry and its predecessor's term: equal names, equal prefixes.
        self.entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        # index -> the entry, and the term of the leader that was first seen to have committed it
        self.committed: dict[int, tuple[Entry, int]] = {}
        self.applied: dict[int, Entry] = {}
        self.commit_max = 0
        # context -> the highest commit index anywhere when the read was asked
        self.reads: dict[int, int] = {}
        self.reads_answered = 0
        self.truncations = 0  # how often a log was seen to have lost entries to a leader
        self.rollbacks = 0  # how often one of them was a configuration
        self._last: dict[NodeId, tuple[int, int]] = {}
        self._config_index: dict[NodeId, int] = {}

    def asked(self, context: int) -> None:
        """A read began: its index must cover all that is committed by now."""
        self.reads[context] = self.commit_max

    def crashed(self, node_id: NodeId) -> None:
        """Forget what only this node's memory held; its log may be shorter now.

        A single voter leads its next term before that term is on disk. Killed then, it leads the
        same term again with other entries; nobody can have seen the first ones.
        """
        self._last.pop(node_id, None)
        self._config_index.pop(node_id, None)
        term_on_disk = self.cluster.hosts[node_id].disk.hard_state.term
        unseen = {term for term, leader in self.leaders.items() if leader == node_id}
        self.entries = {
            name: known
            for name, known in self.entries.items()
            if name[1] <= term_on_disk or name[1] not in unseen
        }

    def check(self, hosts: Iterable[Host]) -> None:
        """Check everything about the hosts that a step may have changed."""
        up = [host for host in hosts if host.is_up]
        for host in up:
            self._check_log(host)
            self._check_commit(host)
            self._check_leader(host)
        for host in up:
            self._check_reads(host)

    def _check_log(self, host: Host) -> None:
        raft = host.raft
        entries = raft.entries(raft.first_index, raft.last_index + 1)
        prev_term = raft.term_of(raft.first_index - 1)
        assert prev_term is not None
        for entry in entries:
            known = self.entries.setdefault((entry.index, entry.term), (entry, prev_term))
            assert known == (entry, prev_term), "log matching"
            prev_term = entry.term
        last_index, last_term = self._last.get(host.id, (0, 0))
        if last_index > raft.last_index or (
            last_index >= raft.first_index and raft.term_of(last_index) != last_term
        ):
            self.truncations += 1
            self.rollbacks += raft.config_index < self._config_index.get(host.id, 0)
        self._last[host.id] = (raft.last_index, raft.last_term)
        self._config_index[host.id] = raft.config_index

    def _check_leader(self, host: Host) -> None:
        raft = host.raft
        if raft.role != "leader":
            return
        assert self.leaders.setdefault(raft.term, host.id) == host.id, "election safety"
        for index, (entry, term) in self.committed.items():
            if term < raft.term and index >= raft.first_index:
                assert raft.term_of(index) == entry.term, "leader completeness"
        base, base_term = raft.first_index - 1, raft.term_of(raft.first_index - 1)
        assert base == 0 or self.committed[base][0].term == base_term, "leader completeness"

    def _check_commit(self, host: Host) -> None:
        raft = host.raft
        for index in range(self.commit_max + 1, raft.commit_index + 1):
            entry = self._entry_of(host, index)
            self.committed[index] = (entry, raft.term)
            holders = {h.id for h in self.cluster.hosts.values() if holds(h, entry)}
            assert any(
                Quorum.of(conf).is_reached(lambda voter, on=holders: voter in on)  # type: ignore[misc]
                for conf in self._configurations_since(index)
            ), "an entry counts as committed that is not on a quorum of disks"
        self.commit_max = max(self.commit_max, raft.commit_index)
        if raft.commit_index >= raft.first_index:
            committed, _ = self.committed[raft.commit_index]
            assert raft.term_of(raft.commit_index) == committed.term, "a commit was taken back"
        for entry in [*host.state, *host.to_apply]:
            assert self.applied.setdefault(entry.index, entry) == entry, "state-machine safety"
        for entry in [*host.applied, *host.to_apply]:
            assert holds(host, entry), "applied before it was durable"
        first = max(self.commit_max + 1, raft.first_index)
        uncommitted = raft.entries(min(first, raft.last_index + 1), raft.last_index + 1)
        configurations = [entry for entry in uncommitted if entry.type is EntryType.CONFIG]
        assert len(configurations) <= 1, "two configurations that are not committed"

    def _entry_of(self, host: Host, index: int) -> Entry:
        if index >= host.raft.first_index:
            return host.raft.entries(index, index + 1)[0]
        # Compacted in the same step: somebody has applied it.
        return next(h.state[index - 1] for h in self.cluster.up() if len(h.state) >= index)

    def _configurations_since(self, index: int) -> list[ConfState]:
        """Those that a leader may have counted with when it committed ``index``."""
        confs = []
        for host in self.cluster.up():
            raft = host.raft
            if raft.first_index - 1 <= index <= raft.last_index:
                confs.append(raft.conf_at(index)[1])
                confs += [
                    decode_conf_state(entry.data)
                    for entry in raft.entries(index + 1, raft.last_index + 1)
                    if entry.type is EntryType.CONFIG
                ]
        return confs

    def _check_reads(self, host: Host) -> None:
        for read in host.read_states:
            self._check_read(read)
            self.reads_answered += 1
        host.read_states.clear()

    def _check_read(self, read: ReadState) -> None:
        assert read.index >= self.reads[read.context], "a stale read"
        assert read.index <= self.commit_max


def holds(host: Host, entry: Entry) -> bool:
    """Whether the disk of ``host`` has ``entry``, by itself or in a snapshot."""
    base = host.disk.base.index
    if entry.index <= base:
        return host.disk.state[entry.index - 1] == entry
    offset = entry.index - base - 1
    return offset < len(host.disk.entries) and host.disk.entries[offset] == entry
