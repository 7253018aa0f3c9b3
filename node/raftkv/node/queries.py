"""Answers queries from the store. Called by the node class once the store is new enough.

Which revision a read may see is decided before it comes here (`raftkv.node.reads`); this says
only what is found there.
"""

from raftkv.kv.ranges import Range, read_range
from raftkv.kv.store import Store
from raftkv.node.events import Failure, FailureCode, Found, Get, Query, ReadResult


def answer(store: Store, query: Query) -> Found | Failure:
    """What ``query`` finds; a failure if it asks for a revision that does not exist yet."""
    match query:
        case Get() | Range():
            if query.revision > store.revision:
                detail = (
                    f"revision {query.revision} is in the future: the store is at {store.revision}"
                )
                return Failure(FailureCode.FUTURE_REVISION, detail)
            if isinstance(query, Range):
                return read_range(store.engine, store.revision, query)
            at = query.revision
            item = store.get_at(query.key, at) if at else store.get(query.key)
            return ReadResult(item, store.revision)
        case _:
            raise AssertionError(f"{type(query).__name__} cannot be answered yet")
