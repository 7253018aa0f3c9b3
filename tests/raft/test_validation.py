"""No message of a peer makes a node raise or leave its invariants, however wrong it is."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.demo.cluster import Cluster, founded_cluster, make_conf, make_config_entry
from raftkv.raft import (
    Append,
    AppendResp,
    Entry,
    EntryId,
    EntryType,
    Heartbeat,
    HeartbeatResp,
    Input,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteResp,
    RawNode,
    ReadIndex,
    ReadIndexResp,
    TimeoutNow,
    Vote,
    VoteResp,
)
from raftkv.raft.validation import NUMBER_MAX, is_plausible

SMALL = st.integers(-1, 6)
NUMBERS = SMALL | st.sampled_from([NUMBER_MAX - 1, NUMBER_MAX, 1 << 63])
# Node 1 receives; 2 and 3 are its peers, 4 is a stranger.
ENDS = {"sender": st.integers(1, 4), "receiver": st.sampled_from([1, 1, 1, 2]), "term": NUMBERS}
ENTRIES = st.lists(
    st.builds(Entry, SMALL, SMALL, st.sampled_from(EntryType), st.just(b"\xc1")), max_size=3
).map(tuple)
# A commit index beyond the log is left out: see test_acknowledged_entries_that_are_gone_...
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(PreVote, **ENDS, last_term=NUMBERS, last_index=NUMBERS),
    st.builds(PreVoteResp, **ENDS, granted=st.booleans()),
    st.builds(Vote, **ENDS, last_term=NUMBERS, last_index=NUMBERS, transfer=st.booleans()),
    st.builds(VoteResp, **ENDS, granted=st.booleans()),
    st.builds(
        Append,
        **ENDS,
        session=SMALL,
        prev_term=NUMBERS,
        prev_index=NUMBERS,
        commit=NUMBERS,
        entries=ENTRIES,
    ),
    st.builds(
        AppendResp,
        **ENDS,
        session=st.integers(0, 1),
        match=NUMBERS,
        rejected_index=st.none() | NUMBERS,
        hint_term=NUMBERS,
        hint_index=NUMBERS,
    ),
    st.builds(Heartbeat, **ENDS, session=SMALL, commit=st.integers(-1, 0), round=NUMBERS),
    st.builds(HeartbeatResp, **ENDS, session=st.integers(0, 1), round=NUMBERS),
    st.builds(TimeoutNow, **ENDS),
    st.builds(ReadIndex, **ENDS, context=SMALL),
    st.builds(ReadIndexResp, **ENDS, context=SMALL, index=st.none() | NUMBERS),
)
# Only the node's own host steps these, but of what a leader's host said.
SNAPSHOTS = st.builds(
    InstallSnapshot,
    **ENDS,
    session=SMALL,
    last=st.builds(EntryId, SMALL, NUMBERS),
    config_index=SMALL,
    conf=st.sampled_from([make_conf([]), make_conf([1, 2, 3]), make_conf([2, 4], learners=[1])]),
)


def follower() -> Cluster:
    return founded_cluster(1, 2, 3)


def leader() -> Cluster:
    cluster = founded_cluster(1, 2, 3)
    cluster.elect(1)
    return cluster


def pre_candidate() -> Cluster:
    cluster = founded_cluster(1, 2, 3)
    cluster.raft(1).campaign()
    return cluster


def empty() -> Cluster:
    cluster = Cluster()
    cluster.add_empty([1])
    return cluster


@pytest.mark.parametrize("make", [follower, leader, pre_candidate, empty])
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(messages=st.lists(MESSAGES, min_size=1, max_size=12))
def test_any_messages_leave_a_node_sound(
    make: Callable[[], Cluster], messages: list[Message]
) -> None:
    cluster = make()
    for message in messages:
        cluster.raft(1).step(message)  # checks its invariants after every call
        cluster.settle([1])
    assert cluster.raft(1).dropped_messages <= len(messages)


def serve(raft: RawNode) -> None:
    """What a host does, with a perfect disk and state machine, until nothing is left."""
    while raft.has_ready():
        ready = raft.ready()
        if ready.write is not None:
            raft.persisted(ready.write.number)
        if ready.committed_entries:
            raft.applied(ready.committed_entries[-1].index)


@pytest.mark.parametrize("make", [follower, leader, pre_candidate, empty])
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(messages=st.lists(MESSAGES | SNAPSHOTS, min_size=1, max_size=12))
def test_any_snapshots_among_messages_leave_a_node_sound(
    make: Callable[[], Cluster], messages: list[Input]
) -> None:
    raft = make().raft(1)
    for message in messages:
        committed = raft.commit_index
        raft.step(message)  # checks its invariants after every call
        assert raft.commit_index >= committed
        serve(raft)
        assert not raft.is_installing


@pytest.mark.parametrize(
    "message",
    [
        InstallSnapshot(2, 1, 2, 1, EntryId(0, 4), 1, make_conf([1, 2])),  # no term
        InstallSnapshot(2, 1, 2, 1, EntryId(3, 4), 1, make_conf([1, 2])),  # newer than its leader
        InstallSnapshot(2, 1, 2, 1, EntryId(2, 0), 0, make_conf([1, 2])),  # of nothing
        InstallSnapshot(2, 1, 2, 1, EntryId(2, 4), 5, make_conf([1, 2])),  # configured later
        InstallSnapshot(2, 1, 2, 1, EntryId(2, 4), 0, make_conf([1, 2])),  # configured by none
        InstallSnapshot(2, 1, 2, 1, EntryId(2, 4), 1, make_conf([])),  # of nobody
        InstallSnapshot(2, 9, 2, 1, EntryId(2, 4), 1, make_conf([1, 2])),  # for another node
    ],
    ids=repr,
)
def test_snapshot_that_no_correct_leader_sends_is_dropped(message: InstallSnapshot) -> None:
    cluster = founded_cluster(1, 2, 3)
    cluster.raft(1).step(message)
    assert cluster.raft(1).dropped_messages == 1
    assert cluster.raft(1).last_index == 1


@pytest.mark.parametrize(
    "message",
    [
        Heartbeat(2, 9, 1, 1, 0, 0),  # for another node
        Heartbeat(1, 1, 1, 1, 0, 0),  # from itself
        Heartbeat(2, 1, -1, 1, 0, 0),
        Heartbeat(2, 1, NUMBER_MAX, 1, 0, 0),
        Heartbeat(2, 1, 1, 1, -1, 0),
        Heartbeat(2, 1, 0, 1, 0, 0),  # nobody leads term 0
        Append(2, 1, 0, 1, 0, 0, 0, ()),
        Vote(2, 1, 2, 2, 5),  # a last entry of the term it only now enters
        Append(2, 1, 2, 1, 3, 4, 0, ()),  # a log newer than its term
        Append(2, 1, 2, 1, 0, 4, 0, ()),  # an entry without a term
        Append(2, 1, 2, 1, 1, 0, 0, ()),  # nothing, with a term
        Append(2, 1, 2, 1, 1, 1, 0, (Entry(1, 3, EntryType.NORMAL, b""),)),  # a gap
        Append(2, 1, 2, 1, 2, 1, 0, (Entry(1, 2, EntryType.NORMAL, b""),)),  # descending terms
        Append(2, 1, 2, 1, 1, 1, 0, (Entry(2, 2, EntryType.CONFIG, b"\xc1"),)),  # no configuration
        Append(2, 1, 2, 1, 1, 1, 0, (make_config_entry(2, 2, make_conf([])),)),  # of nobody
        AppendResp(2, 1, 2, 1, -1),
        AppendResp(2, 1, 2, 1, 0, rejected_index=-1),
        ReadIndexResp(2, 1, 2, 7, -3),
    ],
    ids=repr,
)
def test_message_that_no_correct_node_sends_is_dropped(message: Message) -> None:
    assert not is_plausible(message, receiver=1)
    cluster = founded_cluster(1, 2, 3)
    cluster.raft(1).step(message)
    assert cluster.raft(1).dropped_messages == 1
    assert cluster.raft(1).term == 1


def test_acknowledged_entries_that_are_gone_stop_the_node() -> None:
    # Its disk lied: with this log it must neither vote nor count.
    cluster = founded_cluster(1, 2, 3)
    with pytest.raises(AssertionError, match="acknowledged its log up to 7 and holds 1"):
        cluster.raft(1).step(Heartbeat(2, 1, 2, 1, commit=7, round=0))
