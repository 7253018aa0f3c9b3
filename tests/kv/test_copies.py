"""Copies of an engine, for snapshots: pinned now, written later, installed elsewhere."""

import errno
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import pytest
from typing_extensions import Buffer, override

from raftkv.kv.commands import Delete, Put
from raftkv.kv.copies import PREAMBLE_BYTES, encode_preamble
from raftkv.kv.engine import Engine, EngineError, Table
from raftkv.kv.environment import EngineFactory
from raftkv.kv.lmdb_engine import LmdbEngine
from raftkv.kv.lmdb_environment import LmdbEngineFactory
from raftkv.kv.memory_engine import MemoryEngineFactory
from raftkv.kv.store import Store
from tests.kv.support import dump, entry

ENGINES: Final = ("memory", "lmdb")
LOG: Final = [
    entry(1, Put(b"a", b"1"), Put(b"b", b"x" * 5000)),
    entry(2, Put(b"a", b"2")),
    entry(3, Delete(b"b")),
]
KEYS: Final = (b"a", b"b", b"later")


@contextmanager
def factory_of(kind: str, directory: Path, map_bytes: int = 1 << 20) -> Iterator[EngineFactory]:
    """A factory as another node has it; what it opened last is closed in the end."""
    if kind == "memory":
        yield MemoryEngineFactory()
        return
    directory.mkdir(exist_ok=True)
    factory = LmdbEngineFactory(str(directory / "kv"), str(directory), map_bytes=map_bytes)
    yield factory
    factory._close()


def copy_of(engine: Engine) -> bytes:
    copy, file = engine.begin_copy(), io.BytesIO()
    copy.write_to(file)
    copy.close()
    return file.getvalue()


def install(factory: EngineFactory, copy: bytes) -> Engine:
    begun = factory.begin_install()
    begun.read_from(io.BytesIO(copy), len(copy))
    return begun.finish()


@pytest.mark.parametrize("kind", ENGINES)
def test_rule_10_a_copy_is_the_state_of_the_moment_it_was_begun(kind: str, tmp_path: Path) -> None:
    with factory_of(kind, tmp_path / "1") as source, factory_of(kind, tmp_path / "2") as target:
        store = Store(source.open())
        store.apply(LOG)
        expected = dump(store.engine, KEYS)
        chain_hash = store.chain_hash
        copy = store.engine.begin_copy()
        store.apply([entry(4, Put(b"later", b""), Put(b"a", b"3"))])
        file = io.BytesIO(b"before")
        file.seek(6)
        copy.write_to(file)
        copy.close()
        # It is the caller's file: what is before stays, and its position is behind the copy.
        assert file.getvalue()[:6] == b"before"
        assert file.tell() == len(file.getvalue())

        old = Store(target.open())
        old.apply([entry(1, Put(b"of another history", b""))])
        begun = target.begin_install()
        file.seek(6)
        begun.read_from(file, len(file.getvalue()) - 6)
        assert old.get(b"of another history") is not None, "the open engine is served until finish"
        installed = Store(begun.finish())
        assert dump(installed.engine, KEYS) == expected
        assert (installed.applied_index, installed.chain_hash) == (3, chain_hash)
        with pytest.raises(EngineError):
            old.get(b"a")
        # It goes on as the original does.
        installed.apply([entry(4, Put(b"later", b""), Put(b"a", b"3"))])
        assert installed.chain_hash == store.chain_hash
        # And it is what the next process finds.
        assert Store(target.open()).chain_hash == store.chain_hash


