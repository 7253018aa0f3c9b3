"""`raftkv demo`: Raft in one process, command by command.

A front end only: `raftkv.demo` holds the cluster, the commands and the tour. On a terminal it
asks for commands, with history and completion; from a pipe or a file it performs them until one
is wrong.
"""

import io
import sys
import textwrap
from collections.abc import Callable
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from raftkv.cli.common import CommandError
from raftkv.cli.printing import printable
from raftkv.demo import COMMANDS, Interpreter, UsageError, find_command
from raftkv.demo import CommandError as RefusedError
from raftkv.demo.command import parse_number
from raftkv.demo.tour import TOUR, Step

_FOUNDED: Final = "1,2,3"
_LINE_CHARACTERS_MAX: Final = 4096
_WIDTH: Final = 92
_USAGE_WIDTH: Final = 22
_GO_ON: Final = "Enter goes on, q leaves the tour "
_INTRO: Final = """\
Raft in one process: nodes n1, n2, n3 of a new cluster, without a leader yet. No clock runs here:
time passes, and messages arrive, when you say so. Try

    timeout 1         node 1 hears no leader for an election timeout
    settle            deliver, write and apply everything: node 1 is elected
    propose 1 hello   an entry for the log; `settle` again and see it travel
    status            what each node is

`tour` shows elections, crashes and partitions step by step; `help` lists all commands. Tab
completes, Ctrl-D leaves."""
_NOTATION: Final = """\
n1@2 -> n3 Append base=3@2 [4@2] commit=3   node 1, in term 2, sends this to node 3
4@2                                         the entry at index 4, of term 2
n1 write 3 term=2 vote=n1 commit=3 [4@2]    the third write to node 1's disk, and what it holds"""

# What the interpreter does not know or need not explain: usage and help.
_OWN: Final = {
    "quiet": ("quiet COMMAND", "Perform COMMAND and print nothing."),
    "reset": (
        "reset [VOTERS | none]",
        f"Start anew with a cluster of VOTERS (default: {_FOUNDED}), or without any node.",
    ),
    "tour": (
        "tour [STEP]",
        "Show what Raft does, step by step. Your own cluster stays as it is.",
    ),
    "help": ("help [COMMAND]", "List all commands, or explain one."),
    "quit": ("quit", "Leave. So does Ctrl-D."),
}
_WORDS: Final = sorted({*COMMANDS, *_OWN})
# The first that occurs in a line says how it looks.
_STYLES: Final = {
    "(lost)": "red",
    "dropped": "red",
    "Refused: ": "red",
    " -> ": "cyan",
    " leader ": "bold green",
    " candidate ": "yellow",
    " pre_candidate ": "yellow",
    " applies ": "green",
    " write ": "dim",
}


@click.command("demo")
def demo_command() -> None:
    """Try out Raft in one process: elections, crashes, partitions.

    Starts with a cluster of three nodes without a leader, and asks for commands. `help` lists
    them, `tour` is a guided tour. They are the commands of the golden traces in
    tests/raft/testdata, and the same code performs them.

    Commands can also come from a pipe or a file, one a line (# before a comment), as in
    `raftkv demo < script`. There a wrong command ends the demo with exit code 2, and one that
    cannot be done now with 1.
    """
    if sys.stdin.isatty():
        _converse()
    else:
        _perform()


class _LeaveError(Exception):
    """The person has had enough: of the demo, or of the tour."""


class _ScriptError(CommandError):
    """A line of a script is wrong; nothing after it was done."""

    def __init__(self, number: int, sentence: str, exit_code: int) -> None:
        super().__init__(f"line {number}: {sentence}")
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class


