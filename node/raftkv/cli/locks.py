"""`raftkv lock`: run a command while holding a lock, and look at locks."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Final

import click

from raftkv.cli.common import (
    AbsentError,
    CommandError,
    Duration,
    Form,
    Session,
    bytes_of,
    client_options,
)
from raftkv.cli.printing import print_answer, print_json, print_listing, text_fields
from raftkv.client import Client, Lock, LockInfo

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

# Between asking a command to end, as its lock is lost, and ending it.
_GRACE_SECONDS: Final = 1.0


class LockGroup(click.Group):
    """`lock NAME -- command` is short for `lock run NAME -- command`."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Called by click."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


_ttl = click.option(
    "--ttl",
    type=Duration(),
    default="10s",
    show_default=True,
    help="How long others wait when the holder dies.",
)
_owner = click.option(
    "--owner",
    help="Who asks; the same owner gets the same lock again.  [default: a random name]",
)


@click.group("lock", cls=LockGroup)
def lock_group() -> None:
    """Run a command while nobody else holds the lock NAME.

    \b
        raftkv lock nightly-report -- ./report.sh
        raftkv lock list

    `raftkv lock NAME -- COMMAND` is short for `raftkv lock run NAME -- COMMAND`. A lock called
    like one of the commands below needs the long form.
    """  # noqa: D301 click wants the character


@lock_group.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--wait",
    type=Duration(),
    help="For the holder before; exit with 4 after it.  [default: for ever]",
)
@_ttl
@_owner
@client_options
def run_command(
    session: Session,
    *,
    name: str,
    command: tuple[str, ...],
    wait: float | None,
    ttl: float,
    owner: str | None,
) -> None:
    """Take the lock NAME, run COMMAND, release the lock; exit as COMMAND does.

    COMMAND finds RAFTKV_LOCK_NAME and RAFTKV_LOCK_TOKEN in its environment, and RAFTKV_FENCE,
    which makes `raftkv put`, `append`, `incr`, `del` and `txn` fail once the lock is lost.

    If the lock is lost (nodes could not be reached for as long as it lives), COMMAND gets
    SIGTERM, and SIGKILL 1 s later. Only fenced writes are safe: a command that is paused may
    wake up and go on when another holds the lock.
    """

    async def call(client: Client) -> int:
        async with client.lock(
            name, ttl, wait_seconds=wait, owner=owner, cancel_on_loss=False
        ) as lock:
            code = await _run(lock, command)
        if lock.is_lost:
            raise CommandError(f"the lock {name!r} was lost, and the command was stopped")
        return code

    raise SystemExit(session.run(call, prefer_leader=True))


@lock_group.command("acquire")
@click.argument("name")
@click.option(
    "--wait",
    type=Duration(),
    default=0.0,
    help="For the holder before; exit with 4 after it.  [default: not at all]",
)
@_ttl
@_owner
@client_options
def acquire_command(
    session: Session, *, name: str, wait: float, ttl: float, owner: str | None
) -> None:
    """Take a lock and print its token; nobody keeps it alive beyond its --ttl.

    \b
        TOKEN=$(raftkv lock acquire jobs --ttl 5m)
        raftkv put jobs/state busy --fence jobs:$TOKEN
        raftkv lock release jobs $TOKEN
    """  # noqa: D301 click wants the character

    async def call(client: Client) -> LockInfo:
        asks = owner or os.urandom(8).hex()
        return await client.acquire_lock(name, ttl, owner=asks, wait_seconds=wait)

    lock = session.run(call)
    holding = f"holding {name!r} for {lock.ttl_seconds:g} s, token {lock.token}"
    print_answer(session.form, _fields(lock), holding, pipe=lock.token)