@pytest.mark.parametrize("kind", ENGINES)
def test_rule_10_a_key_with_a_long_history_is_copied(kind: str, tmp_path: Path) -> None:
    """LMDB's copy ended the process where values of a fixed size outgrew a page."""
    count = 20_000
    with (
        factory_of(kind, tmp_path / "1", 1 << 26) as source,
        factory_of(kind, tmp_path / "2", 1 << 26) as target,
    ):
        store = Store(source.open())
        for index in range(1, count // 100 + 1):
            store.apply([entry(index, *[Put(b"a", b"1")] * 100)])
        installed = Store(install(target, copy_of(store.engine)))
        assert installed.chain_hash == store.chain_hash
        for revision in (1, 201, count // 2, count):
            item = installed.get_at(b"a", revision)
            assert item is not None
            assert item.mod_revision == revision


def test_rule_03_a_memory_copy_is_the_same_bytes_for_the_same_content() -> None:
    stores = [Store(MemoryEngineFactory().open()) for _ in range(2)]
    for item in LOG:
        stores[0].apply([item])
    stores[1].apply(LOG)
    assert copy_of(stores[0].engine) == copy_of(stores[1].engine)


def test_rule_24_a_copy_in_another_thread_lets_apply_go_on(tmp_path: Path) -> None:
    """Through a real descriptor, while the map would have to grow and the engine is closed."""

    class Gate(io.FileIO):
        """Writes the preamble only once the test let it."""

        @override
        def write(self, data: Buffer, /) -> int:
            is_begun.set()
            assert may_go_on.wait(30)
            return super().write(data)

    is_begun, may_go_on = threading.Event(), threading.Event()
    with factory_of("lmdb", tmp_path / "1") as source, factory_of("lmdb", tmp_path / "2") as target:
        store = Store(source.open())
        store.apply(LOG)
        expected = dump(store.engine, KEYS)
        copy = store.engine.begin_copy()
        path = tmp_path / "blob"
        failures: list[BaseException] = []

        def write() -> None:
            try:
                with Gate(path, "w") as file:
                    copy.write_to(file)
                    assert file.tell() == path.stat().st_size
            except BaseException as error:  # noqa: BLE001 - looked at below
                failures.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        assert is_begun.wait(30)
        index = 3
        # Half of the map and more: without the copy it would grow, and move.
        while store.engine.size_bytes() <= 600_000:
            index += 1
            store.apply([entry(index, Put(b"later", os.urandom(30_000)))])
        with pytest.raises(AssertionError):
            copy.close()
        store.engine.close()
        with pytest.raises(EngineError):
            store.get(b"a")
        may_go_on.set()
        thread.join(30)
        assert failures == []
        copy.close()
        copy.close()
        target.open()
        with path.open("rb", buffering=0) as file:
            begun = target.begin_install()
            begun.read_from(file, path.stat().st_size)
        assert dump(begun.finish(), KEYS) == expected
        assert Store(source.open()).applied_index == index


def test_the_map_grows_again_once_the_copy_is_closed(tmp_path: Path) -> None:
    engine = LmdbEngine(str(tmp_path / "env"), map_bytes=1 << 20)
    copy = engine.begin_copy()

    def write_two_mebibytes() -> None:
        for number in range(20):
            with engine.write() as writer:
                writer.put(Table.REV, number.to_bytes(10, "big"), bytes(100_000))

    with pytest.raises(EngineError, match="MAP_FULL"):
        write_two_mebibytes()
    copy.close()
    write_two_mebibytes()
    engine.close()


def test_an_installed_state_larger_than_the_map_fits(tmp_path: Path) -> None:
    with (
        factory_of("lmdb", tmp_path / "1", 1 << 26) as source,
        factory_of("lmdb", tmp_path / "2") as target,
    ):
        engine = source.open()
        with engine.write() as writer:
            writer.put(Table.REV, b"large", bytes(5 << 20))
        target.open()
        installed = install(target, copy_of(engine))
        with installed.write() as writer:
            writer.put(Table.REV, b"more", bytes(3 << 20))
        with installed.read() as reader:
            assert len(reader.get(Table.REV, b"large") or b"") == 5 << 20


@pytest.mark.parametrize("kind", ENGINES)
def test_what_is_no_copy_is_refused_and_the_open_engine_goes_on(kind: str, tmp_path: Path) -> None:
    with factory_of(kind, tmp_path / "1") as source, factory_of(kind, tmp_path / "2") as target:
        original = Store(source.open())
        original.apply(LOG)
        copy = copy_of(original.engine)
        other = encode_preamble("memory" if kind == "lmdb" else "lmdb")
        store = Store(target.open())
        store.apply(LOG)
        future = bytearray(copy)
        future[19] += 1
        refused = {
            "no copy": b"",
            "begin with": bytes(len(copy)),
            "by the engine": other + copy[PREAMBLE_BYTES:],
            "of format": bytes(future),
        }
        for message, data in refused.items():
            begun = target.begin_install()
            with pytest.raises(EngineError, match=message):
                begun.read_from(io.BytesIO(data), len(data))
            begun.abort()
        for length in (PREAMBLE_BYTES, len(copy) // 2, len(copy) - 1):
            # As long as it says, and cut short behind its back.
            for size in (length, len(copy)):
                begun = target.begin_install()
                with pytest.raises(EngineError):
                    begun.read_from(io.BytesIO(copy[:length]), size)
                begun.abort()
        assert store.applied_index == 3
        assert store.get(b"a") is not None
        assert sorted(path.name for path in (tmp_path / "2").glob("kv/env*")) == (
            ["env", "env.state"] if kind == "lmdb" else []
        )
        assert Store(install(target, copy)).chain_hash == store.chain_hash


@pytest.mark.parametrize("kind", ENGINES)
def test_an_aborted_install_leaves_the_open_engine(kind: str, tmp_path: Path) -> None:
    with factory_of(kind, tmp_path / "1") as source, factory_of(kind, tmp_path / "2") as target:
        original = Store(source.open())
        original.apply(LOG)
        copy = copy_of(original.engine)
        store = Store(target.open())
        begun = target.begin_install()
        begun.read_from(io.BytesIO(copy), len(copy))
        begun.abort()
        begun.abort()
        store.apply(LOG)
        assert Store(target.open()).applied_index == 3
        with pytest.raises(AssertionError):
            begun.finish()


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    class Full(io.FileIO):
        """Takes the preamble; its descriptor takes nothing more."""

        @override
        def write(self, data: Buffer, /) -> int:
            return memoryview(data).nbytes

    with factory_of("lmdb", tmp_path / "1") as source:
        store = Store(source.open())
        store.apply(LOG)
        copy = store.engine.begin_copy()
        with Full("/dev/full", "w") as file, pytest.raises(OSError) as raised:  # noqa: PT011
            copy.write_to(file)
        assert raised.value.errno == errno.ENOSPC
        copy.close()
        assert store.get(b"a") is not None


def test_a_file_that_cannot_be_read_leaves_the_open_engine(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        @override
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "injected")

    with factory_of("lmdb", tmp_path / "1") as target:
        store = Store(target.open())
        begun = target.begin_install()
        file: BinaryIO = Broken()
        with pytest.raises(OSError, match="injected"):
            begun.read_from(file, 1 << 20)
        begun.abort()
        store.apply(LOG)
