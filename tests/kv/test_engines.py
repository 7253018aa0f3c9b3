"""`MemoryEngine` and `LmdbEngine` are one engine to whoever uses them (node design, rule 3)."""

import io
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from raftkv.kv.engine import Engine, EngineError, EngineReader, EngineWriter, Table
from raftkv.kv.environment import EngineFactory
from raftkv.kv.lmdb_engine import LmdbEngine
from raftkv.kv.lmdb_environment import LmdbEngineFactory
from raftkv.kv.memory_engine import MemoryEngine, MemoryEngineFactory
from tests.kv.support import DETERMINISTIC, dump, open_engine

KEYS = (b"\x00", b"a", b"a\x00", b"a\x00\x00\x01", b"ab", b"b", b"\xff", b"\xff" * 511)

tables = st.sampled_from(Table)
keys = st.sampled_from(KEYS)
bounds = st.sampled_from((b"", *KEYS))
values = st.binary(max_size=8)
hist_values = st.integers(1, 7).map(lambda n: n.to_bytes(10, "big"))
pairs = st.lists(st.tuples(keys, values), max_size=5)
hist_pairs = st.lists(st.tuples(keys, hist_values), max_size=5)

queries = st.one_of(
    st.tuples(st.just("get"), tables, keys),
    st.tuples(st.just("scan"), tables, bounds, st.none() | bounds, st.booleans()),
    st.tuples(st.just("hist_floor"), keys, hist_values),
    st.tuples(st.just("hist_keys"), bounds, st.none() | bounds, st.booleans()),
)
changes = st.one_of(
    st.tuples(st.just("put"), tables, keys, values),
    st.tuples(st.just("putmulti"), tables, pairs),
    st.tuples(st.just("append"), tables, pairs),
    st.tuples(st.just("append"), tables, pairs.map(sorted)),
    st.tuples(st.just("delete"), tables, keys),
    st.tuples(st.just("hist_add"), hist_pairs),
    st.tuples(st.just("hist_delete"), keys, hist_values),
)
Operation = tuple[Any, ...]


class _RollBackError(Exception):
    """Leaves a write transaction so that it rolls back."""


def perform(target: EngineReader | EngineWriter, operation: Operation) -> object:
    name, *arguments = operation
    if name == "scan":
        table, start, end, is_reverse = arguments
        return list(target.scan(table, start, end, reverse=is_reverse))
    if name == "hist_keys":
        start, end, is_reverse = arguments
        return list(target.hist_keys(start, end, reverse=is_reverse))
    return getattr(target, name)(*arguments)


def transact(engine: Engine, operations: list[Operation], *, is_committed: bool) -> list[object]:
    results: list[object] = []
    try:
        with engine.write() as writer:
            for operation in operations:
                results.append(perform(writer, operation))
                # What is not committed is not seen outside.
                with engine.read() as reader:
                    results.append(perform(reader, ("scan", Table.CUR, b"", None, False)))
            if not is_committed:
                raise _RollBackError  # noqa: TRY301 - the way to roll back is to raise
    except _RollBackError:
        pass
    except EngineError:  # keys that do not ascend: nothing of the transaction is left
        results.append("refused")
    return results


class EnginesMachine(RuleBasedStateMachine):
    """Both engines, given the same operations."""

    @initialize()
    def begin(self) -> None:
        self.directory = TemporaryDirectory()
        root = Path(self.directory.name)
        self.factories: tuple[EngineFactory, ...] = (
            MemoryEngineFactory(),
            LmdbEngineFactory(str(root / "kv"), str(root)),
        )
        self.engines: tuple[Engine, ...] = tuple(factory.open() for factory in self.factories)

    @rule(operations=st.lists(changes | queries, max_size=8), is_committed=st.booleans())
    def write(self, operations: list[Operation], is_committed: bool) -> None:
        memory, lmdb = (
            transact(engine, operations, is_committed=is_committed) for engine in self.engines
        )
        assert memory == lmdb

    @rule(operations=st.lists(queries, min_size=1, max_size=8))
    def read(self, operations: list[Operation]) -> None:
        results = []
        for engine in self.engines:
            with engine.read() as reader:
                results.append([perform(reader, operation) for operation in operations])
        assert results[0] == results[1]

    @rule()
    def reopen_after_kill(self) -> None:
        self.engines = tuple(factory.open() for factory in self.factories)

    @rule()
    def reopen_after_clean_close(self) -> None:
        for factory, engine in zip(self.factories, self.engines, strict=True):
            factory.close_clean(engine)
        self.reopen_after_kill()

    @rule(operations=st.lists(changes, max_size=8))
    def install_a_copy_from_before_a_write(self, operations: list[Operation]) -> None:
        copies = [engine.begin_copy() for engine in self.engines]
        self.write(operations, True)
        engines: list[Engine] = []
        for copy, factory in zip(copies, self.factories, strict=True):
            file = io.BytesIO()
            copy.write_to(file)
            copy.close()
            install = factory.begin_install()
            file.seek(0)
            install.read_from(file, len(file.getvalue()))
            engines.append(install.finish())
        self.engines = tuple(engines)

    @rule()
    def rebuild(self) -> None:
        self.engines = tuple(factory.rebuild() for factory in self.factories)

    @invariant()
    def both_hold_the_same(self) -> None:
        memory, lmdb = (dump(engine, KEYS) for engine in self.engines)
        assert memory == lmdb

    @override
    def teardown(self) -> None:
        for engine in self.engines:
            engine.close()
        self.directory.cleanup()


