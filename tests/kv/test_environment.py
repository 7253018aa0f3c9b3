"""Which environment may be used again after a restart (node design, rules 8 and 9)."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final

import msgspec
import pytest
from typing_extensions import override

from raftkv.kv.commands import Delete, Put
from raftkv.kv.engine import Engine, EngineError
from raftkv.kv.environment import (
    Circumstances,
    EnvironmentState,
    Rebuild,
    Reuse,
    applied_index_fits,
    decide,
    decode_state,
    encode_state,
)
from raftkv.kv.lmdb_engine import LmdbEngine
from raftkv.kv.lmdb_environment import Files, LmdbEngineFactory
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.records import FORMAT
from raftkv.kv.store import Store
from tests.kv import kill_child
from tests.kv.support import dump, entry

# ---- the decision ---------------------------------------------------------------------------

SAME: Final = Circumstances("boot", 1, 2, "nonce")
OTHERS: Final = [
    Circumstances("another boot", 1, 2, "nonce"),
    Circumstances("boot", 9, 2, "nonce"),
    Circumstances("boot", 1, 9, "nonce"),
    Circumstances("boot", 1, 2, "another nonce"),
]


def test_rule_09_reused_when_every_field_matches() -> None:
    assert decide(EnvironmentState(FORMAT, False, SAME), SAME) == Reuse()


@pytest.mark.parametrize("present", OTHERS)
def test_rule_09_one_changed_field_is_enough_to_rebuild(present: Circumstances) -> None:
    assert isinstance(decide(EnvironmentState(FORMAT, False, SAME), present), Rebuild)


@pytest.mark.parametrize("present", [SAME, *OTHERS])
def test_rule_09_reused_when_closed_clean_whatever_changed(present: Circumstances) -> None:
    assert decide(EnvironmentState(FORMAT, True, SAME), present) == Reuse()


@pytest.mark.parametrize("is_clean", [False, True])
def test_rule_09_rebuilt_when_missing_unreadable_or_of_another_format(is_clean: bool) -> None:
    recorded = EnvironmentState(FORMAT, is_clean, SAME)
    assert isinstance(decide(None, SAME), Rebuild)
    assert isinstance(decide(None, None), Rebuild)
    assert isinstance(decide(recorded, None), Rebuild)
    other = msgspec.structs.replace(recorded, record_format=FORMAT + 1)
    assert isinstance(decide(other, SAME), Rebuild)


def test_rule_09_env_state_that_is_not_whole_is_unreadable() -> None:
    state = EnvironmentState(FORMAT, True, SAME)
    data = encode_state(state)
    assert decode_state(data) == state
    for length in range(len(data) - 1):
        assert decode_state(data[:length]) is None
    assert decode_state(bytes(len(data))) is None
    assert decode_state(data + b"{") is None


@pytest.mark.parametrize("is_clean", [False, True])
def test_rule_09_no_flipped_bit_of_env_state_vouches_for_more_than_was_written(
    is_clean: bool,
) -> None:
    data = encode_state(EnvironmentState(FORMAT, is_clean, OTHERS[0]))
    for offset in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[offset] ^= 1 << bit
            verdict = decide(decode_state(bytes(damaged)), SAME)
            assert isinstance(verdict, Rebuild) or is_clean


@pytest.mark.parametrize(
    ("snapshot_index", "applied_index", "last_index", "fits"),
    [
        (0, 0, 0, True),
        (0, 0, 9, True),
        (0, 9, 9, True),
        (5, 5, 5, True),
        (5, 7, 9, True),
        (5, 4, 9, False),
        (5, 0, 9, False),
        (5, 10, 9, False),
        (0, 1, 0, False),
    ],
)
def test_rule_08_the_engine_must_lie_between_snapshot_and_end_of_the_log(
    snapshot_index: int, applied_index: int, last_index: int, fits: bool
) -> None:
    assert applied_index_fits(snapshot_index, applied_index, last_index) is fits


# ---- crash points ---------------------------------------------------------------------------


class CrashError(Exception):
    """The process ends here."""


class CrashingFiles(Files):
    """Ends the process before its ``crash_at``-th effect, and remembers what is durable."""

    def __init__(self, root: Path, boot_id: str, crash_at: int | None = None) -> None:
        self.state_file = root / "env.state"
        self.root = root
        self.boot = boot_id
        self.crash_at = crash_at
        self.steps = 0
        # What a power loss may bring back of env.state: its content at the last directory sync.
        self.durable_state = self.read(self.state_file)

    def step(self) -> None:
        if self.steps == self.crash_at:
            raise CrashError
        self.steps += 1

    @override
    def make_directory(self, path: Path) -> None:
        self.step()
        super().make_directory(path)

    @override
    def write(self, path: Path, data: bytes) -> None:
        self.step()
        path.write_bytes(data[: len(data) // 2])
        self.step()
        super().write(path, data)

    @override
    def copy_from(self, file: BinaryIO, size: int, target: Path) -> int:
        self.step()
        super().copy_from(file, size // 2, target)
        self.step()
        target.unlink()
        file.seek(-(size // 2), io.SEEK_CUR)
        return super().copy_from(file, size, target)

    @override
    def rename(self, source: Path, target: Path) -> None:
        self.step()
        super().rename(source, target)

    @override
    def remove(self, path: Path) -> None:
        self.step()
        super().remove(path)

    @override
    def remove_tree(self, path: Path) -> None:
        # File by file: a crash may leave a part of it.
        for file in sorted(path.iterdir()) if path.exists() else ():
            self.step()
            file.unlink()
        self.step()
        super().remove_tree(path)

    @override
    def sync_directory(self, path: Path) -> None:
        self.step()
        super().sync_directory(path)
        if path == self.root:
            self.durable_state = self.read(self.state_file)

    @override
    def boot_id(self) -> str:
        return self.boot


class Scene:
    """A data directory, and the processes that live on it one after the other."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.root = directory / "kv"
        self.runtime_dir = directory
        self.boot = "boot 1"
        self.files = CrashingFiles(self.root, self.boot)
        self.engine: Engine | None = None

    def factory(self, crash_at: int | None = None) -> LmdbEngineFactory:
        self.files = CrashingFiles(self.root, self.boot, crash_at)
        return LmdbEngineFactory(
            str(self.root), str(self.runtime_dir), map_bytes=1 << 20, files=self.files
        )

    def prepare(self, *, is_clean: bool) -> None:
        """A process that applied `LOG` and ended."""
        factory = self.factory()
        engine = factory.open()
        Store(engine).apply(LOG)
        if is_clean:
            factory.close_clean(engine)
        else:
            engine.close()

    def inode(self) -> int | None:
        data_file = self.root / "env" / "data.mdb"
        return data_file.stat().st_ino if data_file.exists() else None

    def lose_power(self, decoy: bytes, *, is_durable: bool, loses_state: bool) -> None:
        """What is not durable is replaced by what must never be read."""
        self.boot = "boot 2"
        for name in ("env.new",) if is_durable else ("env", "env.new"):
            data_file = self.root / name / "data.mdb"
            if data_file.exists():
                data_file.write_bytes(decoy)
        if loses_state:
            if self.files.durable_state is not None:
                self.files.state_file.write_bytes(self.files.durable_state)
            else:
                self.files.state_file.unlink(missing_ok=True)

    def found(self) -> int:
        """What the next process finds: an applied index, its data checked."""
        engine = self.factory().open()
        store = Store(engine)
        expected = Store(MemoryEngine())
        if store.applied_index:
            expected.apply(LOG)
        assert store.chain_hash == expected.chain_hash, "not what was ever committed"
        assert dump(engine, [b"a"]) == dump(expected.engine, [b"a"])
        engine.close()
        return store.applied_index


