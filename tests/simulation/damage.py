"""Harm to what lies on a disk while its machine is down (reference faults 4, rows 28 to 31).

Each kind changes durable bytes behind the node's back, and says what it did. The node must then
refuse to start, with the place, or come back as if nothing had happened, because the bytes did not
matter. One case is left out, since nobody can tell it from a write that a crash cut short: damage
to the last frame of a log (docs/file-formats.md).
"""

from collections.abc import Callable
from random import Random

from raftkv.storage.record import SECTOR_BYTES, decode_frame
from tests.simulation.disk import SimDisk


def harm(disk: SimDisk, rng: Random) -> str | None:
    """Do something to one file; what, or None if there is nothing to harm."""
    kinds: tuple[Callable[[SimDisk, Random], str | None], ...] = (
        _flip_in_the_log,
        _flip_in_the_log,
        _lose_a_write,
        _misdirect_a_write,
        _truncate,
        _remove_a_segment,
        _flip_elsewhere,
        _flip_elsewhere,
    )
    return rng.choice(kinds)(disk, rng)


def _segments(disk: SimDisk) -> list[str]:
    return [path for path in disk.paths() if path.endswith((".active", ".sealed"))]


def _flip(disk: SimDisk, path: str, offset: int, rng: Random) -> str:
    disk.flip_bit(path, offset, rng.randrange(8))
    return f"bit flip in {path} at {offset}"


def _vulnerable(disk: SimDisk, rng: Random) -> tuple[str, int] | None:
    """A segment, and where its frames end that damage cannot pass for a torn tail of."""
    paths = _segments(disk)
    if not paths:
        return None
    path = rng.choice(paths)
    content = disk.read(path)
    frames = []
    frame = decode_frame(content, 0)
    while frame is not None:
        frames.append(frame)
        frame = decode_frame(content, frame.end)
    # The last frame of the log is the one that is left alone; those of a sealed segment are
    # followed by another segment.
    end = frames[-1].offset if frames and path.endswith(".active") else 0
    if frames and path.endswith(".sealed"):
        end = frames[-1].end
    return (path, end) if end else None


def _flip_in_the_log(disk: SimDisk, rng: Random) -> str | None:
    found = _vulnerable(disk, rng)
    return found and _flip(disk, found[0], rng.randrange(found[1]), rng)


def _overwrite(disk: SimDisk, path: str, sector: int, data: bytes) -> None:
    content = bytearray(disk.read(path))
    start = sector * SECTOR_BYTES
    content[start : start + len(data)] = data
    disk.write(path, bytes(content))


def _lose_a_write(disk: SimDisk, rng: Random) -> str | None:
    """Some sectors were never written, though the disk said so."""
    found = _vulnerable(disk, rng)
    if found is None:
        return None
    path, end = found
    sector = rng.randrange(end // SECTOR_BYTES)
    count = min(rng.randint(1, 4), end // SECTOR_BYTES - sector)
    _overwrite(disk, path, sector, bytes(count * SECTOR_BYTES))
    return f"lost write of {count} sectors in {path} at {sector * SECTOR_BYTES}"


def _misdirect_a_write(disk: SimDisk, rng: Random) -> str | None:
    """What belongs to one place lies in another."""
    found = _vulnerable(disk, rng)
    if found is None:
        return None
    path, end = found
    source, target = (rng.randrange(end // SECTOR_BYTES) for _ in range(2))
    start = source * SECTOR_BYTES
    _overwrite(disk, path, target, disk.read(path)[start : start + SECTOR_BYTES])
    return f"sector {source} of {path} lies at {target} too"


def _truncate(disk: SimDisk, rng: Random) -> str | None:
    paths = [path for path in disk.paths() if not path.endswith(".tmp") and path != "lock"]
    if not paths:
        return None
    path = rng.choice(paths)
    size = rng.randrange(max(1, len(disk.read(path))))
    disk.truncate(path, size)
    return f"{path} cut to {size} bytes"


def _remove_a_segment(disk: SimDisk, rng: Random) -> str | None:
    paths = _segments(disk)
    if not paths:
        return None
    path = rng.choice(paths)
    disk.remove(path)
    return f"{path} is gone"


def _flip_elsewhere(disk: SimDisk, rng: Random) -> str | None:
    """In an identity or a snapshot."""
    paths = [p for p in disk.paths() if p == "identity" or p.endswith(".snapshot")]
    paths = [path for path in paths if disk.read(path)]
    if not paths:
        return None
    path = rng.choice(paths)
    return _flip(disk, path, rng.randrange(len(disk.read(path))), rng)
