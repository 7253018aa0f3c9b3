"""What a node may touch (node design, rules 1 and 2): the events it is given, and nothing else."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from inspect import iscoroutinefunction
from pathlib import Path

import raftkv
from raftkv.kv.commands import Put, encode_command
from raftkv.kv.memory_engine import MemoryEngineFactory
from raftkv.node.events import DiskDone, Effect, Event, SubmitDisk, Tick, WriteRequest
from raftkv.node.node import Node
from tests.node.test_stalls_and_slices import SETTINGS, Alone
from tests.simulation.disk import SimDisk
from tests.simulation.world import World

PACKAGE = Path(raftkv.__file__).parent
PURE = ("raft", "kv", "storage", "node")
# What gives a module files without a look into its imports, and the modules that give files.
OPENERS = {"open", "__import__", "eval", "exec"}
FILES = {"os", "io", "pathlib", "shutil", "tempfile", "mmap", "fcntl", "lmdb", "caio", "glob"}

_LOADED = """
import sys
import raftkv.node.node
print(*sorted({"asyncio", "selectors", "socket", "aiohttp", "uvloop", "lmdb", "caio"} & {*sys.modules}))
"""  # noqa: E501


# ---- rule 1 ---------------------------------------------------------------------------------


def test_rule_01_the_node_class_comes_without_event_loop_socket_and_file() -> None:
    """Nor does anything that it imports bring them."""
    loaded = subprocess.run(
        [sys.executable, "-c", _LOADED],
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    assert loaded.stdout.split() == []
    assert not iscoroutinefunction(Node.handle)


def life(seed: int) -> Iterator[tuple[Event | None, list[str]]]:
    """What a node is told, and what it does about it: founded, written to, some seconds older."""
    alone = Alone(seed)
    yield None, [repr(effect) for effect in alone.effects]
    for number in range(1, 40):
        event: Event = Tick()
        if number % 3:
            event = WriteRequest(number, encode_command(Put(b"k%d" % number, b"v")), 100.0)
        elif alone.waiting:
            submission = alone.waiting.pop(0)
            event = DiskDone(submission.submission, alone.disk.perform(submission.ops))
        alone.now += 0.02
        alone.effects.clear()
        alone.handle(event)
        yield event, [repr(effect) for effect in alone.effects]


def test_rule_01_equal_events_at_equal_times_have_equal_effects() -> None:
    """So it has no clock and no memory but its own: two nodes that live the same do the same."""
    turns = list(life(seed=5))
    assert sum(len(effects) for _, effects in turns) > 40
    for turn, again in zip(turns, life(seed=5), strict=True):
        assert turn == again


# ---- rule 2 ---------------------------------------------------------------------------------


def ways_to_files(module: Path) -> set[str]:
    """What in the module's own text gives it files: modules it imports, built-ins it names."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= FILES & {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= FILES & {(node.module or "").partition(".")[0]}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= OPENERS & {node.func.id}
    return found


def test_rule_02_files_are_opened_by_the_adapters_only() -> None:
    """import-linter sees imports; here the built-ins are looked for, too."""
    modules = [path for part in PURE for path in (PACKAGE / part).rglob("*.py")]
    assert len(modules) > 80
    openers = {str(path.relative_to(PACKAGE)) for path in modules if ways_to_files(path)}
    assert openers == {
        "kv/lmdb_engine.py",
        "kv/lmdb_environment.py",
        "storage/kernel_sync.py",
        "storage/os_disk.py",
    }


def first_turns(seed: int) -> tuple[int, int, list[Effect]]:
    """The ids that a node draws as it starts on an empty disk, and what it asks of the disk."""
    disk = SimDisk()
    node = Node(SETTINGS, MemoryEngineFactory(), World(seed).rng)
    asked = list(node.start(0.0))
    effects = list(asked)
    while asked:
        submissions = [effect for effect in asked if isinstance(effect, SubmitDisk)]
        done = [DiskDone(each.submission, disk.perform(each.ops)) for each in submissions]
        asked = list(node.handle(done, 0.0)) if done else []
        effects += asked
    assert node.identity is not None
    return node.identity.member_id, node.requests._incarnation, effects


def test_rule_02_ids_and_nonces_come_from_the_injected_random() -> None:
    member_id, incarnation, effects = first_turns(seed=1)
    assert repr(first_turns(seed=1)) == repr((member_id, incarnation, effects))
    other_id, other_incarnation, _ = first_turns(seed=2)
    assert other_id != member_id
    assert other_incarnation != incarnation
