"""`raftkv ls`: keys of a range."""

import click
from rich.console import Console
from rich.table import Table

from raftkv.cli.common import Form, Session, bytes_of, client_options
from raftkv.cli.keys import READ_OPTIONS, with_options
from raftkv.cli.printing import item_fields, print_json, print_raw, printable, text_fields
from raftkv.client import Client, Consistency, Item, Page


@click.command("ls")
@click.argument("prefix", default="")
@click.option("--start", default="", help="From this key on.")
@click.option("--end", default="", help="Below this key.")
@click.option("--delimiter", default="", help="Show what is deeper than this as one prefix.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many lines.")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
@click.option("--count", is_flag=True, help="Print only how many keys there are.")
@click.option("--reverse", is_flag=True, help="From the last key to the first.")
@with_options(READ_OPTIONS)
@client_options
def ls_command(
    session: Session,
    *,
    prefix: str,
    start: str,
    end: str,
    delimiter: str,
    limit: int | None,
    keys_only: bool,
    count: bool,
    reverse: bool,
    consistency: Consistency,
    max_stale: float | None,
    min_revision: int | None,
    revision: int | None,
) -> None:
    """List the keys that begin with PREFIX (default: all), as they were at one moment.

    Into a pipe goes one key a line, and every prefix on a line of its own.
    """
    if count:

        async def total(client: Client) -> int:
            return await client.count(
                bytes_of(prefix),
                start=bytes_of(start),
                end=bytes_of(end),
                revision=revision or 0,
                consistency=consistency,
            )

        _print_count(session.run(total), session.form)
        return

    async def call(client: Client) -> Page:
        items: list[Item] = []
        prefixes: list[bytes] = []
        cursor = None
        left = limit
        while True:
            page = await client.list(
                bytes_of(prefix),
                start=bytes_of(start),
                end=bytes_of(end),
                limit=min(1000, 1000 if left is None else left),
                cursor=cursor,
                revision=revision or 0,
                min_revision=min_revision or 0,
                delimiter=bytes_of(delimiter),
                is_descending=reverse,
                keys_only=keys_only or session.form is Form.RAW,
                consistency=consistency,
                max_stale_seconds=max_stale,
            )
            items += page.items
            prefixes += page.prefixes
            cursor = page.next_cursor
            if left is not None:
                left -= len(page.items) + len(page.prefixes)
            if cursor is None or (left is not None and left <= 0):
                return Page(tuple(items), tuple(prefixes), page.revision, cursor)

    _print_page(session.run(call), session.form, with_values=not keys_only)


def _print_count(total: int, form: Form) -> None:
    if form is Form.JSON:
        print_json({"count": total})
    else:
        click.echo(total)


def _print_page(page: Page, form: Form, *, with_values: bool) -> None:
    match form:
        case Form.RAW:
            for name in (*page.prefixes, *(item.key for item in page.items)):
                print_raw(name + b"\n")
        case Form.JSON:
            items = [item_fields(item, with_value=with_values) for item in page.items]
            prefixes = [text_fields("prefix", prefix) for prefix in page.prefixes]
            print_json({"revision": page.revision, "items": items, "prefixes": prefixes})
        case Form.TABLE:
            table = Table("key", "value", "revision", "version")
            for prefix in page.prefixes:
                table.add_row(printable(prefix), "", "", "")
            for item in page.items:
                row = (printable(item.key), printable(item.value))
                table.add_row(*row, str(item.mod_revision), str(item.version))
            Console().print(table)
            if page.next_cursor is not None:
                click.echo("and more: raise --limit")
