"""RaftLog against a plain list, and the calls it must refuse."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raftkv.demo.cluster import make_conf, make_config_entry, make_entry
from raftkv.raft import ConfState, Entry, EntryId, EntryType, SnapshotBase
from raftkv.raft.log import ENTRY_OVERHEAD_BYTES, RaftLog

BASE_CONF = make_conf([1])


def make_log(*terms: int, commit: int = 0) -> RaftLog:
    entries = [make_entry(index, term) for index, term in enumerate(terms, 1)]
    return RaftLog(EntryId(0, 0), ConfState(), entries, commit, 0)


class LogMachine(RuleBasedStateMachine):
    """Everything a node does with its log, beside a list that is never compacted."""

    @initialize(terms=st.lists(st.integers(1, 3), max_size=6))
    def start(self, terms: list[int]) -> None:
        self.model = [make_entry(index, term) for index, term in enumerate(sorted(terms), 1)]
        self.log = RaftLog(EntryId(0, 0), BASE_CONF, self.model, 0, 0)
        self.written = list(self.model)  # what is on disk, as far as it is known
        self.writing: list[Entry] | None = None
        self.applied = 0
        self.base_conf = (0, BASE_CONF)
        self.installing: SnapshotBase | None = None  # no write has carried it yet

    @rule(count=st.integers(1, 3), raise_term=st.booleans(), is_config=st.booleans())
    def append(self, count: int, raise_term: bool, is_config: bool) -> None:
        term = max(self.log.last_term, 1) + raise_term
        first = len(self.model) + 1
        entries = [make_entry(index, term) for index in range(first, first + count)]
        if is_config:
            entries[0] = make_config_entry(first, term, make_conf([1, first + 1]))
        self.log.append(entries)
        self.model += entries

    @rule(data=st.data())
    def truncate(self, data: Any) -> None:
        if self.log.commit < len(self.model):
            first = data.draw(st.integers(self.log.commit + 1, len(self.model)))
            self.log.truncate(first)
            del self.model[first - 1 :]
            del self.written[first - 1 :]
            if self.writing is not None:
                del self.writing[first - 1 :]

    @precondition(lambda self: self.writing is None and self.log.has_unwritten)
    @rule()
    def begin_write(self) -> None:
        snapshot, entries = self.log.begin_write()
        assert snapshot == self.installing
        self.installing = None
        assert list(entries) == self.model[max(len(self.written), self.log.base.index) :]
        self.writing = list(self.model)

    @precondition(lambda self: self.writing is not None)
    @rule()
    def write_done(self) -> None:
        assert self.writing is not None
        self.log.write_done()
        self.written = max(self.written, self.writing, key=len)
        self.writing = None

    @rule(data=st.data())
    def commit(self, data: Any) -> None:
        self.log.commit_to(data.draw(st.integers(0, len(self.model))))

    @rule(bytes_max=st.sampled_from([1, 3 * ENTRY_OVERHEAD_BYTES, 1 << 20]))
    def apply(self, bytes_max: int) -> None:
        could = self.log.has_applicable
        entries = self.log.take_applicable(bytes_max)
        assert bool(entries) == could
        assert list(entries) == self.model[self.applied : self.applied + len(entries)]
        if entries:
            assert not self.log.has_applicable
            assert len(entries) == 1 or (
                sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in entries) <= bytes_max
            )
            self.applied = entries[-1].index
            assert self.applied <= min(self.log.commit, len(self.written))
            self.log.applied_to(self.applied)

    @rule(ahead=st.integers(1, 3), data=st.data())
    def install(self, ahead: int, data: Any) -> None:
        last_index = self.log.commit + ahead
        old_term = self.log.term_of(last_index)
        lowest = max(self.log.term_of(self.log.commit) or 0, 1)
        term = data.draw(st.integers(lowest, lowest + 3).filter(lambda term: term != old_term))
        config_index = data.draw(st.integers(self.log.commit, last_index - 1)) + 1
        snapshot = SnapshotBase(EntryId(term, last_index), config_index, make_conf([1, last_index]))
        self.log.install(snapshot)
        kept = self.model[: self.log.commit - ahead]
        self.model = kept + [
            make_entry(index, term) for index in range(len(kept) + 1, last_index + 1)
        ]
        self.written = []
        if self.writing is not None:
            self.writing = []
        self.applied = last_index
        self.base_conf = (config_index, snapshot.conf)
        self.installing = snapshot

    @precondition(lambda self: not self.log.is_installing)
    @rule(data=st.data())
    def compact(self, data: Any) -> None:
        self.log.compact(data.draw(st.integers(self.log.base.index, self.applied)))

    @invariant()
    def agrees_with_the_list(self) -> None:
        log, model = self.log, self.model
        last = len(model)
        assert log.last_index == last
        assert log.last_id == (model[-1].id if model else EntryId(0, 0))
        assert log.durable == len(self.written)
        assert list(log.entries(log.first_index, last + 1)) == model[log.base.index :]
        for index in range(last + 3):
            known = index == 0 or index <= last
            term = None if not known or index < log.base.index else self._term(index)
            assert log.term_of(index) == term
        configs = [self.base_conf]
        configs += [
            (entry.index, make_conf([1, entry.index + 1]))
            for entry in model
            if entry.type is EntryType.CONFIG and entry.index > self.base_conf[0]
        ]
        assert log.conf_state == configs[-1][1]
        assert log.config_index == configs[-1][0]
        assert log.data_bytes == sum(len(entry.data) for entry in model[log.base.index :])

    def _term(self, index: int) -> int:
        return self.model[index - 1].term if index else 0


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, database=None
)


def test_rule_15_truncation_below_the_commit_index_is_refused() -> None:
    log = make_log(1, 1, 1, commit=2)
    with pytest.raises(AssertionError, match="committed"):
        log.truncate(2)


def test_rule_16_a_completed_write_counts_only_what_was_not_truncated() -> None:
    log = make_log(1)
    log.append([make_entry(2, 1), make_entry(3, 1)])
    log.begin_write()
    log.truncate(3)
    log.append([make_entry(3, 1)])  # the same name again
    log.write_done()
    assert log.durable == 2


def test_commit_index_beyond_the_log_is_refused() -> None:
    with pytest.raises(AssertionError, match="beyond"):
        make_log(1).commit_to(2)


def test_commit_index_never_goes_back() -> None:
    log = make_log(1, 1, 1)
    log.commit_to(3)
    log.commit_to(1)
    assert log.commit == 3


def test_recovered_log_with_a_gap_is_refused() -> None:
    with pytest.raises(AssertionError, match="gap"):
        RaftLog(EntryId(1, 1), ConfState(), [make_entry(3, 1)], 0, 1)


def test_recovered_log_without_its_committed_entries_is_refused() -> None:
    with pytest.raises(AssertionError, match="lacks committed"):
        make_log(1, commit=2)


def test_state_machine_behind_the_compacted_log_is_refused() -> None:
    with pytest.raises(AssertionError, match="dropped"):
        RaftLog(EntryId(1, 5), ConfState(), [], 0, 3)


def test_recovered_commit_index_covers_what_was_applied() -> None:
    log = RaftLog(EntryId(1, 1), ConfState(), [make_entry(2, 1), make_entry(3, 1)], 0, 2)
    assert log.commit == 2


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [
        (9, 9, EntryId(4, 6)),  # beyond the log: its last entry may agree
        (6, 3, EntryId(2, 4)),  # whole terms above are skipped
        (5, 4, EntryId(4, 5)),
        (4, 1, EntryId(1, 2)),
        (2, 0, EntryId(0, 0)),
    ],
)
def test_highest_match_skips_terms_that_cannot_agree(
    index: int, term: int, expected: EntryId
) -> None:
    assert make_log(1, 1, 2, 2, 4, 4).highest_match(index, term) == expected


def test_highest_match_does_not_look_below_the_base() -> None:
    log = RaftLog(EntryId(3, 5), ConfState(), [make_entry(6, 4)], 5, 5)
    assert log.highest_match(6, 3) == EntryId(3, 5)
    assert log.highest_match(6, 2) == EntryId(3, 5)
    assert log.highest_match(4, 2) == EntryId(0, 0)


def test_compaction_keeps_the_configuration_in_force() -> None:
    old, new = make_conf([1]), make_conf([1, 2])
    entries = [make_config_entry(1, 1, old), make_config_entry(2, 1, new), make_entry(3, 1)]
    log = RaftLog(EntryId(0, 0), ConfState(), entries, 3, 3)
    log.compact(2)
    assert (log.conf_state, log.config_index, log.first_index) == (new, 2, 3)
    log.append([make_config_entry(4, 1, old)])
    log.truncate(4)
    assert log.conf_state == new


# ---- snapshots ------------------------------------------------------------------------------


def log_with_an_install() -> RaftLog:
    """2@1..4@1 are here, 2@1 is committed; then a snapshot of 7@2 arrives."""
    log = RaftLog(EntryId(0, 0), make_conf([1]), [make_entry(i, 1) for i in range(1, 5)], 2, 1)
    log.install(SnapshotBase(EntryId(2, 7), 6, make_conf([1, 6])))
    return log


def test_rule_17_an_install_replaces_the_log_and_its_configuration() -> None:
    log = log_with_an_install()
    assert (log.base, log.last_id, log.first_index) == (EntryId(2, 7), EntryId(2, 7), 8)
    assert (log.commit, log.applied, log.applying) == (7, 7, 7)
    assert log.conf_at(7) == (6, make_conf([1, 6]))
    assert (log.config_index, log.data_bytes) == (6, 0)
    assert log.is_installing
    assert log.durable == 0


def test_rule_17_an_install_is_durable_with_its_write_and_no_sooner() -> None:
    log = RaftLog(EntryId(0, 0), make_conf([1]), [make_entry(1, 1)], 1, 1)
    log.append([make_entry(2, 1)])
    log.begin_write()
    log.install(SnapshotBase(EntryId(2, 7), 6, make_conf([1, 6])))
    log.append([make_entry(8, 2)])
    log.commit_to(8)
    log.write_done()  # of entry 2, which is void now
    assert log.is_installing
    assert not log.has_applicable
    snapshot, entries = log.begin_write()
    assert snapshot is not None
    assert snapshot.last == EntryId(2, 7)
    assert [entry.index for entry in entries] == [8]
    assert not log.has_applicable
    log.write_done()
    assert (log.durable, log.is_installing) == (8, False)
    assert [entry.index for entry in log.take_applicable(1 << 20)] == [8]


def test_rule_17_two_installs_in_quick_succession() -> None:
    log = log_with_an_install()
    log.begin_write()
    log.install(SnapshotBase(EntryId(3, 9), 8, make_conf([1, 8])))
    log.write_done()  # of the first
    assert log.is_installing
    snapshot, entries = log.begin_write()
    assert snapshot is not None
    assert (snapshot.last, entries) == (EntryId(3, 9), ())
    log.write_done()
    assert (log.durable, log.conf_at(9)) == (9, (8, make_conf([1, 8])))


def test_rule_17_an_install_takes_back_nothing_and_keeps_what_agrees() -> None:
    log = RaftLog(EntryId(0, 0), make_conf([1]), [make_entry(i, 1) for i in range(1, 5)], 2, 1)
    for last in (EntryId(1, 2), EntryId(2, 1), EntryId(1, 4)):
        snapshot = SnapshotBase(last, 1, make_conf([1]))
        with pytest.raises(AssertionError, match=r"committed|needs no install"):
            log.install(snapshot)


def test_rule_17_what_was_handed_out_before_an_install_may_be_reported_late() -> None:
    log = RaftLog(EntryId(0, 0), make_conf([1]), [make_entry(i, 1) for i in range(1, 5)], 3, 1)
    assert [entry.index for entry in log.take_applicable(1 << 20)] == [2, 3]
    log.install(SnapshotBase(EntryId(2, 7), 6, make_conf([1, 6])))
    log.applied_to(3)
    assert (log.applied, log.applying) == (7, 7)


def test_data_bytes_count_what_is_in_memory() -> None:
    log = RaftLog(EntryId(0, 0), ConfState(), [make_entry(i, 1) for i in range(1, 5)], 2, 2)
    assert log.data_bytes == 8
    log.append([make_entry(5, 1, b"x" * 10)])
    assert log.data_bytes == 18
    log.truncate(5)
    log.truncate(4)
    assert log.data_bytes == 6
    log.compact(2)
    assert log.data_bytes == 2


def test_configurations_by_index() -> None:
    entries = [make_entry(i, 1) for i in range(4, 10)]
    entries[2] = make_config_entry(6, 1, make_conf([1, 6]))
    entries[4] = make_config_entry(8, 1, make_conf([1, 8]))
    log = RaftLog(EntryId(1, 3), make_conf([1]), entries, 9, 9, base_config_index=2)
    expected = {3: 2, 4: 2, 5: 2, 6: 6, 7: 6, 8: 8, 9: 8}
    assert {index: log.conf_at(index)[0] for index in expected} == expected
    log.compact(7)
    assert log.conf_at(7) == (6, make_conf([1, 6]))
    assert log.config_index == 8
    with pytest.raises(AssertionError):
        log.conf_at(6)
