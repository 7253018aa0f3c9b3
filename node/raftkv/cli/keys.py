"""`raftkv put`, `get`, `del`, `append` and `incr`: one key at a time."""

import sys
from collections.abc import Callable
from typing import Final, Literal

import click
from rich.console import Console
from rich.table import Table

from raftkv.cli.common import (
    AbsentError,
    Command,
    Duration,
    FenceType,
    Form,
    Session,
    bytes_of,
    client_options,
)
from raftkv.cli.printing import item_fields, print_json, print_raw, printable, text_fields
from raftkv.client import Client, Consistency, Deleted, Fence, Item, Written

IfMatch = int | Literal["*"]
Decorator = Callable[[Command], Command]


def _if_match(value: str | None) -> IfMatch | None:
    if value is None or value == "*":
        return value  # type: ignore[return-value]
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise click.BadParameter(f"{value!r} is neither a revision nor *")
    return int(value)


_key = click.argument("key")
_value = click.argument("value", required=False)
_prev = click.option(
    "--prev", is_flag=True, help="Also print the value as it was before (into a pipe: only that)."
)

WRITE_OPTIONS: Final[tuple[Decorator, ...]] = (
    click.option(
        "--idempotency-key",
        metavar="KEY",
        help="Do this once, however often a command with this key and the same arguments is"
        " run (remembered for 10 minutes).  [default: a new key each time]",
    ),
    click.option(
        "--fence",
        type=FenceType(),
        envvar="RAFTKV_FENCE",
        help="Only while this lock is held; else exit with 4.  [env: RAFTKV_FENCE, which"
        " `raftkv lock` sets]",
    ),
)
_if_match_option = click.option(
    "--if-match",
    metavar="REVISION",
    callback=lambda _context, _option, value: _if_match(value),
    help="Only if the key was last changed at this revision (see `raftkv get -o json`), or,"
    " with *, if it exists; else exit with 4.",
)
READ_OPTIONS: Final[tuple[Decorator, ...]] = (
    click.option(
        "--revision",
        type=click.IntRange(min=1),
        metavar="REVISION",
        help="As it was at this revision of the store.  [default: now]",
    ),
    click.option(
        "--min-revision",
        type=click.IntRange(min=1),
        metavar="REVISION",
        help="Wait until the node has this revision.",
    ),
    click.option(
        "--max-stale",
        type=Duration(),
        help="With --consistency bounded: at most so old, such as 5s.",
    ),
    click.option(
        "--consistency",
        type=click.Choice(["linearizable", "bounded", "local"]),
        default="linearizable",
        show_default=True,
        help="linearizable: never stale. bounded: not older than --max-stale. local: what the"
        " node has, without asking the others.",
    ),
)


def with_options(options: tuple[Decorator, ...]) -> Decorator:
    """All of ``options``, in the order in which they are listed from the last to the first."""

    def decorate(command: Command) -> Command:
        for option in options:
            command = option(command)
        return command

    return decorate


@click.command("put")
@_key
@_value
@click.option("--ttl", type=Duration(), help="Let the key vanish after this time, such as 30s.")
@click.option("--lease", metavar="ID", help="Let the key vanish with this lease.")
@_if_match_option
@click.option(
    "--create-only",
    "--if-none-match",
    is_flag=True,
    help="Only if the key is absent; else exit with 4.",
)
@_prev
@with_options(WRITE_OPTIONS)
@client_options
def put_command(
    session: Session,
    *,
    key: str,
    value: str | None,
    ttl: float | None,
    lease: str | None,
    if_match: IfMatch | None,
    create_only: bool,
    prev: bool,
    fence: Fence | None,
    idempotency_key: str | None,
) -> None:
    """Store VALUE under KEY.

    Without VALUE, or with "-", the value is read from standard input, byte for byte.
    """
    if create_only and if_match is not None:
        raise click.UsageError("--create-only and --if-match contradict each other")
    if ttl is not None and lease is not None:
        raise click.UsageError("--ttl and --lease contradict each other")
    data = _value_bytes(value)

    async def call(client: Client) -> Written:
        return await client.put(
            bytes_of(key),
            data,
            if_match=if_match,
            create_only=create_only,
            prev=prev,
            ttl_seconds=ttl,
            lease=lease,
            fence=fence,
            idempotency_key=idempotency_key,
        )

    _print_written(key, session.run(call), session.form, with_prev=prev)


@click.command("append")
@_key
@_value
@_if_match_option
@_prev
@with_options(WRITE_OPTIONS)
@client_options
def append_command(
    session: Session,
    *,
    key: str,
    value: str | None,
    if_match: IfMatch | None,
    prev: bool,
    fence: Fence | None,
    idempotency_key: str | None,
) -> None:
    """Append VALUE to what is stored under KEY, creating it if it is absent.

    Without VALUE, or with "-", it is read from standard input, byte for byte.
    """
    data = _value_bytes(value)

    async def call(client: Client) -> Written:
        return await client.append(
            bytes_of(key),
            data,
            if_match=if_match,
            prev=prev,
            fence=fence,
            idempotency_key=idempotency_key,
        )

    _print_written(key, session.run(call), session.form, with_prev=prev)


