"""A node of an older version, as far as its files go: arrays without what was added at their ends.

docs/file-formats.md says what may be missing. So one log holds records of several versions, written
by one life after the other, or by the leader that a member had before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import msgspec

from raftkv.raft import ConfState
from raftkv.raft import messages as raft_messages
from raftkv.storage import record as wal_records
from raftkv.storage.record import SegmentStart

# What came later, in order; nothing is left out that says anything.
_LATER: Final[dict[type, tuple[str, ...]]] = {
    ConfState: ("auto_promote", "removed"),
    SegmentStart: ("snapshot",),
}


class OlderEncoder:
    """In the place of an encoder of records."""

    def encode(self, value: object) -> bytes:
        """As `msgspec.msgpack.Encoder.encode`, with the shorter arrays."""
        return msgspec.msgpack.encode(_shortened(value))


def _shortened(value: object) -> Any:
    if isinstance(value, msgspec.Struct):
        array = [_shortened(getattr(value, name)) for name in value.__struct_fields__]
        for name in reversed(_LATER.get(type(value), ())):
            if getattr(value, name):
                break
            array.pop()
        tag = value.__struct_config__.tag
        return array if tag is None else [tag, *array]
    if isinstance(value, tuple | list):
        return [_shortened(item) for item in value]
    return value


@contextmanager
def older_version() -> Iterator[None]:
    """What is encoded within has the shorter arrays."""
    with (
        patch.object(raft_messages, "_conf_state_encoder", OlderEncoder()),
        patch.object(wal_records, "_ENCODER", OlderEncoder()),
    ):
        yield
