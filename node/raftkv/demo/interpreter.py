"""Performs commands, given as lines of text, on a cluster: `raftkv demo` and the golden traces."""

from typing import Final

from raftkv.demo.command import UsageError, find_command
from raftkv.demo.inputs import Inputs
from raftkv.demo.looking import Looking
from raftkv.demo.making import Making
from raftkv.demo.network import Network
from raftkv.raft import RaftError
from raftkv.raft.describe import describe_id

QUIET: Final = "quiet"


class Interpreter(Making, Inputs, Network, Looking):
    """A cluster, at first without nodes, and the commands that change it."""

    def run(self, line: str) -> None:
        """Perform the command in ``line``; `take_lines` then has what happened.

        What a core refuses is a result, and printed. ``quiet COMMAND`` prints nothing.

        Raises:
            UsageError: There is no such command, or it does not take this. Nothing was done.
            CommandError: It cannot be done now, such as for a node that is down.
            AssertionError: Raft's invariants are broken, by messages that were made up.
        """
        words = line.split(maxsplit=1)
        if not words:
            raise UsageError("an empty line is no command")
        if words[0] == QUIET:
            if len(words) == 1:
                raise UsageError("quiet: which command? usage: quiet COMMAND")
            said = len(self.cluster.lines)
            self.run(words[1])
            del self.cluster.lines[said:]
            return
        command = find_command(words[0])
        positional, named = command.arguments(line)
        try:
            command.method(self, *positional, **named)
        except UsageError as error:
            raise UsageError(f"{command.name}: {error}; usage: {command.usage}") from None
        except RaftError as error:
            self.say(f"{type(error).__name__}: {error}")

    def take_lines(self) -> list[str]:
        """What happened since the last call, one line each."""
        lines = self.cluster.lines[:]
        self.cluster.lines.clear()
        return lines

    def to_do(self) -> str:
        """What `settle` would begin with, in a few words; empty if nothing is left to do."""
        parts = []
        busy = [
            describe_id(host.id)
            for host in self.cluster.up()
            if host.raft.has_ready() or host.write is not None or host.to_apply
        ]
        if busy:
            parts.append(f"to do: {' '.join(busy)}")
        if self.cluster.in_flight:
            parts.append(f"{len(self.cluster.in_flight)} in flight")
        return ", ".join(parts)
