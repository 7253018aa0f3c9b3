"""Printing of results: bytes for pipes, JSON for programs, text for people."""

import base64
import json
import sys

import click
from rich.text import Text


def print_raw(data: bytes) -> None:
    """Write ``data`` to standard output as it is, without a line end."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_json(value: object) -> None:
    """One JSON document and a line end."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def text_fields(name: str, data: bytes) -> dict[str, str]:
    """The two fields that carry bytes in JSON, as the HTTP API spells them."""
    try:
        return {name: data.decode(), f"{name}_encoding": "utf-8"}
    except UnicodeDecodeError:
        encoded = base64.b64encode(data).decode("ascii")
        return {name: encoded, f"{name}_encoding": "base64"}


def printable(data: bytes) -> Text:
    """``data`` as a person can read it; nothing in it can steer the terminal."""
    text = data.decode(errors="backslashreplace")
    shown = (
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in text
    )
    return Text("".join(shown))
