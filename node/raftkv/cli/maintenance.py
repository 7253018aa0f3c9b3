"""`raftkv backup`, `snapshot` and `compact`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from raftkv.cli.common import CommandError, Form, Session, client_options
from raftkv.cli.printing import print_answer, print_listing
from raftkv.client import Backup, Client, ClientError
from raftkv.client.model import JsonObject


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@client_options
def backup_command(session: Session, *, file: Path, force: bool) -> None:
    """Write a backup of the whole store, as it is at one revision, to FILE (- for a pipe).

    The checksum is verified at the end; FILE appears only when it is whole and on disk.
    `raftkv restore` makes a cluster from it.
    """
    to_pipe = str(file) == "-"
    if not to_pipe and file.exists() and not force:
        raise click.UsageError(f"{file} exists; give --force to replace it")
    if to_pipe and sys.stdout.isatty():
        raise click.UsageError("a backup is not for a terminal: give a FILE")
    part = file.with_name(f"{file.name}.part")

    async def call(client: Client) -> tuple[int, int]:
        async with client.backup() as backup:
            if to_pipe:
                return await _save(backup, sys.stdout.buffer, session), backup.revision
            with part.open("wb") as target:
                size_bytes = await _save(backup, target, session)
                await asyncio.to_thread(os.fsync, target.fileno())
            return size_bytes, backup.revision

    try:
        size_bytes, revision = session.run(call)
        if not to_pipe:
            part.replace(file)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {os.strerror(error.errno or 0)}") from None
    finally:
        if not to_pipe:
            part.unlink(missing_ok=True)
    if to_pipe:
        return
    fields = {"file": str(file), "size_bytes": size_bytes, "revision": revision}
    done = f"{file}: {size_bytes} bytes, revision {revision}, checksum verified"
    print_answer(session.form, fields, done)


async def _save(backup: Backup, target: BinaryIO, session: Session) -> int:
    """Write all of a backup to ``target``; how many bytes it had."""
    columns = (TextColumn("backup"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    is_silent = session.form is not Form.TABLE or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=is_silent) as progress:
        task = progress.add_task("backup", total=backup.size_bytes)
        size_bytes = 0
        chunks: AsyncIterator[bytes] = aiter(backup)
        async for chunk in chunks:
            target.write(chunk)
            size_bytes += len(chunk)
            progress.update(task, completed=size_bytes)
    target.flush()
    return size_bytes


@click.command("snapshot")
@client_options
def snapshot_command(session: Session) -> None:
    """Let each node write a snapshot of its state to its disk, so that its log can be cut.

    Nodes do that by themselves; this is for before maintenance. Exits with 1 if no node did.
    """

    async def call(client: Client) -> list[JsonObject]:
        async def ask(index: int) -> JsonObject:
            endpoint = client.endpoints[index]
            named: JsonObject = {"endpoint": str(endpoint.origin())}
            try:
                return named | await client.snapshot(endpoint)
            except ClientError as error:
                return named | {"error": str(error)}

        return await asyncio.gather(*(ask(index) for index in range(len(client.endpoints))))

    answers = session.run(call)
    names = ("endpoint", "index", "revision", "size_bytes", "error")
    rows: list[tuple[object, ...]] = [
        tuple(answer.get(name) for name in names) for answer in answers
    ]
    header = ("endpoint", "log index", "revision", "bytes", "error")
    print_listing(session.form, answers, header, rows)
    if all("error" in answer for answer in answers):
        raise CommandError(f"{answers[0]['error']}{session.hint()}")


@click.command("compact")
@click.argument("revision", type=click.IntRange(min=1))
@client_options
def compact_command(session: Session, *, revision: int) -> None:
    """Forget the history before REVISION; what is stored now stays.

    The cluster does that by itself for what is older than --history-keep of its nodes.
    """

    async def call(client: Client) -> JsonObject:
        return await client.compact(revision)

    answer = session.run(call)
    print_answer(session.form, answer, f"no history from before revision {revision} is left")