@lock_group.command("keepalive")
@click.argument("name")
@click.argument("lock_token", metavar="TOKEN", type=click.IntRange(min=1))
@client_options
def keepalive_command(session: Session, *, name: str, lock_token: int) -> None:
    """Begin the life of a lock anew; exit with 4 if it is lost."""

    async def call(client: Client) -> LockInfo:
        return await client.keep_lock_alive(name, lock_token)

    lock = session.run(call)
    seconds = f"{lock.ttl_seconds:g}"
    renewed = f"holding {name!r} for {seconds} s from now"
    print_answer(session.form, _fields(lock), renewed, pipe=seconds)


@lock_group.command("release")
@click.argument("name")
@click.argument("lock_token", metavar="TOKEN", type=click.IntRange(min=1))
@client_options
def release_command(session: Session, *, name: str, lock_token: int) -> None:
    """Give a lock back; exit with 4 if it is not held under TOKEN."""

    async def call(client: Client) -> None:
        await client.release_lock(name, lock_token)

    session.run(call)
    fields = {"name": name, "token": lock_token, "released": True}
    print_answer(session.form, fields, f"released {name!r}")


@lock_group.command("list")
@client_options
def list_command(session: Session) -> None:
    """Show all locks that are held."""

    async def call(client: Client) -> list[LockInfo]:
        return await client.list_locks()

    _print_locks(session.run(call), session.form)


@lock_group.command("show")
@click.argument("name")
@client_options
def show_command(session: Session, *, name: str) -> None:
    """Show who holds a lock; exit with 3 if nobody does."""

    async def call(client: Client) -> LockInfo | None:
        return await client.get_lock(name)

    lock = session.run(call)
    if lock is None:
        raise AbsentError(f"nobody holds the lock {name!r}")
    if session.form is Form.JSON:
        print_json(_fields(lock))
    else:
        _print_locks([lock], session.form)


async def _run(lock: Lock, command: tuple[str, ...]) -> int:
    """The exit code of ``command``, which is ended if the lock is lost."""
    environment = os.environ | {
        "RAFTKV_LOCK_NAME": lock.name,
        "RAFTKV_LOCK_TOKEN": str(lock.token),
        "RAFTKV_FENCE": f"{lock.name}:{lock.token}",
    }
    loop = asyncio.get_running_loop()
    is_to_end = asyncio.Event()
    # A Ctrl-C at the terminal reaches the command too; what it makes of it is its answer.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, is_to_end.set)
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise CommandError(f"cannot run {command[0]!r}: {reason}") from None
    passing_on = asyncio.create_task(_pass_on(is_to_end, process))
    ended = asyncio.create_task(process.wait())
    lost = asyncio.create_task(lock.lost.wait())
    try:
        await asyncio.wait({ended, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            _signal(process, signal.SIGTERM)
            await asyncio.wait({ended}, timeout=_GRACE_SECONDS)
            _signal(process, signal.SIGKILL)
            await ended
    finally:
        lost.cancel()
        passing_on.cancel()
    code = ended.result()
    return code if code >= 0 else 128 - code


async def _pass_on(is_to_end: asyncio.Event, process: asyncio.subprocess.Process) -> None:
    """Hand every SIGTERM on."""
    while True:
        await is_to_end.wait()
        is_to_end.clear()
        _signal(process, signal.SIGTERM)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


def _fields(lock: LockInfo) -> dict[str, object]:
    return {
        **text_fields("name", bytes_of(lock.name)),
        "token": lock.token,
        **text_fields("owner", bytes_of(lock.owner)),
        "waiters": [text_fields("owner", bytes_of(waiter)) for waiter in lock.waiters],
        "lease": lock.lease,
        "ttl_seconds": lock.ttl_seconds,
        "remaining_seconds": lock.remaining_seconds,
    }


def _print_locks(locks: list[LockInfo], form: Form) -> None:
    rows: list[tuple[object, ...]] = [
        (
            bytes_of(lock.name),
            lock.token,
            bytes_of(lock.owner),
            lock.remaining_seconds,
            len(lock.waiters),
        )
        for lock in locks
    ]
    header = ("lock", "token", "owner", "remaining (s)", "waiting")
    print_listing(form, [_fields(lock) for lock in locks], header, rows)
