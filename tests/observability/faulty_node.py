"""A `raftkv` node whose machine fails on demand.

    python -m tests.observability.faulty_node FILE node ...

FILE holds JSON, read again every 50 ms, such as {"fdatasync_seconds": 0.8}, {"is_full": true} or
{"is_wrong": true}. The node's own code is what runs; what changes is what the machine below it
does: a slow disk, a full one, and memory that lies (one bit of the state hash after each entry).
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from raftkv.__main__ import main
from raftkv.kv import store

_POLL_SECONDS = 0.05


class Faults:
    """What the file says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: dict[str, Any] = {}
        self._never = threading.Event()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while not self._never.wait(_POLL_SECONDS):
            try:
                self._told = json.loads(self._path.read_text())
            except (OSError, ValueError):
                self._told = {}

    def delay(self) -> None:
        """Be slow."""
        seconds = float(self._told.get("fdatasync_seconds", 0.0))
        if seconds:
            self._never.wait(seconds)

    @property
    def is_full(self) -> bool:
        return bool(self._told.get("is_full"))

    @property
    def is_wrong(self) -> bool:
        return bool(self._told.get("is_wrong"))


def install(faults: Faults) -> None:
    """Put the faults between the node and its machine."""
    sync, free, apply_entry = os.fdatasync, os.statvfs, store._apply_entry

    def slow_sync(descriptor: int) -> None:
        faults.delay()
        sync(descriptor)

    def no_room(path: str) -> os.statvfs_result:
        told = list(free(path))
        if faults.is_full:
            told[3] = told[4] = 0  # f_bfree, f_bavail
        return os.statvfs_result(told)

    def lie(*arguments: Any) -> Any:
        outcomes, chain_hash, size_bytes = apply_entry(*arguments)
        if faults.is_wrong:
            chain_hash = bytes([chain_hash[0] ^ 1]) + chain_hash[1:]
        return outcomes, chain_hash, size_bytes

    replace(os, [("fdatasync", slow_sync), ("statvfs", no_room)])
    replace(store, [("_apply_entry", lie)])
    # All nodes of the cluster run this: they compare hashes sooner than every 1024 entries.
    store.HASH_INTERVAL = 16  # type: ignore[misc]


def replace(module: object, functions: Iterable[tuple[str, Callable[..., Any]]]) -> None:
    for name, function in functions:
        assert hasattr(module, name), name
        setattr(module, name, function)


if __name__ == "__main__":
    install(Faults(Path(sys.argv.pop(1))))
    main()
