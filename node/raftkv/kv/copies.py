"""How the copy of an engine begins: which engine made it, and in which format its records are.

Without it a node would open what it cannot read: a snapshot sent by another version, or one made
by the other engine. The rest of a copy is the engine's own affair. Called by both engines.
"""

import struct
from typing import BinaryIO, Final

from raftkv.kv.engine import EngineError
from raftkv.kv.records import FORMAT

_MAGIC: Final = b"RKVCOPY1"
_PREAMBLE: Final = struct.Struct(">8s8sI4x")  # magic, name of the engine, `records.FORMAT`

PREAMBLE_BYTES: Final = _PREAMBLE.size


def encode_preamble(engine_name: str) -> bytes:
    """The first bytes of a copy by the engine of that name (up to 8 bytes of ASCII)."""
    return _PREAMBLE.pack(_MAGIC, engine_name.encode().ljust(8), FORMAT)


def read_preamble(file: BinaryIO, size: int, engine_name: str) -> int:
    """Leave ``file`` behind the preamble; how many of the ``size`` bytes follow it.

    Raises:
        EngineError: this version, or the engine of that name, did not make this copy.
    """
    data = file.read(PREAMBLE_BYTES) if size >= PREAMBLE_BYTES else b""
    if len(data) < PREAMBLE_BYTES:
        raise EngineError(f"{size} bytes are no copy of an engine")
    magic, name, record_format = _PREAMBLE.unpack(data)
    if magic != _MAGIC:
        raise EngineError(f"a copy of an engine does not begin with {magic!r}")
    if name.rstrip() != engine_name.encode():
        raise EngineError(f"a copy by the engine {name.rstrip()!r}, not {engine_name!r}")
    if record_format != FORMAT:
        raise EngineError(
            f"a copy with records of format {record_format}; this version has {FORMAT}"
        )
    return size - PREAMBLE_BYTES
