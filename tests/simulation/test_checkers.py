"""Each checker of the simulation can fail: doctored evidence must be refused."""

from collections import Counter
from collections.abc import Callable

import pytest

from raftkv.kv.changes import Change, ChangesAfter, read_changes
from raftkv.kv.commands import (
    Append,
    Command,
    Delete,
    Increment,
    Once,
    Put,
    encode_command,
    join_batch,
)
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import Item, Replayed, Written
from raftkv.kv.ranges import Page, Range
from raftkv.kv.store import Store
from raftkv.node.events import Get, ReadResult
from raftkv.node.messages import Failure, FailureCode
from raftkv.node.node import Core
from raftkv.raft.messages import AppendResp, Entry, EntryType, NodeId, VoteResp
from raftkv.raft.rawnode import RawNode
from tests.simulation.checkers import InvariantError, Invariants
from tests.simulation.cluster import Machine, Process
from tests.simulation.damage import Harm
from tests.simulation.oracle import Oracle
from tests.simulation.run import SHORT, run
from tests.simulation.scenarios import Script, member_id

COMMANDS: tuple[Command, ...] = (
    Put(b"a", b"1"),
    Put(b"b", b"2"),
    Append(b"a", b"3", 100),
    Delete(b"b"),
    Increment(b"n", 5),
)


def fed() -> tuple[Oracle, Store]:
    """An oracle and a store that were given `COMMANDS`, an entry each."""
    oracle, store = Oracle(), Store(MemoryEngine())
    for index, command in enumerate(COMMANDS, 1):
        entry = Entry(1, index, EntryType.NORMAL, join_batch([encode_command(command)]))
        oracle.feed(entry)
        store.apply([entry])
    return oracle, store


def told(store: Store) -> list[Change]:
    wanted = ChangesAfter(0, with_previous=True)
    return list(read_changes(store.engine, store.revision, wanted).changes)


def test_what_is_true_is_accepted() -> None:
    oracle, store = fed()
    oracle.sent_once(encode_command(COMMANDS[0]))
    oracle.write_answered(encode_command(COMMANDS[0]), 0, Written(1, 1))
    oracle.read_answered(Get(b"b"), 1, ReadResult(Item(b"b", b"2", 2, 2, 1), 2))
    oracle.read_answered(Get(b"b"), 2, ReadResult(None, 4))
    a = Item(b"a", b"13", 1, 3, 2)
    oracle.read_answered(Range(b"a", b"c"), 4, Page(5, (a,), (), 1))
    oracle.read_answered(Range(b"a", None, 1), 4, Page(1, (Item(b"a", b"1", 1, 1, 1),), (), 1))
    oracle.check()
    oracle.check_store(store)
    oracle.check_told(told(store), 0, store.revision, b"", None)


@pytest.mark.parametrize(
    "query",
    [
        (Get(b"a"), ReadResult(Item(b"a", b"1", 1, 1, 1), 3)),  # a value that was replaced
        (Get(b"b"), ReadResult(Item(b"b", b"2", 2, 2, 1), 4)),  # a key that was removed
        (Get(b"b"), ReadResult(None, 2)),  # a key that is not seen
        (Get(b"a"), ReadResult(None, 6)),  # a revision that never was
        (Get(b"a", 1), ReadResult(Item(b"a", b"13", 1, 3, 2), 5)),  # the present for the past
        (Range(b"a", None, 2), Page(2, (Item(b"a", b"1", 1, 1, 1),), (), 1)),  # a key left out
        (Range(count_only=True), Page(5, (), (), 3)),
    ],
    ids=str,
)
def test_a_read_of_another_state_is_refused(query: tuple[Get, ReadResult]) -> None:
    oracle, _ = fed()
    oracle.read_answered(query[0], 0, query[1])
    with pytest.raises(AssertionError, match=r"I6|I7"):
        oracle.check()


def test_an_answer_older_than_what_was_known_is_refused() -> None:
    oracle, _ = fed()
    with pytest.raises(AssertionError, match="I6"):
        oracle.read_answered(Get(b"a"), 3, ReadResult(Item(b"a", b"1", 1, 1, 1), 2))


def test_a_known_revision_that_is_called_the_future_is_refused() -> None:
    oracle, _ = fed()
    with pytest.raises(AssertionError, match="I6"):
        oracle.read_answered(Get(b"a", 3), 3, Failure(FailureCode.FUTURE_REVISION, ""))


def test_an_answer_that_the_applied_list_does_not_give_is_refused() -> None:
    oracle, _ = fed()
    oracle.write_answered(encode_command(COMMANDS[0]), 0, Written(1, 2))
    with pytest.raises(AssertionError, match="I5"):
        oracle.check()


