"""JSON bodies of requests: decoded into closed shapes, and everything else refused by name. Pure.

The shapes are msgspec Structs that forbid unknown fields; what is served as `/openapi.json` is
made of the same ones.
"""

import json
from typing import Annotated, Final, TypeVar

import msgspec

from raftkv.server.http.parameters import HEX_ID
from raftkv.server.http.problems import BAD_BODY, TOO_LARGE, Kind, Refused, quoted
from raftkv.server.http.targets import KEY_BYTES_MAX
from raftkv.server.http.texts import Encoding, bytes_of

# Room for a list of some hundred members.
JSON_BODY_BYTES_MAX: Final = 64 << 10

#: The id of a member or a lease in a body.
HexId = Annotated[str, msgspec.Meta(pattern=rf"^{HEX_ID}\Z")]

#: A duration in a body. What is wrong with one is said by `parameters.duration_ms`.
Duration = Annotated[
    str,
    msgspec.Meta(
        max_length=64,
        examples=["30s", "1m30s"],
        extra_json_schema={"pattern": "^[0-9.]+(ms|s|m|h)([0-9.]+(ms|s|m))*$"},
    ),
]

Body = TypeVar("Body", bound=msgspec.Struct)


def decode_body(body: bytes, shape: type[Body]) -> Body:
    """The JSON of ``body``; refused with what is wrong, and where."""
    try:
        value = msgspec.json.decode(body, type=shape)
        # The shape holds, so nesting is bounded; msgspec would take the last of two equal names.
        json.loads(body, object_pairs_hook=_unique_fields)
    except (ValueError, RecursionError) as error:  # also of decoding, of UTF-8 and of numbers
        raise Refused(BAD_BODY, f"the body is not the JSON that is expected: {error}") from None
    return value


def bytes_field(name: str, text: str, encoding: Encoding) -> bytes:
    """The bytes that the field ``name`` spells."""
    try:
        return bytes_of(text, encoding)
    except ValueError as error:
        raise Refused(BAD_BODY, f"{name} cannot be decoded: {error}") from None


def key_field(name: str, text: str, encoding: Encoding, kind: Kind = BAD_BODY) -> bytes:
    """The key that the field ``name`` spells."""
    key = bytes_field(name, text, encoding)
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise Refused(kind, f"{name} has {len(key)} bytes; a key has 1 to {KEY_BYTES_MAX} bytes")
    return key


def value_field(name: str, text: str, encoding: Encoding, bytes_max: int) -> bytes:
    """The value that the field ``name`` spells; 413 beyond ``bytes_max``."""
    value = bytes_field(name, text, encoding)
    if len(value) > bytes_max:
        raise Refused(TOO_LARGE, f"{name} is larger than the limit of {bytes_max} bytes")
    return value


def _unique_fields(pairs: list[tuple[str, object]]) -> None:
    names = [name for name, _ in pairs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise Refused(BAD_BODY, f"the field {quoted(repeated)} is given more than once")
