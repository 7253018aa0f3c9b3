"""`raftkv demo`: from a pipe, from a terminal, its tour, and the page about it."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner, Result

from raftkv.cli import demo
from raftkv.cli.main import main
from raftkv.demo import COMMANDS, Interpreter
from raftkv.demo.tour import TOUR, Step

COMMAND = (sys.executable, "-m", "raftkv", "demo")
DOCS = Path(__file__).parents[2] / "docs"
TRACES = Path(__file__).parents[1] / "raft" / "testdata"


def piped(script: bytes) -> subprocess.CompletedProcess[str]:
    """A process of its own, with real pipes."""
    done = subprocess.run(COMMAND, input=script, capture_output=True, timeout=60, check=False)
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def performed(script: str) -> Result:
    """The same command in this process."""
    return CliRunner().invoke(main, ["demo"], input=script, catch_exceptions=False)


# ---- from a pipe ---------------------------------------------------------------------------


def test_a_script_is_performed_and_printed_with_its_commands() -> None:
    done = piped(b"# elect node 1\n\ncampaign 1\nquiet settle\npropose 1 a b\nstatus 1\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "> campaign 1",
        "ok",
        "> quiet settle",
        "ok",
        "> propose 1 a b",
        "n1 appends 3@2 a b",
        "> status 1",
        "n1 leader term=2 vote=n1 leader=n1 commit=2 durable=2 last=3@2",
    ]


def test_quit_ends_a_script() -> None:
    done = performed("quit\nno such command\n")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "> quit\n", "")


def test_it_performs_golden_traces() -> None:
    """The same commands: those of a trace, into `raftkv demo`."""
    text = (TRACES / "snapshot_to_a_lagging_follower.txt").read_text()
    blocks = [block.split("\n----\n") for block in text.strip().split("\n\n")[1:]]
    done = performed("reset none\n" + "\n".join(block[0] for block in blocks))
    assert (done.exit_code, done.stderr) == (0, "")
    printed = [line for line in done.stdout.splitlines() if not line.startswith("> ")]
    expected = [line for block in blocks for line in block[1].splitlines()]
    assert [line for line in printed if line != "ok"] == expected


@pytest.mark.parametrize(
    ("line", "exit_code", "sentence"),
    [
        ("electoin 1", 2, "there is no command 'electoin'"),
        ("timeout", 2, "timeout: missing a required argument: 'node'; usage: timeout N"),
        ("help stauts", 2, "there is no command 'stauts'; did you mean status?"),
        ("tour 9", 2, "tour: '9' is not a number from 1 to 6; usage: tour [STEP]"),
        ("tour 1 2", 2, "tour: too many arguments; usage: tour [STEP]"),
        ("reset 1,1", 2, "names a node twice"),
        ("propose 1 " + "x" * 5000, 2, "it has more than 4096 characters"),
        ("timeout 9", 1, "there is no node n9; there are: n1, n2, n3"),
        ("deliver", 1, "no such message is in flight"),
        (
            "inject Heartbeat sender=2 receiver=1 term=4 session=1 commit=3 round=1",
            1,
            "Raft's invariants are broken: this node acknowledged its log up to 3 and holds 1.",
        ),
    ],
)
def test_a_wrong_line_ends_a_script_with_a_sentence(
    line: str, exit_code: int, sentence: str
) -> None:
    done = performed(f"status 1\n{line}\nstatus 2\n")
    assert done.exit_code == exit_code
    assert done.stderr.startswith("Error: line ")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
    assert "> status 2" not in done.stdout


def test_the_process_ends_with_the_exit_code_of_the_wrong_line() -> None:
    done = piped(b"status 1\ntimeout 9\nstatus 2\n")
    assert done.returncode == 1
    assert done.stderr == "Error: line 2: there is no node n9; there are: n1, n2, n3\n"
    assert "> status 2" not in done.stdout


def test_what_is_no_text_reaches_neither_the_core_nor_the_terminal() -> None:
    done = piped(b"campaign 1\nquiet settle\npropose 1 \xff\x00\x1b[31m \xc3\xa9\nsettle\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "\x00" not in done.stdout
    assert "n3 applies 3@2 " in done.stdout


def test_every_command_has_help_that_begins_with_its_usage() -> None:
    everything = performed("help\n").stdout
    names = [*COMMANDS, "quiet", "reset", "tour", "help", "quit"]
    done = performed("".join(f"help {name}\n" for name in names))
    assert done.exit_code == 0
    for name in names:
        assert re.search(rf"^  {name}\b", everything, re.MULTILINE), name
        assert f"> help {name}\nusage: {name}" in done.stdout


# ---- the tour ------------------------------------------------------------------------------


@pytest.mark.parametrize("step", TOUR, ids=lambda step: step.title)
def test_the_tour_shows_what_it_says(step: Step) -> None:
    interpreter = Interpreter()
    for move in step.moves:
        for command in move.commands:
            interpreter.run(command)
        lines = interpreter.take_lines()
        assert set(move.look_for) <= set(lines), move.why
    assert interpreter.to_do() == ""


def test_the_tour_runs_to_its_end_and_leaves_the_cluster_alone() -> None:
    done = performed("campaign 1\nquiet settle\ntour\nstatus\n")
    assert (done.exit_code, done.stderr) == (0, "")
    for number, step in enumerate(TOUR, 1):
        assert f"Step {number} of {len(TOUR)}: {step.title}\n({step.source})\n" in done.stdout
        for move in step.moves:
            for line in move.look_for:
                assert f"\n{line}\n" in done.stdout
    assert done.stdout.endswith(
        "> status\n"
        "n1 leader term=2 vote=n1 leader=n1 commit=2 durable=2 last=2@2\n"
        "n2 follower term=2 vote=n1 leader=n1 commit=2 durable=2 last=2@2\n"
        "n3 follower term=2 vote=n1 leader=n1 commit=2 durable=2 last=2@2\n"
    )


# ---- from a terminal -----------------------------------------------------------------------


class Terminal:
    """The command with a terminal of its own, and what it wrote there."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            COMMAND,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            # Tests that run in the background of a shell inherit that it is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        os.close(slave)
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, wanted: str, seconds: float = 30) -> str:
        """Returns what came up to ``wanted``; that is not looked at again."""
        deadline = monotonic() + seconds
        while wanted not in self.text:
            left = deadline - monotonic()
            assert left > 0, f"{wanted!r} did not come: {self.text!r}"
            if select.select([self.master], [], [], left)[0]:
                self.text += os.read(self.master, 65536).decode()
        before, _, self.text = self.text.partition(wanted)
        return before

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self.master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.end()


