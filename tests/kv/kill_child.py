"""A process that applies entries without end and says so, until it is killed.

`python -m tests.kv.kill_child PATH RUNTIME_DIR`: opens the store there, goes on after its last
entry, and prints the index of each slice once it is committed. Entry ``n`` is `entry_number` of n.
"""

import sys

from raftkv.kv.commands import Append, Delete, Put
from raftkv.kv.lmdb_environment import LmdbEngineFactory
from raftkv.kv.store import Store
from raftkv.raft.messages import Entry
from tests.kv.support import entry

KEY_COUNT = 20


def entry_number(index: int) -> Entry:
    """Creates, overwrites, appends and deletes, so that every table changes."""
    key = b"key/%d" % (index % KEY_COUNT)
    last = b"key/%d" % ((index + 7) % KEY_COUNT)
    return entry(
        index,
        Put(b"index", b"%d" % index),
        Append(key, b"%d," % index, 1 << 20),
        Put(last, bytes(index % 5000)),
        Delete(key) if index % 3 == 0 else Put(key, b"x"),
    )


def main() -> None:
    path, runtime_dir = sys.argv[1:]
    store = Store(LmdbEngineFactory(path, runtime_dir).open())
    while True:
        first = store.applied_index + 1
        store.apply([entry_number(index) for index in range(first, first + 4)])
        print(store.applied_index, flush=True)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main()