def test_rule_03_engines_are_equal() -> None:
    run_state_machine_as_test(
        EnginesMachine,
        settings=settings(DETERMINISTIC, max_examples=60, stateful_step_count=25),
    )


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
@pytest.mark.parametrize("key", [b"", b"k" * 512])
def test_an_impossible_key_is_an_engine_error_and_changes_nothing(kind: str, key: bytes) -> None:
    with open_engine(kind) as engine:
        with pytest.raises(EngineError), engine.write() as writer:
            writer.putmulti(Table.CUR, [(b"before", b""), (key, b"")])
        with pytest.raises(EngineError), engine.write() as writer:
            writer.hist_add([(key, bytes(10))])
        assert dump(engine, ()) == ([[] for _ in Table], [])


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_a_closed_engine_says_so(kind: str) -> None:
    with open_engine(kind) as engine:
        engine.close()
        with pytest.raises(EngineError), engine.read():
            pass
        with pytest.raises(EngineError), engine.write():
            pass


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_size_grows_with_what_is_stored(kind: str) -> None:
    with open_engine(kind) as engine:
        before = engine.size_bytes()
        with engine.write() as writer:
            writer.put(Table.REV, b"k", bytes(1 << 20))
        assert engine.size_bytes() >= before + (1 << 20)


def test_lmdb_map_grows_on_demand(tmp_path: Path) -> None:
    engine = LmdbEngine(str(tmp_path / "env"), map_bytes=1 << 20)
    for number in range(64):
        with engine.write() as writer:
            writer.put(Table.REV, number.to_bytes(10, "big"), os.urandom(1) * 100_000)
    engine.close()
    # Opened again with a map smaller than its file, it goes on.
    engine = LmdbEngine(str(tmp_path / "env"), map_bytes=1 << 20)
    with engine.write() as writer:
        writer.put(Table.REV, b"one more", bytes(100_000))
    with engine.read() as reader:
        assert [len(value) for _, value in reader.scan(Table.REV, b"", None)] == [100_000] * 65
    engine.close()


def test_lmdb_map_full_in_one_transaction_rolls_back(tmp_path: Path) -> None:
    engine = LmdbEngine(str(tmp_path / "env"), map_bytes=1 << 20)
    with pytest.raises(EngineError, match="MAP_FULL"), engine.write() as writer:
        writer.putmulti(Table.REV, [(b"small", b""), (b"large", bytes(2 << 20))])
    assert dump(engine, ()) == ([[] for _ in Table], [])
    engine.close()


def test_rule_24_memory_engine_refuses_a_snapshot_that_outlives_its_slice() -> None:
    engine = MemoryEngine()
    message = "rule 24"
    with engine.read(), pytest.raises(AssertionError, match=message), engine.write() as writer:
        writer.put(Table.CUR, b"k", b"v")


def test_rule_03_memory_engine_keeps_commits_over_a_kill_and_loses_them_with_power() -> None:
    factory = MemoryEngineFactory()
    with factory.open().write() as writer:
        writer.put(Table.CUR, b"k", b"v")
    killed = factory.open()
    with killed.read() as reader:
        assert reader.get(Table.CUR, b"k") == b"v"
    factory.close_clean(killed)
    factory.power_loss()
    opened = factory.open()
    with opened.read() as reader:
        assert reader.get(Table.CUR, b"k") == b"v"
    factory.power_loss()
    with pytest.raises(EngineError):
        opened.read().__enter__()
    with factory.open().read() as reader:
        assert reader.get(Table.CUR, b"k") is None
