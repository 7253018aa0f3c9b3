"""What the benchmark ran on, in neutral terms: no names, no paths, no addresses."""

import os
import platform
import re
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import msgspec
import psutil

_SYNCS = 400
_WRITE_BYTES = 4096
_LOOK_SECONDS = 2.0
#: From here on, figures say more of the others on the machine than of the systems.
_BUSY_SHARE_MAX = 0.1


class Machine(msgspec.Struct, frozen=True):
    """Cores, memory, kernel, file system, and how long a small durable write takes."""

    cores: int
    cpu: str
    memory_gib: int
    kernel: str
    file_system: str
    fdatasync_ms_median: float
    fdatasync_ms_p99: float
    python: str
    busy_share: float  # of all cores, before the benchmark began

    @property
    def is_quiet(self) -> bool:
        """Nothing else ran when the benchmark began."""
        return self.busy_share < _BUSY_SHARE_MAX

    def describe(self) -> str:
        """One sentence."""
        return (
            f"{self.cores} cores ({self.cpu}) shared by all nodes and the client, "
            f"{self.memory_gib} GiB of "
            f"memory, Linux {self.kernel}, {self.file_system}, fdatasync of {_WRITE_BYTES // 1024} "
            f"KiB {self.fdatasync_ms_median:.2f} ms (median), {self.fdatasync_ms_p99:.2f} ms "
            f"(p99); Python {self.python}; {self.busy_share:.0%} busy before it began"
        )


def inspect_machine(directory: Path) -> Machine:
    """Look around, and measure the disk below ``directory``."""
    sync_ms = sorted(_measure_syncs(directory))
    return Machine(
        busy_share=psutil.cpu_percent(_LOOK_SECONDS) / 100,
        cpu=cpu_model(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        kernel=".".join(re.findall(r"\d+", platform.release())[:2]),
        file_system=file_system_of(directory),
        fdatasync_ms_median=median(sync_ms),
        fdatasync_ms_p99=quantiles(sync_ms, n=100)[98],
        python=platform.python_version(),
    )


def cpu_model(cpuinfo: str) -> str:
    """What `/proc/cpuinfo` calls the processor."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return "of an unknown kind" if found is None else " ".join(found[1].split())


def file_system_of(directory: Path) -> str:
    """The type of the file system that holds ``directory``, as the kernel names it."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    return "unknown file system"


def _measure_syncs(directory: Path) -> list[float]:
    """Milliseconds of fdatasync after overwriting one block of a file that is already there."""
    path = directory / "fdatasync.probe"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(handle, bytes(_WRITE_BYTES), 0)
        os.fsync(handle)
        taken_ms = []
        for number in range(_SYNCS):
            os.pwrite(handle, bytes([number % 256]) * _WRITE_BYTES, 0)
            started = perf_counter()
            os.fdatasync(handle)
            taken_ms.append((perf_counter() - started) * 1e3)
        return taken_ms
    finally:
        os.close(handle)
        path.unlink()