def test_a_write_that_was_refused_and_done_is_refused() -> None:
    oracle, _ = fed()
    command = encode_command(COMMANDS[0])
    oracle.sent_once(command)
    oracle.write_answered(command, 0, Failure(FailureCode.NO_LEADER, ""))
    with pytest.raises(AssertionError, match="I6"):
        oracle.check()


def test_a_write_of_unknown_outcome_may_be_done_or_not() -> None:
    for command in (COMMANDS[0], Put(b"never", b"")):
        oracle, _ = fed()
        oracle.sent_once(encode_command(command))
        oracle.write_answered(encode_command(command), 0, Failure(FailureCode.UNKNOWN, ""))
        oracle.check()


def test_a_write_that_was_sent_once_and_done_twice_is_refused() -> None:
    oracle, _ = fed()
    command = encode_command(COMMANDS[4])
    oracle.sent_once(command)
    oracle.feed(Entry(1, 6, EntryType.NORMAL, join_batch([command])))
    with pytest.raises(AssertionError, match="I8"):
        oracle.check()


def test_a_retry_that_is_told_another_outcome_than_the_first_is_refused() -> None:
    oracle, _ = fed()
    once = Once(b"key", b"f" * 16, 1000, Increment(b"n", 1))
    command = encode_command(once)
    for index in (6, 7):
        oracle.feed(Entry(1, index, EntryType.NORMAL, join_batch([command])))
    oracle.write_answered(command, 0, Replayed(6, Written(6, 2)))
    with pytest.raises(AssertionError, match="I5"):
        oracle.check()


def _lose_one(changes: list[Change]) -> list[Change]:
    return changes[:1] + changes[2:]


def _double_one(changes: list[Change]) -> list[Change]:
    return [*changes[:2], changes[0], *changes[2:]]


def _swap_two(changes: list[Change]) -> list[Change]:
    return [changes[1], changes[0], *changes[2:]]


def _other_previous(changes: list[Change]) -> list[Change]:
    change = changes[2]
    return [*changes[:2], Change(change.key, change.revision, change.item, None), *changes[3:]]


def _from_nowhere(changes: list[Change]) -> list[Change]:
    return [*changes, Change(b"z", changes[-1].revision, Item(b"z", b"", 5, 5, 1), None)]


@pytest.mark.parametrize(
    "doctor", [_lose_one, _double_one, _swap_two, _other_previous, _from_nowhere]
)
def test_i11_a_watcher_that_was_told_otherwise_is_refused(
    doctor: Callable[[list[Change]], list[Change]],
) -> None:
    oracle, store = fed()
    with pytest.raises(AssertionError):
        oracle.check_told(doctor(told(store)), 0, store.revision, b"", None)


def test_i12_a_store_with_another_value_is_refused() -> None:
    oracle, _ = fed()
    store = Store(MemoryEngine())
    for index, command in enumerate(COMMANDS, 1):
        other = Put(b"a", b"x") if index == 1 else command
        data = join_batch([encode_command(other)])
        store.apply([Entry(1, index, EntryType.NORMAL, data)])
    with pytest.raises(AssertionError, match="I12"):
        oracle.check_store(store)


# ---- the invariants of consensus ---------------------------------------------------------------


def test_i1_two_votes_of_one_node_in_one_term_are_refused() -> None:
    script = Script(1, 3)
    first, second, third = map(member_id, script.voters)
    script.invariants._check_promise(VoteResp(first, second, 90, granted=True))
    with pytest.raises(InvariantError, match="I1"):
        script.invariants._check_promise(VoteResp(first, third, 90, granted=True))


def test_i1_two_leaders_of_one_term_are_refused() -> None:
    script = Script(1, 3)
    leader = script.elected(script.voters)
    script.invariants._leaders[script.raft(leader).term] = 12345
    with pytest.raises(InvariantError, match="I1"):
        script.look(leader)


def test_i2_a_leader_that_drops_an_entry_is_refused() -> None:
    script = Script(1, 3)
    leader = script.elected(script.voters)
    raft = script.raft(leader)
    script.invariants._led[raft.id] = (raft.term, raft.last_index + 1)
    with pytest.raises(InvariantError, match="I2"):
        script.look(leader)


def test_i3_and_i4_another_entry_under_a_known_name_is_refused() -> None:
    script = Script(1, 3)
    machine = script.voters[0]
    raft, invariants = script.raft(machine), script.invariants
    invariants._entries[raft.last_index, raft.last_term] = (1, EntryType.NORMAL, b"another")
    invariants._seen_last.clear()
    with pytest.raises(InvariantError, match="I3"):
        script.look(machine)
    leader = script.raft(script.elected(script.voters))
    invariants._committed[leader.last_index] = 99
    with pytest.raises(InvariantError, match="I4"):
        invariants._check_completeness(leader)


