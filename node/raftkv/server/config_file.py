"""The configuration file of a node: TOML, whose keys are the names of the flags. Pure.

    addr = "0.0.0.0:7400"
    quota-bytes = 4_294_967_296
    peers = "n1=10.0.0.1:7401,n2=10.0.0.2:7401,n3=10.0.0.3:7401"

Dashes may be underscores. A key that is no flag, a value of another type and a key given twice are
refused with their line. What a flag or an environment variable says goes before the file.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Final, NamedTuple, get_args, get_type_hints

from raftkv.server.settings import Flags

FILE_BYTES_MAX: Final = 1 << 20

_KINDS: Final = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
Value = str | int | float | bool


class ConfigError(ValueError):
    """The file is refused; the message names the line or the key."""


class Entry(NamedTuple):
    """One key of the file."""

    value: Value
    line: int


def kind_of_flags() -> dict[str, type[Value]]:
    """For each field of `Flags`, what a file gives for it."""
    kinds: dict[str, type[Value]] = {}
    for name, hint in get_type_hints(Flags).items():
        [kind] = [each for each in get_args(hint) or (hint,) if each is not NoneType]
        kinds[name] = str if kind is Path else kind
    return kinds


def parse_config(text: str) -> dict[str, Entry]:
    """The entries by the names of the fields of `Flags`. Raises ConfigError."""
    try:
        table = tomllib.loads(text + "\n")  # else the last line has no number in an error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from None
    kinds = kind_of_flags()
    entries: dict[str, Entry] = {}
    for key, value in table.items():
        line = _line_of(key, text)
        name = key.replace("-", "_")
        kind = kinds.get(name)
        if kind is None:
            raise ConfigError(f"line {line}: there is no setting {key!r}")
        if name in entries:
            raise ConfigError(f"line {line}: {key} is given twice, with a dash and an underscore")
        if not _is_of(kind, value):
            raise ConfigError(f"line {line}: {key} is {_KINDS[kind]}, not {_shown(value)}")
        entries[name] = Entry(value, line)
    return entries


def _is_of(kind: type[Value], value: object) -> bool:
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return _KINDS.get(type(value), "a date or time")


def _line_of(key: str, text: str) -> int:
    """Where a key of the top level stands: TOML's reader does not tell."""
    pattern = re.compile(rf"""\s*(?:\[+\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return number
    return 1


def write_config(settings: Mapping[str, tuple[Value | None, str]]) -> str:
    """A file that `parse_config` takes: each setting with a comment on where it came from.

    What is not set stands there as a comment.
    """
    lines = []
    for name, (value, origin) in settings.items():
        key = name.replace("_", "-")
        lines.append(f"# {key} is not set" if value is None else f"{key} = {_toml(value)}")
        lines[-1] += f"  # {origin}" if value is not None else ""
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:  # noqa: ANN401 a `Value`
    # A string of JSON is a string of TOML, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
