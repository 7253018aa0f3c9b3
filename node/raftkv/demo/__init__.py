"""A whole Raft cluster in one process, told step by step what happens to it.

For looking at and for testing: the golden traces, the paper tests and the random schedules run
on it, and `raftkv demo` lets a person do the same. The cores are the real ones
(`raftkv.raft.RawNode`); disks, state machines and the network are the simplest that could work,
and nothing happens unless a command says so. No I/O, clock or randomness here.

    cluster    the nodes, their disks, and the messages in flight
    command    how a command is declared, found and refused
    making, inputs, network, looking
               the commands
    interpreter
               performs a line of text on a cluster
    tour       the guided tour, as values
"""

from raftkv.demo.command import COMMANDS, Command, CommandError, UsageError, find_command
from raftkv.demo.interpreter import Interpreter

__all__ = [
    "COMMANDS",
    "Command",
    "CommandError",
    "Interpreter",
    "UsageError",
    "find_command",
]
