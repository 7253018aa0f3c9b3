"""One line for each value, the same in traces, logs and errors."""

import pytest

from raftkv.demo.cluster import make_conf, make_config_entry, make_entry
from raftkv.raft import (
    Append,
    AppendResp,
    ConfState,
    EntryId,
    EntryType,
    HardState,
    Heartbeat,
    HeartbeatResp,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteResp,
    ReadIndex,
    ReadIndexResp,
    Role,
    SnapshotBase,
    SoftState,
    TimeoutNow,
    Vote,
    VoteResp,
    Write,
)
from raftkv.raft.describe import (
    describe_conf_state,
    describe_entry,
    describe_id,
    describe_message,
    describe_soft_state,
    describe_write,
)
from raftkv.raft.messages import Entry

E2, E3 = make_entry(2, 1), make_entry(3, 1)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (PreVote(1, 2, 5, 3, 7), "n1@5 -> n2 PreVote last=7@3"),
        (PreVoteResp(1, 2, 5, granted=True), "n1@5 -> n2 PreVoteResp granted"),
        (Vote(1, 2, 5, 3, 7, transfer=True), "n1@5 -> n2 Vote last=7@3 transfer"),
        (VoteResp(1, 2, 5, granted=False), "n1@5 -> n2 VoteResp refused"),
        (Append(1, 2, 5, 1, 1, 1, 1, (E2, E3)), "n1@5 -> n2 Append base=1@1 [2@1 3@1] commit=1"),
        (AppendResp(1, 2, 5, 1, 3), "n1@5 -> n2 AppendResp match=3"),
        (AppendResp(1, 2, 5, 1, 0, 9, 3, 4), "n1@5 -> n2 AppendResp rejected=9 hint=4@3"),
        (Heartbeat(1, 2, 5, 1, 3, 8), "n1@5 -> n2 Heartbeat commit=3 round=8"),
        (HeartbeatResp(1, 2, 5, 1, 8), "n1@5 -> n2 HeartbeatResp round=8"),
        (TimeoutNow(1, 2, 5), "n1@5 -> n2 TimeoutNow"),
        (ReadIndex(1, 2, 5, 70), "n1@5 -> n2 ReadIndex context=70"),
        (ReadIndexResp(1, 2, 5, 70, 3), "n1@5 -> n2 ReadIndexResp context=70 index=3"),
        (ReadIndexResp(1, 2, 5, 70, None), "n1@5 -> n2 ReadIndexResp context=70 index=unknown"),
    ],
    ids=lambda value: value.split()[3] if isinstance(value, str) else "",
)
def test_message(message: Message, text: str) -> None:
    assert describe_message(message) == text


def test_ids_are_hexadecimal() -> None:
    assert describe_id(0xDEADBEEF) == "ndeadbeef"
    assert describe_id(None) == "none"


def test_long_run_of_entries_is_shortened() -> None:
    entries = tuple(make_entry(index, 4) for index in range(2, 8))
    assert "[2@4..7@4]" in describe_message(Append(1, 2, 5, 1, 1, 1, 1, entries))


def test_entries_say_what_they_hold() -> None:
    assert describe_entry(E2) == "2@1 e2"
    assert describe_entry(Entry(1, 2, EntryType.NORMAL, b"\xff")) == "2@1 \\xff"
    assert describe_entry(Entry(1, 2, EntryType.NOOP, b"")) == "2@1 no-op"
    conf = make_conf([1, 2], learners=[3], outgoing=[4])
    assert describe_entry(make_config_entry(2, 1, conf)) == (
        "2@1 voters=n1,n2 outgoing=n4 learners=n3"
    )
    assert describe_conf_state(ConfState()) == "empty"


def test_states_and_writes() -> None:
    assert describe_soft_state(SoftState(Role.LEADER, 1, 3)) == "leader in term 3"
    assert describe_soft_state(SoftState(Role.FOLLOWER, 1, 3)) == "follower in term 3 under n1"
    assert describe_soft_state(SoftState(Role.CANDIDATE, None, 3)) == "candidate in term 3"
    assert describe_write(Write(4, HardState(3, 1, 2), (E2,), [])) == (
        "write 4 term=3 vote=n1 commit=2 [2@1]"
    )
    assert describe_write(Write(4, None, (E2,), [])) == "write 4 [2@1]"
    snapshot = SnapshotBase(EntryId(2, 7), 3, make_conf([1]))
    assert describe_write(Write(4, None, (), [], snapshot)) == "write 4 snapshot 7@2"


def test_snapshots_and_members_that_left() -> None:
    message = InstallSnapshot(1, 2, 5, 1, EntryId(2, 7), 3, make_conf([1]))
    assert describe_message(message) == "n1@5 -> n2 InstallSnapshot last=7@2 config=3"
    conf = ConfState(voters=(1,), learners=(2,), auto_promote=(2,), removed=(9,))
    assert describe_conf_state(conf) == "voters=n1 learners=n2 auto_promote=n2 removed=n9"