class Demo:
    """The commands, with those of this front end; prints what comes of them."""

    def __init__(self, pause: Callable[[], None]) -> None:
        """``pause`` returns when the tour may go on; it may raise `_LeaveError`."""
        self._pause = pause
        self._console = Console(highlight=False, soft_wrap=True)
        self._interpreter = _founded(_FOUNDED)

    def run(self, line: str) -> None:
        """Perform one line; an empty one or a comment is no command.

        Raises:
            UsageError, CommandError, AssertionError: As `Interpreter.run`.
            _LeaveError: It is `quit`.
        """
        line = line.strip()
        name, *arguments = line.split() or [""]
        if name == "" or name.startswith("#"):
            return
        if name not in _OWN or name == "quiet":
            self._run(self._interpreter, line)
            return
        if len(arguments) > 1:
            raise UsageError(f"{name}: too many arguments; usage: {_OWN[name][0]}")
        argument = arguments[0] if arguments else ""
        match name:
            case "reset":
                self._interpreter = _founded(argument or _FOUNDED)
                self.say("ok")
            case "help":
                self._help(argument)
            case "tour":
                self._tour(_step_number(argument) if argument else 1)
            case _:  # quit
                raise _LeaveError

    def say(self, text: str, style: str = "") -> None:
        """Print ``text``, on a terminal in ``style``."""
        self._console.print(Text(text, style))

    def prompt(self) -> str:
        """Says what is left to do, and asks for a command."""
        to_do = self._interpreter.to_do()
        return f"raft ({to_do}) > " if to_do else "raft > "

    def _run(self, interpreter: Interpreter, line: str, when_nothing: str = "ok") -> None:
        try:
            interpreter.run(line)
        finally:
            lines = interpreter.take_lines()
            for each in lines:
                text = printable(each.encode(errors="backslashreplace"))
                text.stylize(next((s for mark, s in _STYLES.items() if mark in each), ""))
                self._console.print(text)
        if when_nothing and not lines:
            self.say(when_nothing)

    # ---- help -------------------------------------------------------------------------------

    def _help(self, name: str) -> None:
        if name in _OWN:
            usage, text = _OWN[name]
        elif name:
            command = find_command(name)
            usage, text = command.usage, command.help
        else:
            self._list()
            return
        self.say(f"usage: {usage}", "bold")
        self.say(text)

    def _list(self) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for command in COMMANDS.values():
            row = (command.usage, command.help.splitlines()[0])
            groups.setdefault(command.group, []).append(row)
        groups["This demo"] = list(_OWN.values())
        for group, rows in groups.items():
            self.say(group, "bold")
            for usage, summary in rows:
                if len(usage) <= _USAGE_WIDTH:
                    self.say(f"  {usage:{_USAGE_WIDTH}}  {summary}")
                else:
                    self.say(f"  {usage}\n  {'':{_USAGE_WIDTH}}  {summary}")
        self.say("What is printed", "bold")
        self.say(textwrap.indent(_NOTATION, "  "))

    # ---- the tour ---------------------------------------------------------------------------

    def _tour(self, first: int) -> None:
        try:
            for number, step in enumerate(TOUR[first - 1 :], first):
                if number > first:
                    self.say("")
                title = f"Step {number} of {len(TOUR)}: {step.title}"
                self.say(title, "bold underline")
                self.say(f"({step.source})\n", "dim")
                self._show(step)
        except _LeaveError:
            pass
        self.say("\nYour own cluster is as you left it.")

    def _show(self, step: Step) -> None:
        """On a cluster of its own; pauses after each move."""
        interpreter = Interpreter()
        self.say(textwrap.fill(step.intro, _WIDTH))
        for move in step.moves:
            self.say("")
            for command in move.commands:
                self.say(f"> {command}", "bold")
                self._run(interpreter, command, when_nothing="")
            self.say("")
            self.say(textwrap.fill(move.why, _WIDTH), "italic")
            self._pause()


def _founded(voters: str) -> Interpreter:
    """Nodes that are done with the founding entry; none at all for ``none``."""
    interpreter = Interpreter()
    if voters != "none":
        interpreter.run(f"quiet founded {voters}")
        interpreter.run("quiet settle")
    return interpreter


def _step_number(text: str) -> int:
    try:
        return parse_number(text, 1, len(TOUR))
    except UsageError as error:
        raise UsageError(f"tour: {error}; usage: {_OWN['tour'][0]}") from None


def _broken(error: AssertionError) -> str:
    """For what only made-up messages and made-up logs can bring about."""
    return (
        f"Raft's invariants are broken: {error}. A real node would stop here; `reset` begins anew."
    )


# ---- where commands come from --------------------------------------------------------------


def _perform() -> None:
    """Commands from a pipe or a file, printed before what comes of them."""
    demo = Demo(pause=lambda: None)
    stream = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace")
    number = 0
    while line := stream.readline(_LINE_CHARACTERS_MAX + 1):
        number += 1
        if len(line) > _LINE_CHARACTERS_MAX:
            sentence = f"it has more than {_LINE_CHARACTERS_MAX} characters"
            raise _ScriptError(number, sentence, exit_code=2)
        if line.strip() and not line.lstrip().startswith("#"):
            demo.say(f"> {printable(line.strip().encode()).plain}")
        try:
            demo.run(line)
        except UsageError as error:
            raise _ScriptError(number, str(error), exit_code=2) from None
        except RefusedError as error:
            raise _ScriptError(number, str(error), exit_code=1) from None
        except AssertionError as error:
            raise _ScriptError(number, _broken(error), exit_code=1) from None
        except _LeaveError:
            return


def _converse() -> None:
    """Commands from a person, until they leave."""
    demo = Demo(pause=_wait_for_enter)
    _complete_words()
    demo.say(_INTRO)
    while True:
        try:
            demo.run(input(demo.prompt()))
        except RefusedError as error:
            demo.say(f"Error: {error}", "red")
        except AssertionError as error:
            demo.say(f"Error: {_broken(error)}", "red")
        except UnicodeDecodeError:
            demo.say("Error: that is not UTF-8", "red")
        except KeyboardInterrupt:
            demo.say("\n`quit` or Ctrl-D leaves.")
        except _LeaveError:
            return
        except EOFError:
            demo.say("")
            return


def _wait_for_enter() -> None:
    try:
        answer = input(_GO_ON)
    except (EOFError, KeyboardInterrupt):
        answer = "q"
        click.echo()
    if answer.strip().lower() in {"q", "quit", "exit"}:
        raise _LeaveError


def _complete_words() -> None:
    """History and completion, where Python has readline; else lines are plain."""
    try:
        import readline  # noqa: PLC0415 - importing it is what switches it on
    except ImportError:
        return
    readline.set_completer(_complete)
    readline.set_completer_delims(" ")
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")


def _complete(text: str, state: int) -> str | None:
    """The ``state``-th word that ``text`` may become; called by readline."""
    words = [word for word in _WORDS if word.startswith(text)] if text else _WORDS
    return f"{words[state]} " if state < len(words) else None
