"""Which LMDB environment may be used again after a restart: the decision, without the I/O.

Owns rule 9 of the node design and the check of rule 8. LMDB runs here without any sync, so after
a power loss its file may hold any mixture of old and new pages, and nothing in the file tells.
What tells is a small file beside it, ``env.state``: it says under which circumstances the
environment was opened last, and whether it was synced and closed since. While the same kernel
still runs and the volume was not unmounted, the page cache holds all that a killed process ever
wrote; then, or after a clean close, the environment is good. In any other case it is thrown away
and rebuilt from snapshot and log, which are the durable truth.

Called by `raftkv.kv.lmdb_environment`, which gathers the facts, and by the node class.
"""

from typing import BinaryIO, Final, Protocol

import msgspec

from raftkv.kv.engine import Engine
from raftkv.kv.records import FORMAT


class EngineInstall(Protocol):
    """An engine that is being filled from an `EngineCopy`, beside the open one.

    Ends with `finish` or `abort`, one of which is the caller's duty.
    """

    def read_from(self, file: BinaryIO, size: int) -> None:
        """Take in the ``size`` bytes of a copy at the position of ``file``: once, long, any thread.

        Raises:
            OSError: the file cannot be read, or the data directory not written.
            EngineError: it is not a copy that this engine can use.
        """
        ...

    def finish(self) -> Engine:
        """Close the open engine and put this one in its place (rules 9 and 10).

        Only after `read_from` returned, in the engine's thread. A process killed in between
        finds an empty engine, or this one.

        Raises:
            EngineError: the disk fails. There may be no engine then: the node must stop.
        """
        ...

    def abort(self) -> None:
        """Forget what was read. The open engine was never touched."""
        ...


class EngineFactory(Protocol):
    """Opens the node's engine at start, or begins a new one when the old one is in doubt.

    At most one engine of a factory is open: `open` and `rebuild` close the one before. All
    methods raise `EngineError` when the disk fails.
    """

    def open(self) -> Engine:
        """The engine as the last process left it, if that can be trusted; else an empty one."""
        ...

    def rebuild(self) -> Engine:
        """An empty engine in place of whatever was there; the caller fills it from the log."""
        ...

    def begin_install(self) -> EngineInstall:
        """Begin an engine with the state of a copy, to replace the open one. One at a time."""
        ...

    def close_clean(self, engine: Engine) -> None:
        """Make ``engine`` durable, close it, and record that the next `open` may trust it."""
        ...


class Circumstances(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must not have changed for the page cache to vouch for an environment."""

    boot_id: str  # of the running kernel
    device: int  # of the environment's data file
    inode: int
    mount_nonce: str  # drawn once while the volume is mounted; lost when it is unmounted


class EnvironmentState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``env.state``."""

    record_format: int  # `raftkv.kv.records.FORMAT` of the process that wrote it
    is_clean: bool  # synced and closed, and not opened since
    circumstances: Circumstances  # in which it was opened


class Reuse(msgspec.Struct, frozen=True):
    """The environment holds exactly what was committed to it."""


class Rebuild(msgspec.Struct, frozen=True):
    """The environment must be discarded; ``reason`` is for a person."""

    reason: str


_DECODER: Final = msgspec.json.Decoder(EnvironmentState)


def encode_state(state: EnvironmentState) -> bytes:
    """The bytes of ``env.state``: one line of JSON, since people will look at it."""
    return msgspec.json.encode(state) + b"\n"


def decode_state(data: bytes) -> EnvironmentState | None:
    """Inverse of `encode_state`; None for anything else."""
    try:
        return _DECODER.decode(data)
    except ValueError:
        return None


def decide(recorded: EnvironmentState | None, present: Circumstances | None) -> Reuse | Rebuild:
    """Whether the environment may be used again.

    Args:
        recorded: what ``env.state`` says; None if it is missing or unreadable.
        present: how things are now; None if there is no environment at all.
    """
    if recorded is None:
        return Rebuild("env.state is missing or unreadable")
    if present is None:
        return Rebuild("there is no environment")
    if recorded.record_format != FORMAT:
        return Rebuild(f"records have format {recorded.record_format}, this version has {FORMAT}")
    if recorded.is_clean:
        return Reuse()
    for field in Circumstances.__struct_fields__:
        was, now = getattr(recorded.circumstances, field), getattr(present, field)
        if was != now:
            return Rebuild(f"not closed cleanly, and the {field} changed from {was} to {now}")
    return Reuse()


def applied_index_fits(snapshot_index: int, applied_index: int, last_index: int) -> bool:
    """Whether an engine that has applied up to ``applied_index`` belongs to this log (rule 8).

    The log holds entries after ``snapshot_index`` up to ``last_index``. An engine before the
    snapshot lacks entries that are gone; one beyond the log has applied what this node may yet
    see overwritten. Either is discarded with `EngineFactory.rebuild`.
    """
    return snapshot_index <= applied_index <= last_index
