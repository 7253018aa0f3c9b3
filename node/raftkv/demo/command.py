"""How a command is declared, found by name, given its arguments, and refused.

A command is a method of a `CommandSet` under the decorator `command`; its docstring is its help.
It reads all its arguments before it acts, so that a refused one changed nothing.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from raftkv.demo.cluster import Cluster, Host
from raftkv.raft import ConfState, RawNode
from raftkv.raft.describe import describe_id

# Ids are random 64-bit numbers elsewhere; here people type them.
NODE_ID_MAX: Final = 9
# Fields of made-up messages; beyond it no node could have sent them.
NUMBER_MAX: Final = (1 << 63) - 1
TEXT_CHARACTERS_MAX: Final = 1000


class CommandError(Exception):
    """The command did nothing: a sentence says why."""


class UsageError(CommandError):
    """There is no such command, or these are not its arguments."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is known of one command."""

    usage: str  # its name, then what it takes
    group: str  # what it is listed under
    method: Callable[..., None]
    takes_text: bool  # the last argument is the rest of the line, as it is

    @property
    def name(self) -> str:
        """The first word of a line that means this command."""
        return self.usage.split()[0]

    @property
    def help(self) -> str:
        """What it does: a sentence first, perhaps more after an empty line."""
        return inspect.getdoc(self.method) or ""

    def arguments(self, line: str) -> tuple[list[str], dict[str, str]]:
        """The words of ``line`` after the name: those by position, and those of the form a=b.

        Raises:
            UsageError: They are too few, too many, or not known.
        """
        if self.takes_text:
            positional, named = line.split(maxsplit=2)[1:], {}
        else:
            words = line.split()[1:]
            positional = [word for word in words if "=" not in word]
            pairs = [word.split("=", 1) for word in words if "=" in word]
            named = {"from_" if name == "from" else name: value for name, value in pairs}
        try:
            inspect.signature(self.method).bind(None, *positional, **named)
        except TypeError as error:
            said = str(error).replace("'from_'", "'from'")
            raise UsageError(f"{self.name}: {said}; usage: {self.usage}") from None
        return positional, named


#: By name, in the order of their declaration.
COMMANDS: Final[dict[str, Command]] = {}

Method = TypeVar("Method", bound=Callable[..., None])


def command(group: str, usage: str, *, takes_text: bool = False) -> Callable[[Method], Method]:
    """Declares the method below it as a command."""

    def declare(method: Method) -> Method:
        declared = Command(usage, group, method, takes_text)
        assert declared.name not in COMMANDS, declared.name
        COMMANDS[declared.name] = declared
        return method

    return declare


def find_command(name: str) -> Command:
    """The command of this name.

    Raises:
        UsageError: There is none; names one that is spelled alike, if there is one.
    """
    if name in COMMANDS:
        return COMMANDS[name]
    alike = difflib.get_close_matches(name[:TEXT_CHARACTERS_MAX], COMMANDS, n=1)
    hint = f"; did you mean {alike[0]}?" if alike else ""
    raise UsageError(f"there is no command {name[:40]!r}{hint}")


class CommandSet:
    """What the commands work on, and how they read their arguments."""

    def __init__(self) -> None:
        self.settings: dict[str, int] = {}  # Config fields of nodes that are made from now on
        self.cluster = Cluster(settings=self.settings)
        self.conf = ConfState()  # what 1@1 holds, for nodes that are made from now on

    def say(self, line: str) -> None:
        """Print ``line`` after what the cluster printed."""
        self.cluster.lines.append(line)

    def host(self, node: str) -> Host:
        """The node that ``node`` names, up or down."""
        node_id = parse_id(node)
        if node_id not in self.cluster.hosts:
            there = ", ".join(map(describe_id, self.cluster.hosts)) or "none"
            raise CommandError(f"there is no node {describe_id(node_id)}; there are: {there}")
        return self.cluster.hosts[node_id]

    def host_that_is_up(self, node: str) -> Host:
        """The node that ``node`` names."""
        host = self.host(node)
        if not host.is_up:
            raise CommandError(f"{describe_id(host.id)} is down; start it with: restart {host.id}")
        return host

    def raft(self, node: str) -> RawNode:
        """The core of the node that ``node`` names."""
        return self.host_that_is_up(node).raft


def parse_number(text: str, low: int = 0, high: int = NUMBER_MAX) -> int:
    """A decimal number from ``low`` to ``high``."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise UsageError(f"{text[:40]!r} is not a number from {low} to {high}")
    return int(text)


def parse_id(text: str) -> int:
    """``1`` or ``n1``."""
    digits = text.removeprefix("n")
    if not (digits.isascii() and digits.isdigit() and len(digits) == 1 and digits != "0"):
        raise UsageError(f"{text[:40]!r} is not a node: they are called 1 to {NODE_ID_MAX}")
    return int(digits)


def parse_ids(text: str) -> list[int]:
    """``1,2,3``; empty if ``text`` is."""
    ids = [parse_id(part) for part in text.split(",")] if text else []
    if len(set(ids)) != len(ids):
        raise UsageError(f"{text!r} names a node twice")
    return ids


def parse_terms(text: str) -> list[int]:
    """Terms of entries one after the other: ``1,1,2``; empty if ``text`` is."""
    return [parse_number(part, 1) for part in text.split(",")] if text else []


def parse_position(text: str) -> tuple[int, int]:
    """Index and term of ``3@2``."""
    index, at, term = text.partition("@")
    if not at:
        raise UsageError(f"{text[:40]!r} is not INDEX@TERM, such as 3@2")
    return parse_number(index), parse_number(term)


def parse_value(text: str) -> int | bool | None:
    """A number, true, false or none."""
    if text in {"none", "true", "false"}:
        return None if text == "none" else text == "true"
    return parse_number(text)
