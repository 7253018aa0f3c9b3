"""Bytes, ids and times as JSON and headers spell them, both ways. Pure."""

import base64
import binascii
from typing import Final, Literal

from raftkv.raft.messages import NodeId

Encoding = Literal["utf-8", "base64"]

#: The decimal or hexadecimal zero that JSON and headers show where there is no lease.
NO_LEASE: Final = "0"


def text_of(data: bytes) -> tuple[str, Encoding]:
    """Bytes as JSON carries them: the text, and how it encodes them ("utf-8" or "base64")."""
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii"), "base64"


def bytes_of(text: str, encoding: Encoding) -> bytes:
    """Inverse of `text_of`. Raises ValueError: not base64, or not in its one spelling."""
    if encoding == "utf-8":
        return text.encode()
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        data = b""
    if base64.b64encode(data).decode("ascii") != text:
        raise ValueError("it is not base64")
    return data


def hex_id(number: NodeId) -> str:
    """A member or lease id as JSON and headers spell it."""
    return f"{number:016x}"


def duration_text(milliseconds: int) -> str:
    """A time as parameters take it: whole seconds where it is some, as in 30s or 1500ms."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{milliseconds}ms" if rest else f"{seconds}s"
