"""State machine stores that survive a kill and not a power loss (node design, rule 3).

Most runs keep it in memory, since that is fast; a share of the seeds runs the real LMDB adapter,
with its own decision what to reuse after which end.
"""

from pathlib import Path
from typing import Protocol

from typing_extensions import override

from raftkv.kv.environment import EngineFactory
from raftkv.kv.lmdb_environment import Files, LmdbEngineFactory
from raftkv.kv.memory_engine import MemoryEngineFactory


class SimulatedEngines(EngineFactory, Protocol):
    """An `EngineFactory` whose machine can lose power."""

    def power_loss(self) -> None:
        """What was not synced is gone, and nobody knows what is left."""
        ...

    def kill(self) -> None:
        """The process is gone, and with it what only its memory held."""
        ...


class _Files(Files):
    """The real file system under a kernel that may be booted anew; syncs are left out for speed."""

    def __init__(self) -> None:
        self.boots = 1

    @override
    def boot_id(self) -> str:
        return f"boot {self.boots}"

    @override
    def write(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)

    @override
    def sync_directory(self, path: Path) -> None:
        pass


class LmdbEngines(LmdbEngineFactory):
    """LMDB in a directory of the run."""

    def __init__(self, path: Path) -> None:
        self._kernel = _Files()
        runtime_dir = path / "runtime"
        runtime_dir.mkdir(parents=True)
        super().__init__(
            str(path / "store"), str(runtime_dir), map_bytes=1 << 26, files=self._kernel
        )

    def power_loss(self) -> None:
        """The next open finds another boot, and throws the environment away."""
        self._kernel.boots += 1

    def kill(self) -> None:
        """An installation that was under way belongs to nobody any more."""
        self._install = None


class MemoryEngines(MemoryEngineFactory):
    """Tables that outlive their process."""

    def kill(self) -> None:
        """Nothing but the tables is kept."""


def make_engines(directory: Path | None, name: str) -> SimulatedEngines:
    """LMDB below ``directory``, or in memory if there is none."""
    return MemoryEngines() if directory is None else LmdbEngines(directory / name)
