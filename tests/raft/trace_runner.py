"""Runs golden traces: text files of commands and of everything that happened because of them.

A file proves one fact, which its first line states. Then come blocks, separated by empty lines:

    # An optional comment.
    propose 1 hello
    settle
    ----
    n1 write 3 [3@2]
    ...

To accept new output, run with the environment variable REWRITE_TRACES=1 and read the diff as
what it is: a change of behaviour. The commands are those of `raftkv demo`, which explains them
(``help``); they are performed by `raftkv.demo`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raftkv.demo import Interpreter


@dataclass
class Block:
    """Comments and commands, and what they are expected to print."""

    head: list[str]
    expected: list[str]

    @property
    def commands(self) -> list[str]:
        return [line for line in self.head if not line.startswith("#")]


@dataclass
class Trace:
    fact: str
    blocks: list[Block]

    def text(self) -> str:
        parts = [f"# {self.fact}"]
        parts += ["\n".join([*block.head, "----", *block.expected]) for block in self.blocks]
        return "\n\n".join(parts) + "\n"


def parse_trace(text: str) -> Trace:
    first, *rest = [part for part in text.strip().split("\n\n") if part.strip()]
    fact = " ".join(line.removeprefix("#").strip() for line in first.splitlines())
    blocks = []
    for part in rest:
        lines = part.strip("\n").splitlines()
        cut = lines.index("----") if "----" in lines else len(lines)
        blocks.append(Block(lines[:cut], lines[cut + 1 :]))
    return Trace(fact, blocks)


def run_trace(trace: Trace) -> Trace:
    """Run all commands; returns the trace with what they printed in place of ``expected``."""
    interpreter = Interpreter()
    return Trace(
        trace.fact,
        [Block(block.head, list(_run(interpreter, block.commands))) for block in trace.blocks],
    )


def _run(interpreter: Interpreter, commands: list[str]) -> Iterator[str]:
    for command in commands:
        interpreter.run(command)
    yield from interpreter.take_lines() or ["ok"]


def run_file(path: Path) -> tuple[str, str]:
    """Returns the file's text and what it should be according to the code."""
    text = path.read_text()
    return text, run_trace(parse_trace(text)).text()
