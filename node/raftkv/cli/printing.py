"""Printing of results: bytes for pipes, JSON for programs, text for people."""

import base64
import json
import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raftkv.cli.common import Form
from raftkv.client import NO_LEASE, Item


def print_raw(data: bytes) -> None:
    """Write ``data`` to standard output as it is, without a line end."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_json(value: object) -> None:
    """One JSON document and a line end."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def print_json_line(value: object) -> None:
    """One JSON document on one line, at once, also into a pipe."""
    click.echo(json.dumps(value, ensure_ascii=False))
    sys.stdout.flush()


def print_table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """For people; None is shown as a dash. Wider than the terminal, rather than cut: ids."""
    table = Table(*header, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    console = Console()
    wanted = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, wanted)
    console.print(table)


def print_rows(rows: list[tuple[object, ...]]) -> None:
    """For pipes: a line each, fields separated by tabs."""
    for row in rows:
        click.echo("\t".join(_cell(cell).plain for cell in row))


def print_answer(form: Form, fields: object, sentence: str, *, pipe: object = None) -> None:
    """What one sentence tells a person; ``pipe``: the part of it that goes into a pipe, if any."""
    match form:
        case Form.JSON:
            print_json(fields)
        case Form.RAW if pipe is None:
            pass
        case Form.RAW:
            click.echo(pipe)
        case Form.TABLE:
            click.echo(sentence)


def print_listing(
    form: Form, fields: object, header: tuple[str, ...], rows: list[tuple[object, ...]]
) -> None:
    """A row each; ``fields``: the same and perhaps more, as JSON."""
    match form:
        case Form.JSON:
            print_json(fields)
        case Form.RAW:
            print_rows(rows)
        case Form.TABLE:
            print_table(header, rows)


def _cell(value: object) -> Text:
    match value:
        case None:
            return Text("-")
        case bytes():
            return printable(value)
        case bool():
            return Text("yes" if value else "no")
        case float():
            return Text(f"{value:g}")
        case _:
            return Text(str(value))


def item_fields(item: Item, *, with_value: bool = True) -> dict[str, object]:
    """An item as the HTTP API spells it."""
    fields: dict[str, object] = {**text_fields("key", item.key)}
    if with_value:
        fields |= text_fields("value", item.value)
    fields |= {
        "create_revision": item.create_revision,
        "mod_revision": item.mod_revision,
        "version": item.version,
    }
    return fields if item.lease == NO_LEASE else fields | {"lease": item.lease}


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
