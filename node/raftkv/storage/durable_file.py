"""Whole files: written so that they are complete and durable under their name, or not there.

Used for the identity and for new WAL segments. Source: the rename discipline of every journal
(write aside, sync, rename, sync the directory); node design, rule 6.
"""

from collections.abc import Sequence

from raftkv.storage.disk import (
    Allocate,
    Close,
    DiskTask,
    Fdatasync,
    FsyncDir,
    Handle,
    Open,
    Pread,
    Pwrite,
    Rename,
    Truncate,
)
from raftkv.storage.layout import TEMPORARY_SUFFIX


def replace_file(
    directory: str, name: str, chunks: Sequence[bytes], *, size_bytes: int = 0
) -> DiskTask[Handle]:
    """Make ``directory/name`` hold ``chunks``, followed by zeros up to ``size_bytes``.

    Whatever had the name before is replaced in one step; a crash leaves the old file or the new
    one, and at worst a temporary file beside it. Returns the new file, open and durable.
    """
    path = f"{directory}/{name}"
    temporary = path + TEMPORARY_SUFFIX
    (handle,) = yield (Open(temporary, create=True),)
    assert isinstance(handle, int)
    yield (
        Truncate(handle, 0),  # a crash may have left one
        Allocate(handle, size_bytes),
        Pwrite(handle, 0, chunks),
        Fdatasync(handle),
        Rename(temporary, path),
        FsyncDir(directory),
    )
    return handle


def read_file(path: str, size_bytes: int) -> DiskTask[bytes]:
    """The first ``size_bytes`` of a file; fewer if it is shorter."""
    (handle,) = yield (Open(path, read_only=True),)
    assert isinstance(handle, int)
    content, _ = yield (Pread(handle, 0, size_bytes), Close(handle))
    assert isinstance(content, bytes)
    return content
