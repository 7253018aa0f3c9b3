"""Harm to what lies on a disk while its machine is down (reference faults 4, rows 28 to 31).

Each kind changes durable bytes behind the node's back, and says what it did. The node must then
refuse to start, with the place, or come back as if nothing had happened, because the bytes did not
matter. One case is left out, since nobody can tell it from a write that a crash cut short: damage
to the last frame of a log (docs/file-formats.md).
"""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from raftkv.storage.record import HEADER_BYTES, SECTOR_BYTES, Frame, decode_frame
from tests.simulation.disk import SimDisk


class Harm(NamedTuple):
    """What was done to a file."""

    what: str  # with the path; of a fatal one with the place, as the node has to name it
    kind: str
    mend: Callable[[], None]  # undoes it, while the node is down
    is_fatal: bool = False  # no node may start with it


def harm(disk: SimDisk, rng: Random) -> Harm | None:
    """Do something to one file; None if there is nothing to harm."""
    kinds: tuple[tuple[str, Callable[[SimDisk, Random], str | None]], ...] = (
        ("flip in the log", _flip_in_the_log),
        ("flip in the log", _flip_in_the_log),
        ("lost write", _lose_a_write),
        ("misdirected write", _misdirect_a_write),
        ("cut file", _truncate),
        ("missing segment", _remove_a_segment),
        ("flip elsewhere", _flip_elsewhere),
        ("flip elsewhere", _flip_elsewhere),
    )
    disk.settle_names()
    before = {path: disk.read(path) for path in disk.paths()}
    kind, do = rng.choice(kinds)
    what = do(disk, rng)
    after = {path: disk.read(path) for path in disk.paths()}
    changed = [path for path in before if before[path] != after.get(path)]
    if what is None or not changed:
        return None
    (path,) = changed
    if kind == "flip elsewhere":
        kind = "flip in an identity" if path == "identity" else "flip in a snapshot"
    return Harm(what, kind, lambda: disk.write(path, before[path]))


def _segments(disk: SimDisk) -> list[str]:
    return [path for path in disk.paths() if path.endswith((".active", ".sealed"))]


def _flip(disk: SimDisk, path: str, offset: int, rng: Random) -> str:
    disk.flip_bit(path, offset, rng.randrange(8))
    return f"bit flip in {path} at {offset}"


def rot(disk: SimDisk, rng: Random) -> Harm | None:
    """Flip a bit in a frame of the log that is durable for sure, as others follow it.

    A node that cut its log there would be without what it acknowledged, and would not know. None
    if there is no such frame. Nothing may be under way on the disk: its power was lost.
    """
    active = [path for path in _segments(disk) if path.endswith(".active")]
    frames = _frames(disk.read(active[-1])) if active else []
    if len(frames) < 3:  # the first names the segment, and nobody follows the last
        return None
    path, content = active[-1], disk.read(active[-1])
    frame = rng.choice(frames[1:-1])
    size = HEADER_BYTES + len(frame.payload)  # what follows is padding
    disk.flip_bit(path, frame.offset + rng.randrange(size), rng.randrange(8))
    damaged = disk.read(path)

    def mend() -> None:
        assert disk.read(path) == damaged, "I14: a node that refuses its disk changes nothing"
        disk.write(path, content)

    return Harm(f"{path} at offset {frame.offset}", "flip in what is durable", mend, is_fatal=True)


def _frames(content: bytes) -> list[Frame]:
    """The frames of a segment, up to the first place without one."""
    frames = []
    frame = decode_frame(content, 0)
    while frame is not None:
        frames.append(frame)
        frame = decode_frame(content, frame.end)
    return frames


def _vulnerable(disk: SimDisk, rng: Random) -> tuple[str, int] | None:
    """A segment, and where its frames end that damage cannot pass for a torn tail of."""
    paths = _segments(disk)
    if not paths:
        return None
    path = rng.choice(paths)
    frames = _frames(disk.read(path))
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
