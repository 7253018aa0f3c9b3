"""The files around the LMDB environment of a node: opened, rebuilt, replaced, closed clean.

The only module of the state machine that touches files (node design, rules 2 and 9). Layout of
the directory that `LmdbEngineFactory` is given:

    env/          the environment in use: data.mdb, lock.mdb
    env.new/      one that a rebuild or an install had begun
    env.state     whether env/ may be trusted: `raftkv.kv.environment`

Why no sync is safe: a killed process leaves its writes in the page cache, where LMDB's order
(pages first, then the meta page that names them) holds; and what a power loss leaves is not read.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO, Final

from raftkv.kv.copies import read_preamble
from raftkv.kv.engine import Engine, EngineError
from raftkv.kv.environment import (
    Circumstances,
    EnvironmentState,
    Rebuild,
    decide,
    decode_state,
    encode_state,
)
from raftkv.kv.lmdb_engine import MAP_BYTES_DEFAULT, NAME, LmdbEngine, check_copied
from raftkv.kv.records import FORMAT

_DATA_FILE: Final = "data.mdb"
_COPIED_BYTES: Final = 1 << 20  # at a time
_NONCE_BYTES: Final = 32  # hexadecimal digits
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Files:
    """Every effect of `LmdbEngineFactory` on the file system; tests crash between any two."""

    def read(self, path: Path) -> bytes | None:
        """The content of a file; None if it cannot be read, whatever the reason."""
        try:
            return path.read_bytes()
        except OSError:
            return None

    def make_directory(self, path: Path) -> None:
        """Make ``path`` and its parents, as far as they are missing."""
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, data: bytes) -> None:
        """Write and sync a file; its name is durable after `sync_directory`."""
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Atomic for readers; durable after `sync_directory`."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory with all that it holds, if it is there."""
        if path.exists():
            shutil.rmtree(path)

    def sync_directory(self, path: Path) -> None:
        """Make creations, renames and removals in ``path`` durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def copy_from(self, file: BinaryIO, size: int, target: Path) -> int:
        """Copy up to ``size`` bytes from the position of ``file`` to a new file; how many."""
        left = size
        # For the node's own user only, as the files that LMDB makes.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as copy:
            while left:
                data = memoryview(file.read(min(left, _COPIED_BYTES)))
                if not data:
                    break
                left -= len(data)
                while data:
                    data = data[copy.write(data) :]
        return size - left

    def boot_id(self) -> str:
        """Names the running kernel; where the system has no name for it, equal to nothing."""
        try:
            return _BOOT_ID.read_text().strip()
        except OSError:
            return os.urandom(_NONCE_BYTES // 2).hex()

    def mount_nonce(self, path: Path) -> str:
        """The nonce in the file ``path``, drawn if it is missing.

        The file's owner is checked, since the directory may be shared with other users. One that
        can be neither trusted nor created yields a nonce that equals no other.
        """
        drawn = os.urandom(_NONCE_BYTES // 2).hex()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            return drawn
        with os.fdopen(descriptor, "r+b") as file:
            if os.fstat(descriptor).st_uid != os.geteuid():
                return drawn
            found = file.read(_NONCE_BYTES + 1)
            if len(found) == _NONCE_BYTES:
                return found.decode("ascii", "replace")
            # New, or its creator was killed before it wrote.
            file.seek(0)
            file.truncate()
            file.write(drawn.encode())
        return drawn


class LmdbEngineFactory:
    """The `EngineFactory` of production: one environment under ``path`` (module docstring).

    Args:
        path: a directory on the data volume, made if it is missing.
        runtime_dir: a directory that is lost no later than the data volume is unmounted (in a pod:
            an emptyDir); default: the system's directory for temporary files.
        force_rebuild: the first `open` discards what is there.
        map_bytes: see `LmdbEngine`.
        files: how to touch the file system.
    """

    def __init__(
        self,
        path: str,
        runtime_dir: str | None = None,
        *,
        force_rebuild: bool = False,
        map_bytes: int = MAP_BYTES_DEFAULT,
        files: Files | None = None,
    ) -> None:
        self._path = Path(path)
        self._environment = self._path / "env"
        self._new_environment = self._path / "env.new"
        self._state_file = self._path / "env.state"
        self._runtime_dir = Path(runtime_dir or tempfile.gettempdir())
        self._force_rebuild = force_rebuild
        self._map_bytes = map_bytes
        self._files = files or Files()
        self._engine: LmdbEngine | None = None
        self._install: LmdbEngineInstall | None = None
        # Why the last `open` or `rebuild` gave an empty engine; None if it gave the old one.
        self.rebuild_reason: str | None = None

    def open(self) -> LmdbEngine:
        """See `EngineFactory.open`."""
        if self._force_rebuild:
            self._force_rebuild = False
            return self._rebuild("it was asked for")
        self._close()
        try:
            self._files.make_directory(self._path)
            verdict = decide(self._recorded_state(), self._circumstances())
            if isinstance(verdict, Rebuild):
                return self._rebuild(verdict.reason)
            # What an install left that was cut short.
            self._files.remove_tree(self._new_environment)
            # Before the first write: from now on only these circumstances vouch for it.
            self._record(is_clean=False)
        except OSError as error:
            raise EngineError(f"the state machine in {self._path}: {error}") from error
        try:
            return self._open_environment(None)
        except EngineError as error:
            return self._rebuild(str(error))

    def rebuild(self) -> LmdbEngine:
        """See `EngineFactory.rebuild`."""
        return self._rebuild("it contradicts the log")

    def begin_install(self) -> "LmdbEngineInstall":
        """See `EngineFactory.begin_install`."""
        assert self._install is None, "one install at a time"
        self._install = LmdbEngineInstall(self)
        return self._install

    def fill_new_environment(self, file: BinaryIO, size: int) -> None:
        """The work of `EngineInstall.read_from`: called in any thread, touches env.new alone."""
        left = read_preamble(file, size, NAME)
        self._files.remove_tree(self._new_environment)
        self._files.make_directory(self._new_environment)
        copied = self._files.copy_from(file, left, self._new_environment / _DATA_FILE)
        if copied < left:
            raise EngineError(f"a copy that ends {left - copied} bytes early")
        check_copied(str(self._new_environment), copied)
        # The check of the tables, here where it may take its time.
        LmdbEngine(str(self._new_environment), map_bytes=self._map_bytes).close()

    def end_install(self, *, is_finished: bool) -> LmdbEngine | None:
        """The work of `EngineInstall.finish` and of `EngineInstall.abort`, which returns None."""
        self._install = None
        try:
            if not is_finished:
                self._files.remove_tree(self._new_environment)
                return None
            self._close()
            self._forget_state()
            self._replace_environment()
        except OSError as error:
            raise EngineError(f"the state machine in {self._path}: {error}") from error
        return self._open_environment(None)

    def close_clean(self, engine: Engine) -> None:
        """See `EngineFactory.close_clean`."""
        assert engine is self._engine, "not the engine of this factory"
        self._engine.sync()
        self._close()
        try:
            self._files.sync_directory(self._environment)
            self._record(is_clean=True)
        except OSError as error:
            raise EngineError(f"the state machine in {self._path}: {error}") from error

    def _rebuild(self, reason: str) -> LmdbEngine:
        """New directory, rename, mark. A crash anywhere leaves no env.state: it begins again."""
        files = self._files
        self._close()
        try:
            files.make_directory(self._path)
            self._forget_state()
            files.remove_tree(self._new_environment)
            files.make_directory(self._new_environment)
            LmdbEngine(str(self._new_environment), map_bytes=self._map_bytes).close()
            self._replace_environment()
        except OSError as error:
            raise EngineError(f"the state machine in {self._path}: {error}") from error
        return self._open_environment(reason)

    def _forget_state(self) -> None:
        """First, and durably: a half removed environment must not be called clean."""
        self._files.remove(self._state_file)
        self._files.sync_directory(self._path)

    def _replace_environment(self) -> None:
        """The new environment takes the place of the old, and is vouched for."""
        self._files.remove_tree(self._environment)
        self._files.rename(self._new_environment, self._environment)
        # Its directory sync makes both renames durable.
        self._record(is_clean=False)

    def _open_environment(self, rebuild_reason: str | None) -> LmdbEngine:
        self._engine = LmdbEngine(str(self._environment), map_bytes=self._map_bytes)
        self.rebuild_reason = rebuild_reason
        return self._engine

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _recorded_state(self) -> EnvironmentState | None:
        data = self._files.read(self._state_file)
        return None if data is None else decode_state(data)

    def _circumstances(self) -> Circumstances | None:
        try:
            data_file = (self._environment / _DATA_FILE).stat()
        except FileNotFoundError:
            return None
        directory = self._path.stat()
        nonce_file = f"raftkv-mount-{directory.st_dev:x}-{directory.st_ino:x}"
        return Circumstances(
            boot_id=self._files.boot_id(),
            device=data_file.st_dev,
            inode=data_file.st_ino,
            mount_nonce=self._files.mount_nonce(self._runtime_dir / nonce_file),
        )

    def _record(self, *, is_clean: bool) -> None:
        """Replace env.state durably."""
        circumstances = self._circumstances()
        assert circumstances is not None, "there is an environment"
        state = EnvironmentState(FORMAT, is_clean, circumstances)
        written = self._state_file.with_suffix(".state.new")
        self._files.write(written, encode_state(state))
        self._files.rename(written, self._state_file)
        self._files.sync_directory(self._path)


class LmdbEngineInstall:
    """The `EngineInstall` of an `LmdbEngineFactory`: the environment in env.new."""

    def __init__(self, factory: LmdbEngineFactory) -> None:
        self._factory = factory
        self._is_filled = False
        self._is_over = False

    def read_from(self, file: BinaryIO, size: int) -> None:
        """See `EngineInstall.read_from`."""
        assert not self._is_filled, "read_from is called once"
        assert not self._is_over, "the install is over"
        self._factory.fill_new_environment(file, size)
        self._is_filled = True

    def finish(self) -> LmdbEngine:
        """See `EngineInstall.finish`."""
        assert self._is_filled, "nothing was installed"
        assert not self._is_over, "the install is over"
        self._is_over = True
        engine = self._factory.end_install(is_finished=True)
        assert engine is not None
        return engine

    def abort(self) -> None:
        """See `EngineInstall.abort`."""
        if not self._is_over:
            self._is_over = True
            self._factory.end_install(is_finished=False)