@click.command("get")
@_key
@with_options(READ_OPTIONS)
@client_options
def get_command(
    session: Session,
    *,
    key: str,
    consistency: Consistency,
    max_stale: float | None,
    min_revision: int | None,
    revision: int | None,
) -> None:
    """Print the value of KEY; exit with 3 if there is none.

    Into a pipe or file go the bytes of the value and nothing else.
    """

    async def call(client: Client) -> Item | None:
        return await client.get(
            bytes_of(key),
            consistency=consistency,
            max_stale_seconds=max_stale,
            min_revision=min_revision or 0,
            revision=revision or 0,
        )

    item = session.run(call)
    if item is None:
        raise AbsentError(f"there is no key {key!r}")
    match session.form:
        case Form.RAW:
            print_raw(item.value)
        case Form.JSON:
            print_json(item_fields(item) | {"revision": item.revision})
        case Form.TABLE:
            table = Table("key", "value", "revision", "version")
            row = (printable(item.key), printable(item.value))
            table.add_row(*row, str(item.mod_revision), str(item.version))
            Console().print(table)


@click.command("incr")
@_key
@click.option("--by", type=int, default=1, show_default=True, metavar="N", help="What to add.")
@_if_match_option
@with_options(WRITE_OPTIONS)
@client_options
def incr_command(
    session: Session,
    *,
    key: str,
    by: int,
    if_match: IfMatch | None,
    fence: Fence | None,
    idempotency_key: str | None,
) -> None:
    """Add to the number under KEY, which is 0 if there is none, and print the sum."""

    async def call(client: Client) -> int:
        return await client.increment(
            bytes_of(key), by, if_match=if_match, fence=fence, idempotency_key=idempotency_key
        )

    total = session.run(call)
    if session.form is Form.JSON:
        print_json({**text_fields("key", bytes_of(key)), "value": total})
    else:
        click.echo(total)


@click.command("del")
@click.argument("key", required=False)
@click.option("--prefix", help="Instead of KEY: remove all keys that begin with this.")
@click.option("--all", "all_keys", is_flag=True, help="Instead of KEY: remove every key.")
@_if_match_option
@_prev
@with_options(WRITE_OPTIONS)
@client_options
def del_command(
    session: Session,
    *,
    key: str | None,
    prefix: str | None,
    all_keys: bool,
    if_match: IfMatch | None,
    prev: bool,
    fence: Fence | None,
    idempotency_key: str | None,
) -> None:
    """Remove KEY; exit with 3 if there was none.

    With --prefix or --all up to 10,000 keys are removed at once, or none.
    """
    if (key is not None) + bool(prefix) + all_keys != 1:
        raise click.UsageError("give one of KEY, --prefix and --all")
    if key is None and (if_match is not None or prev):
        raise click.UsageError("--if-match and --prev are for one KEY")

    async def call(client: Client) -> Deleted:
        if key is None:
            return await client.delete_range(
                bytes_of(prefix or ""),
                all_keys=all_keys,
                fence=fence,
                idempotency_key=idempotency_key,
            )
        return await client.delete(
            bytes_of(key),
            if_match=if_match,
            prev=prev,
            fence=fence,
            idempotency_key=idempotency_key,
        )

    deleted = session.run(call)
    _print_deleted(key, deleted, session.form, with_prev=prev)
    if key is not None and not deleted.deleted:
        raise AbsentError(f"there is no key {key!r}")


def _value_bytes(value: str | None) -> bytes:
    if value is not None and value != "-":
        return bytes_of(value)
    if value is None and sys.stdin.isatty():
        raise click.UsageError("give a VALUE, or - to type it and end with Ctrl-D")
    return sys.stdin.buffer.read()


def _prev_fields(prev: Item | None, *, wanted: bool) -> dict[str, object]:
    if not wanted:
        return {}
    return {"prev": None if prev is None else item_fields(prev)}


def _print_prev(prev: Item | None) -> None:
    if prev is not None:
        Console().print("before:", printable(prev.value))


def _print_written(key: str, written: Written, form: Form, *, with_prev: bool) -> None:
    match form:
        case Form.JSON:
            fields: dict[str, object] = {**text_fields("key", bytes_of(key))}
            fields |= {"revision": written.revision, "version": written.version}
            print_json(fields | _prev_fields(written.prev, wanted=with_prev))
        case Form.RAW if with_prev:
            print_raw(b"" if written.prev is None else written.prev.value)
        case Form.RAW:
            click.echo(written.revision)
        case Form.TABLE:
            what = "created" if written.version == 1 else "stored"
            click.echo(f"{what} {key!r} at revision {written.revision}")
            _print_prev(written.prev)


def _print_deleted(key: str | None, deleted: Deleted, form: Form, *, with_prev: bool) -> None:
    match form:
        case Form.JSON:
            fields: dict[str, object] = {"deleted": deleted.deleted, "revision": deleted.revision}
            print_json(fields | _prev_fields(deleted.prev, wanted=with_prev))
        case Form.RAW if with_prev:
            print_raw(b"" if deleted.prev is None else deleted.prev.value)
        case Form.RAW:
            click.echo(deleted.deleted)
        case Form.TABLE if key is None:
            click.echo(f"deleted {deleted.deleted} keys at revision {deleted.revision}")
        case Form.TABLE if deleted.deleted:
            click.echo(f"deleted {key!r} at revision {deleted.revision}")
            _print_prev(deleted.prev)
        case Form.TABLE:
            pass