def test_a_person_is_told_how_to_begin_and_errors_are_no_end(terminal: Terminal) -> None:
    assert "Raft in one process" in terminal.wait_for("raft > ")
    terminal.type("stauts\n")
    terminal.wait_for("did you mean status?")
    terminal.type("timeout 1\n")
    terminal.wait_for("raft (to do: n1) > ")
    terminal.type("settle\n")
    before = terminal.wait_for("raft > ")
    assert "\x1b[1;32mn1 leader in term 2" in before
    terminal.process.send_signal(signal.SIGINT)
    terminal.type("\n")  # wakes a readline that the signal hit just before it began to wait
    terminal.wait_for("`quit` or Ctrl-D leaves.")
    terminal.wait_for("raft > ")
    terminal.type("quit\n")
    assert terminal.process.wait(10) == 0


def test_enter_goes_on_in_the_tour_and_q_leaves_it(terminal: Terminal) -> None:
    terminal.wait_for("raft > ")
    terminal.type("tour 6\n")
    terminal.wait_for("n1 has a snapshot of 4@2")
    terminal.wait_for("Enter goes on, q leaves the tour ")
    terminal.type("\n")
    terminal.wait_for("InstallSnapshot last=4@2")
    terminal.wait_for("Enter goes on, q leaves the tour ")
    terminal.type("q\n")
    terminal.wait_for("Your own cluster is as you left it.")
    terminal.wait_for("raft > ")
    terminal.type("\x04")
    assert terminal.process.wait(10) == 0


def test_words_are_completed() -> None:
    def completed(text: str) -> list[str]:
        found: list[str] = []
        while word := demo._complete(text, len(found)):
            found.append(word)
        return found

    assert completed("sn") == ["snapshot ", "snapshot_failed "]
    assert completed("q") == ["quiet ", "quit "]
    assert completed("") == [f"{word} " for word in sorted(completed_words())]
    assert completed("x") == []


def completed_words() -> set[str]:
    return {*COMMANDS, "quiet", "reset", "tour", "help", "quit"}


# ---- the page ------------------------------------------------------------------------------


def test_the_transcript_of_the_page_is_what_happens() -> None:
    page = (DOCS / "demo.md").read_text()
    blocks = re.findall(r"^```text\n(> .*?)^```$", page, re.MULTILINE | re.DOTALL)
    transcript = "".join(blocks)
    commands = re.findall(r"^> (.*)$", transcript, re.MULTILINE)
    assert len(commands) > 10
    done = performed("\n".join(commands) + "\n")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == transcript
