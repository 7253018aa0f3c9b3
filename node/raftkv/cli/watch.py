"""`raftkv watch`: changes as they happen."""

import click
from rich.console import Console
from rich.text import Text

from raftkv.cli.common import Form, Session, bytes_of, client_options
from raftkv.cli.printing import item_fields, print_json_line, printable, text_fields
from raftkv.client import Client, Event


@click.command("watch")
@click.argument("key", required=False)
@click.option("--prefix", help="Instead of KEY: all keys that begin with this; '' is every key.")
@click.option(
    "--from",
    "from_revision",
    type=click.IntRange(min=0),
    metavar="REVISION",
    help="Begin with what happened after this revision.  [default: now]",
)
@click.option("--prev", is_flag=True, help="Also show the value as it was before.")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    metavar="N",
    help="End after N changes.  [default: never]",
)
@client_options
def watch_command(
    session: Session,
    *,
    key: str | None,
    prefix: str | None,
    from_revision: int | None,
    prev: bool,
    count: int | None,
) -> None:
    """Print every change of KEY as it happens, until Ctrl-C.

    A connection that breaks is taken up again, also at another node, without losing a change or
    showing one twice. --timeout counts for the first connection only. With -o json each change
    is a JSON document on a line of its own.

    \b
        raftkv watch greeting
        raftkv watch --prefix users/ --from 12 -o json
    """  # noqa: D301 click wants the character
    if (key is None) == (prefix is None):
        raise click.UsageError("give either KEY or --prefix")

    async def call(client: Client) -> None:
        watched = client.watch(
            key=None if key is None else bytes_of(key),
            prefix=None if prefix is None else bytes_of(prefix),
            from_revision=from_revision,
            prev=prev,
        )
        console = Console(soft_wrap=True)
        async with watched as watch:
            if session.form is Form.TABLE:
                click.echo(f"watching from revision {watch.revision}; Ctrl-C ends it", err=True)
            seen = 0
            async for event in watch:
                _print_event(event, session.form, console, with_prev=prev)
                seen += 1
                if seen == count:
                    return

    try:
        session.run(call)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _print_event(event: Event, form: Form, console: Console, *, with_prev: bool) -> None:
    if form is Form.JSON:
        fields: dict[str, object] = {"event": event.kind, "revision": event.revision}
        item = event.item
        fields |= text_fields("key", event.key) if item is None else item_fields(item)
        if with_prev:
            fields["prev"] = None if event.prev is None else item_fields(event.prev)
        print_json_line(fields)
        return
    style = {"put": "green", "delete": "red"}[event.kind] if form is Form.TABLE else ""
    line = Text(f"{event.revision} ")
    line.append(event.kind, style)
    line.append(" ").append_text(_one_line(event.key))
    if event.item is not None:
        line.append(" = ").append_text(_one_line(event.item.value))
    if with_prev and event.prev is not None:
        line.append(" (before: ").append_text(_one_line(event.prev.value)).append(")")
    if form is Form.TABLE:
        console.print(line)
    else:
        click.echo(line.plain)


def _one_line(data: bytes) -> Text:
    return Text(printable(data).plain.replace("\n", "\\n"))