LOG: Final = [entry(1, Put(b"a", b"1")), entry(2, Put(b"a", b"2")), entry(3, Delete(b"a"))]


@pytest.fixture(scope="module")
def decoy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A data file that LMDB opens without complaint, with content nobody committed."""
    path = tmp_path_factory.mktemp("decoy")
    engine = LmdbEngine(str(path), map_bytes=1 << 20)
    Store(engine).apply([entry(index, Put(b"decoy", b"")) for index in range(1, 100)])
    engine.close()
    return (path / "data.mdb").read_bytes()


def do_open(factory: LmdbEngineFactory) -> None:
    factory.open()


def do_rebuild(factory: LmdbEngineFactory) -> None:
    factory.rebuild()


def do_install(factory: LmdbEngineFactory) -> None:
    """Beside an open engine, as `do_close_clean`; the copy holds what every scene holds."""
    files = factory._files
    assert isinstance(files, CrashingFiles)
    crash_at, files.crash_at = files.crash_at, None
    factory.open()
    files.steps, files.crash_at = 0, crash_at
    copy = copy_of_log()
    install = factory.begin_install()
    install.read_from(io.BytesIO(copy), len(copy))
    install.finish()


def copy_of_log() -> bytes:
    with TemporaryDirectory() as directory:
        engine = LmdbEngine(directory, map_bytes=1 << 20)
        Store(engine).apply(LOG)
        copy, file = engine.begin_copy(), io.BytesIO()
        copy.write_to(file)
        copy.close()
        engine.close()
    return file.getvalue()


def do_close_clean(factory: LmdbEngineFactory) -> None:
    # The crash point counts from the close: the open before it is another test's subject.
    files = factory._files
    assert isinstance(files, CrashingFiles)
    crash_at, files.crash_at = files.crash_at, None
    engine = factory.open()
    files.steps, files.crash_at = 0, crash_at
    factory.close_clean(engine)


PREPARATIONS: Final[dict[str, bool | None]] = {"new": None, "killed": False, "clean": True}


@pytest.mark.parametrize("prepared", PREPARATIONS)
@pytest.mark.parametrize("action", [do_open, do_rebuild, do_install, do_close_clean])
@pytest.mark.parametrize("end", ["kill", "power", "power, old name"])
def test_rule_09_a_crash_at_any_step_leaves_the_truth_or_nothing(
    tmp_path: Path,
    decoy: bytes,
    prepared: str,
    action: Callable[[LmdbEngineFactory], None],
    end: str,
) -> None:
    crash_at, is_complete = 0, False
    while not is_complete:
        scene = Scene(tmp_path / str(crash_at))
        is_clean = PREPARATIONS[prepared]
        if is_clean is not None:
            scene.prepare(is_clean=is_clean)
        inode = scene.inode()
        factory = scene.factory(crash_at)
        try:
            action(factory)
            is_complete = True
        except CrashError:
            pass
        factory._close()  # as the end of a process does: nothing is synced

        # Nothing is lost by a kill, unless it was to be thrown away.
        had_data = is_clean is not None and action not in (do_rebuild, do_install)
        if end == "kill":
            assert scene.found() in ((3,) if had_data else (0, 3))
        else:
            # Every step of a clean close comes after its sync. Otherwise only that is durable
            # which was closed clean before, and not opened since.
            was_synced = is_clean is True and not is_complete and scene.inode() == inode
            # Its open of the engine counts too.
            was_synced = was_synced and action is not do_install
            scene.lose_power(
                decoy,
                is_durable=was_synced or action is do_close_clean,
                loses_state=end == "power, old name",
            )
            found = scene.found()
            if action is do_close_clean and is_complete and had_data:
                assert found == 3, "closed clean: nothing is rebuilt"
        shutil.rmtree(tmp_path / str(crash_at))
        crash_at += 1
    assert crash_at > 4, "each action has several steps"


# ---- the adapter ----------------------------------------------------------------------------


def test_rule_09_reused_after_kill_and_rebuilt_after_reboot(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "scene")
    scene.prepare(is_clean=False)
    factory = scene.factory()
    assert Store(factory.open()).applied_index == 3
    assert factory.rebuild_reason is None
    factory._close()
    scene.boot = "boot 2"
    factory = scene.factory()
    assert Store(factory.open()).applied_index == 0
    assert factory.rebuild_reason is not None
    assert "boot_id" in factory.rebuild_reason
    factory._close()


def test_rule_09_closed_clean_only_once_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_engine: LmdbEngine) -> None:
        raise EngineError("injected")

    scene = Scene(tmp_path / "scene")
    scene.prepare(is_clean=False)
    factory = scene.factory()
    engine = factory.open()
    monkeypatch.setattr(LmdbEngine, "sync", fail)
    with pytest.raises(EngineError, match="injected"):
        factory.close_clean(engine)
    state = decode_state(scene.files.state_file.read_bytes())
    assert state is not None
    assert not state.is_clean
    engine.close()


def test_rule_09_a_lost_mount_nonce_lets_only_a_clean_close_count(tmp_path: Path) -> None:
    for is_clean, applied_index in ((False, 0), (True, 3)):
        scene = Scene(tmp_path / str(is_clean))
        scene.prepare(is_clean=is_clean)
        (nonce,) = scene.runtime_dir.glob("raftkv-mount-*")
        status = scene.root.stat()
        assert nonce.name == f"raftkv-mount-{status.st_dev:x}-{status.st_ino:x}"
        nonce.unlink()
        assert scene.found() == applied_index


def test_rule_09_a_copied_environment_is_not_the_one_that_was_opened(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "scene")
    scene.prepare(is_clean=False)
    data_file = scene.root / "env" / "data.mdb"
    shutil.copy(data_file, data_file.with_suffix(".copy"))
    data_file.with_suffix(".copy").rename(data_file)
    assert scene.found() == 0


def test_rule_09_a_flag_forces_one_rebuild(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "scene")
    scene.prepare(is_clean=True)
    factory = LmdbEngineFactory(str(scene.root), str(scene.runtime_dir), force_rebuild=True)
    store = Store(factory.open())
    assert store.applied_index == 0
    store.apply(LOG)
    assert Store(factory.open()).applied_index == 3
    factory._close()


def test_rule_09_damage_that_lmdb_itself_notices_is_rebuilt(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "scene")
    scene.prepare(is_clean=True)
    (scene.root / "env" / "data.mdb").write_bytes(b"not LMDB" * 1024)
    assert scene.found() == 0


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_rule_09_a_mount_nonce_that_was_not_written_whole_is_drawn_again(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "nonce"
    path.write_bytes(content)
    nonce = Files().mount_nonce(path)
    assert len(nonce) == 32
    assert path.read_text() == nonce
    assert Files().mount_nonce(path) == nonce
    assert path.stat().st_size == 32


def test_rule_09_a_mount_nonce_of_someone_else_never_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "nonce"
    planted = Files().mount_nonce(path)
    (tmp_path / "link").symlink_to(path)
    assert Files().mount_nonce(tmp_path / "link") != planted
    missing = tmp_path / "missing" / "nonce"
    assert Files().mount_nonce(missing) != Files().mount_nonce(missing)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert Files().mount_nonce(path) != planted
    assert path.read_text() == planted


def test_a_path_that_is_no_directory_is_an_engine_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    factory = LmdbEngineFactory(str(tmp_path / "file"), str(tmp_path))
    for method in (factory.open, factory.rebuild):
        with pytest.raises(EngineError, match="file"):
            method()
    assert (tmp_path / "file").read_bytes() == b""


# ---- a real process, really killed ----------------------------------------------------------


@pytest.mark.process
def test_rule_09_sigkill_amid_transactions_leaves_index_and_data_in_agreement(
    tmp_path: Path,
) -> None:
    path, runtime_dir = str(tmp_path / "kv"), str(tmp_path)
    expected = Store(MemoryEngine())
    # One kill early, later ones elsewhere in the life of the file.
    for slices_before_kill in (1, 40, 7, 150):
        command = [sys.executable, "-m", "tests.kv.kill_child", path, runtime_dir]
        root = Path(__file__).parents[2]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as child:
            assert child.stdout is not None
            printed = 0
            for _ in range(slices_before_kill):
                printed = int(child.stdout.readline())
            child.kill()
            # It went on until the signal: its last words may lie beyond.
            for line in child.stdout.read().splitlines():
                printed = max(printed, int(line or b"0"))
        factory = LmdbEngineFactory(path, runtime_dir)
        engine = factory.open()
        assert factory.rebuild_reason is None
        store = Store(engine)
        assert store.applied_index >= printed
        while expected.applied_index < store.applied_index:
            missing = range(expected.applied_index + 1, store.applied_index + 1)
            expected.apply([kill_child.entry_number(index) for index in missing[:1000]])
        keys = [b"index", *(b"key/%d" % number for number in range(kill_child.KEY_COUNT))]
        assert store.chain_hash == expected.chain_hash
        assert dump(engine, keys) == dump(expected.engine, keys)
        factory._close()
