"""The commands: what they take, what they refuse, and that a refused one changes nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.demo import COMMANDS, CommandError, Interpreter, UsageError


def made(*lines: str) -> Interpreter:
    interpreter = Interpreter()
    for line in lines:
        interpreter.run(line)
    interpreter.take_lines()
    return interpreter


@pytest.fixture
def interpreter() -> Interpreter:
    return made("founded 1,2,3", "settle", "campaign 1", "settle")


def said(interpreter: Interpreter, *lines: str) -> list[str]:
    for line in lines:
        interpreter.run(line)
    return interpreter.take_lines()


def test_nothing_happens_until_it_is_told_to() -> None:
    interpreter = made("founded 1,2,3", "settle")
    assert said(interpreter, "timeout 1") == []
    assert interpreter.to_do() == "to do: n1"
    assert said(interpreter, "ready 1") == [
        "n1 pre_candidate in term 1",
        "n1@2 -> n2 PreVote last=1@1",
        "n1@2 -> n3 PreVote last=1@1",
    ]
    assert interpreter.to_do() == "2 in flight"
    assert "n1 leader in term 2" in said(interpreter, "settle")
    assert interpreter.to_do() == ""


def test_a_node_may_be_called_as_it_is_printed(interpreter: Interpreter) -> None:
    assert said(interpreter, "status n2,3") == said(interpreter, "status 2,n3") != []


def test_what_is_proposed_is_the_rest_of_the_line(interpreter: Interpreter) -> None:
    assert said(interpreter, "propose 1 a  b=c  # d") == ["n1 appends 3@2 a  b=c  # d"]


def test_quiet_prints_nothing_and_keeps_what_was_said(interpreter: Interpreter) -> None:
    assert said(interpreter, "propose 1 a", "quiet settle") == ["n1 appends 3@2 a"]
    assert interpreter.cluster.raft(3).commit_index == 3


def test_what_a_core_refuses_is_a_result(interpreter: Interpreter) -> None:
    assert said(interpreter, "propose 2 x") == [
        "ProposalDropped: the proposal was dropped: not_leader"
    ]
    [line] = said(interpreter, "remove 1 1")
    assert line.startswith("ConfigChangeRefused: leader_itself: ")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "an empty line is no command"),
        ("quiet", "usage: quiet COMMAND"),
        ("electoin 1", "there is no command 'electoin'"),
        ("stauts", "did you mean status?"),
        ("timeout", "timeout: missing a required argument: 'node'; usage: timeout N"),
        ("timeout 1 2", "timeout: too many positional arguments; usage: timeout N"),
        ("timeout x", "timeout: 'x' is not a node: they are called 1 to 9; usage: timeout N"),
        ("timeout 10", "'10' is not a node"),
        ("timeout n=1", "usage: timeout N"),
        ("propose 1", "propose: missing a required argument: 'text'; usage: propose N TEXT"),
        ("propose", "usage: propose N TEXT"),
        (f"propose 1 {'x' * 1001}", "TEXT has more than 1000 characters"),
        ("tick 1 1001", "'1001' is not a number from 1 to 1000"),
        ("tick 1 0", "is not a number from 1"),
        ("tick 1 ²", "is not a number"),
        ("deliver form=1", "usage: deliver [from=IDS]"),
        ("founded 1,1", "'1,1' names a node twice"),
        ("founded 1,", "'' is not a node"),
        ("node 1 terms=2,1", "terms never fall along a log, 2,1 do"),
        ("node 1 terms=1,3 term=2", "'2' is not a number from 3"),
        ("node 1 terms=1 commit=2", "'2' is not a number from 0 to 1"),
        ("limits election_ticks=1", "there is no limit 'election_ticks'"),
        ("limits inflight_appends_max=0", "'0' is not a number from 1"),
        ("inject Telegram sender=1", "there is no kind 'Telegram'"),
        ("inject Vote sender=1 receiver=2 term=3", "the fields of Vote are: sender, receiver"),
        ("inject TimeoutNow sender=1 receiver=2 term=true", "term=true: Expected `int`"),
        ("inject TimeoutNow sender=1 receiver=2 term=x", "'x' is not a number"),
        ("append sender=1 receiver=2 term=2 base=3", "'3' is not INDEX@TERM, such as 3@2"),
    ],
)
def test_wrong_usage_is_a_sentence_and_changes_nothing(
    interpreter: Interpreter, line: str, sentence: str
) -> None:
    before = said(interpreter, "status")
    with pytest.raises(UsageError) as refused:
        interpreter.run(line)
    assert sentence in str(refused.value)
    assert interpreter.take_lines() == []
    assert (said(interpreter, "status"), interpreter.to_do()) == (before, "")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("timeout 9", "there is no node n9; there are: n1, n2, n3"),
        ("status 1,9", "there is no node n9"),
        ("isolate 9", "there is no node n9"),
        ("settle 9", "there is no node n9"),
        ("propose 3 x", "n3 is down; start it with: restart 3"),
        ("miss 2,3", "n3 is down"),
        ("deliver", "no such message is in flight; `flight` shows those that are"),
        ("drop type=Vote", "no such message is in flight"),
        ("persist 1", "n1 writes nothing; `ready 1` first"),
        ("half_persist 1", "n1 writes no snapshot"),
        ("progress 2", "n2 does not lead; `status` says who does"),
        ("transfer 2 1", "n2 does not lead"),
        ("send_snapshot 1 2", "n1 has no snapshot; say: snapshot 1"),
        ("send_snapshots 1", "n1 wants no snapshot to be sent"),
    ],
)
def test_what_cannot_be_done_now_is_a_sentence_and_changes_nothing(
    interpreter: Interpreter, line: str, sentence: str
) -> None:
    interpreter.run("crash 3")
    before = said(interpreter, "status")
    with pytest.raises(CommandError) as refused:
        interpreter.run(line)
    assert not isinstance(refused.value, UsageError)
    assert sentence in str(refused.value)
    assert interpreter.take_lines() == []
    assert (said(interpreter, "status"), interpreter.to_do()) == (before, "")


def test_a_node_without_a_configuration_is_refused() -> None:
    with pytest.raises(CommandError, match="1@1 needs a configuration"):
        Interpreter().run("node 1 terms=1")


def test_a_restart_is_a_crash_first(interpreter: Interpreter) -> None:
    assert said(interpreter, "propose 1 x", "quiet ready 1", "restart 1", "log 1") == [
        "n1 appends 3@2 x",
        "1@1 voters=n1,n2,n3",
        "2@2 no-op",
    ]
    interpreter.run("settle")
    assert "n1 applies 3@2 x" in said(interpreter, "miss 2,3", "campaign 2", "settle")


def test_messages_in_flight_are_bounded(interpreter: Interpreter) -> None:
    interpreter.run("heartbeat 1")
    interpreter.run("ready 1")
    for _ in range(12):
        interpreter.run("duplicate")
    with pytest.raises(CommandError, match="no more than 10000 messages"):
        interpreter.run("duplicate")
    assert len(interpreter.cluster.in_flight) == 2 << 12


def test_every_command_says_what_it_does() -> None:
    for name, command in COMMANDS.items():
        assert command.usage.split()[0] == name
        first = command.help.splitlines()[0]
        assert first[0].isupper(), name
        assert first.endswith("."), name
        assert len(first) < 90, name


NODE = st.sampled_from("1123456")
NODES = st.sampled_from(["1", "2,3", "4", "1,2,3"])
SMALL = st.integers(0, 6).map(str)
WITH_A_NODE = """timeout heartbeat campaign ready persist apply snapshot crash restart log progress
    promotable leave send_snapshots half_persist"""
WITH_A_NODE_AND_A_NUMBER = """propose read transfer add promote remove send_snapshot snapshot_failed
    compact cut tick"""
# What people may type; but no made-up messages and pasts, with which Raft can be broken.
COMMAND_LINES = st.one_of(
    st.tuples(st.sampled_from(WITH_A_NODE.split()), NODE),
    st.tuples(st.sampled_from(WITH_A_NODE_AND_A_NUMBER.split()), NODE, SMALL),
    st.tuples(st.just("swap"), NODE, NODE, NODE),
    st.tuples(st.just("bootstrap"), NODE, NODES),
    st.tuples(st.sampled_from(["miss", "isolate", "settle", "status"]), NODES),
    st.tuples(
        st.sampled_from(["deliver", "drop", "duplicate"]),
        st.sampled_from(["", "to=1", "from=1,2", "type=Append", "type=Vote,VoteResp"]),
    ),
    st.sampled_from([("settle",), ("heal",), ("flight",), ("status",)]),
).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(COMMAND_LINES, max_size=40))
def test_no_command_breaks_anything_in_whatever_order(lines: list[str]) -> None:
    interpreter = made("founded 1,2,3", "empty 4,5", "settle", "campaign 1", "settle")
    for line in lines:
        try:
            interpreter.run(line)
        except CommandError:
            continue
    interpreter.run("settle")