def test_i5_another_state_after_the_same_index_is_refused() -> None:
    script = Script(1, 3)
    machine = script.voters[0]
    script.invariants._applied[script.raft(machine).applied_index] = b"another"
    with pytest.raises(InvariantError, match="I5"):
        script.look(machine)


def test_i7_and_i10_a_node_that_came_back_with_less_is_refused() -> None:
    script = Script(1, 3)
    machine = script.voters[0]
    raft = script.raft(machine)
    answer = AppendResp(raft.id, 1, raft.term, 1, raft.last_index + 1)
    script.invariants._check_promise(answer)
    with pytest.raises(InvariantError, match="I7"):
        script.invariants.after_recovery(machine)
    script.invariants._acknowledged.clear()
    script.invariants._terms[raft.id] = raft.term + 1
    with pytest.raises(InvariantError, match="I10"):
        script.invariants.after_recovery(machine)


def test_i7_a_leader_that_came_back_with_less_than_it_counted_is_refused() -> None:
    script = Script(1, 3)
    leader = script.elected(script.voters)
    raft = script.raft(leader)
    script.until(lambda: raft.durable_index == raft.last_index, "its log to be durable")
    script.invariants._acknowledged.clear()  # what it answered others as a follower
    script.look(leader)
    raft._raft.log._entries.pop()
    raft._raft.log.last_index -= 1
    with pytest.raises(InvariantError, match="I7"):
        script.invariants.after_recovery(leader)


def test_i14_a_node_that_starts_with_damage_is_refused() -> None:
    script = Script(1, 3)
    machine = script.voters[0]
    script.invariants.after_recovery(machine)
    machine.harm = Harm(
        "a frame", "flip in the log", lambda: None
    )  # perhaps one that does not matter any more
    script.invariants.after_recovery(machine)
    machine.harm = Harm("a frame", "flip in what is durable", lambda: None, is_fatal=True)
    with pytest.raises(InvariantError, match="I14"):
        script.invariants.after_recovery(machine)


def test_i9_two_uncommitted_configurations_are_refused() -> None:
    script = Script(1, 3)
    machine = script.voters[0]
    raft = script.raft(machine)
    log = raft._raft.log
    _, conf = raft.conf_at(raft.last_index)
    for _ in range(2):
        log._configurations._history.append((raft.last_index + 1, conf))
        log._entries.append(Entry(raft.term, raft.last_index + 1, EntryType.CONFIG, b""))
        log.last_index += 1
    process = machine.process
    assert process is not None
    with pytest.raises(InvariantError, match="I9"):
        script.invariants._check_configurations(raft, process)


def test_i15_a_disk_with_too_many_files_is_refused() -> None:
    script = Script(1, 3)
    machine = script.voters[0]
    script.invariants.check_bounds(machine)
    for number in range(10):
        machine.disk.write(f"snapshots/{number}.snapshot", b"")
    with pytest.raises(InvariantError, match="I15"):
        script.invariants.check_bounds(machine)


def _books(invariants: Invariants, raft: RawNode) -> tuple[object, ...]:
    """What is remembered: of this node, how much of all, and what was counted."""
    kept = vars(invariants).values()
    own = [book.get(raft.id) for book in kept if isinstance(book, dict)]
    return own, [len(book) for book in kept if isinstance(book, dict)], invariants.reached.copy()


def test_who_is_as_it_was_needs_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks that are left out find nothing, and note nothing."""
    is_as_it_was, counts = Invariants._is_as_it_was, Counter[bool]()

    def look_all_the_same(
        invariants: Invariants, machine: Machine, process: Process, core: Core
    ) -> bool:
        is_same = is_as_it_was(invariants, machine, process, core)
        counts[is_same] += 1
        if is_same:
            before = _books(invariants, core.raft)
            invariants.look(process, core)
            assert _books(invariants, core.raft) == before
        return is_same

    monkeypatch.setattr(Invariants, "_is_as_it_was", look_all_the_same)
    for seed in (11, 12):
        run(seed, SHORT)
    assert counts[True] > 500
    assert counts[False] > 500


def test_a_node_id_is_not_a_small_number() -> None:
    """What the doctored evidence above takes for granted."""
    script = Script(1, 3)
    ids: set[NodeId] = {member_id(machine) for machine in script.voters}
    assert min(ids) > 12345
