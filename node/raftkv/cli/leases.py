"""`raftkv lease`: keys that vanish together."""

import asyncio

import click

from raftkv.cli.common import AbsentError, Duration, Form, Session, client_options
from raftkv.cli.printing import (
    print_answer,
    print_json,
    print_listing,
    print_raw,
    print_table,
    text_fields,
)
from raftkv.client import Client, LeaseInfo


@click.group("lease")
def lease_group() -> None:
    """Keys that vanish together when nobody keeps their lease alive.

    \b
        ID=$(raftkv lease grant 30s)
        raftkv put workers/a ready --lease $ID
        raftkv lease keepalive $ID --forever
    """  # noqa: D301 click wants the character


@lease_group.command("grant")
@click.argument("ttl", type=Duration())
@client_options
def grant_command(session: Session, *, ttl: float) -> None:
    """Make a lease that lives for TTL, such as 30s, and print its id."""

    async def call(client: Client) -> LeaseInfo:
        return await client.grant_lease(ttl)

    lease = session.run(call)
    granted = f"granted lease {lease.id} for {lease.ttl_seconds:g} s"
    print_answer(session.form, _fields(lease), granted, pipe=lease.id)


@lease_group.command("list")
@client_options
def list_command(session: Session) -> None:
    """Show all leases."""

    async def call(client: Client) -> list[LeaseInfo]:
        return await client.list_leases()

    leases = session.run(call)
    rows: list[tuple[object, ...]] = [
        (lease.id, lease.ttl_seconds, lease.remaining_seconds) for lease in leases
    ]
    header = ("lease", "ttl (s)", "remaining (s)")
    print_listing(session.form, [_fields(lease) for lease in leases], header, rows)


@lease_group.command("show")
@click.argument("lease_id", metavar="ID")
@client_options
def show_command(session: Session, *, lease_id: str) -> None:
    """Show a lease and its keys; exit with 3 if it has ended.

    Into a pipe goes one key a line.
    """

    async def call(client: Client) -> LeaseInfo | None:
        return await client.get_lease(lease_id)

    lease = session.run(call)
    if lease is None:
        raise AbsentError(f"there is no lease {lease_id}")
    match session.form:
        case Form.JSON:
            print_json(_fields(lease) | {"keys": [text_fields("key", key) for key in lease.keys]})
        case Form.RAW:
            for key in lease.keys:
                print_raw(key + b"\n")
        case Form.TABLE:
            left = (
                "" if lease.remaining_seconds is None else f", {lease.remaining_seconds:g} s left"
            )
            click.echo(f"lease {lease.id}: {lease.ttl_seconds:g} s{left}")
            print_table(("key",), [(key,) for key in lease.keys])


@lease_group.command("keepalive")
@click.argument("lease_id", metavar="ID")
@click.option("--forever", is_flag=True, help="Go on until Ctrl-C, or until the lease has ended.")
@client_options
def keepalive_command(session: Session, *, lease_id: str, forever: bool) -> None:
    """Begin the life of a lease anew; exit with 3 if it has ended."""

    async def call(client: Client) -> LeaseInfo:
        while True:
            lease = await client.keep_lease_alive(lease_id)
            if not forever:
                return lease
            await asyncio.sleep(lease.ttl_seconds / 3)

    try:
        lease = session.run(call)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    seconds = f"{lease.ttl_seconds:g}"
    renewed = f"lease {lease.id} lives for {seconds} s from now"
    print_answer(session.form, _fields(lease), renewed, pipe=seconds)


@lease_group.command("revoke")
@click.argument("lease_id", metavar="ID")
@client_options
def revoke_command(session: Session, *, lease_id: str) -> None:
    """End a lease now: its keys vanish. Exits with 3 if it had ended."""

    async def call(client: Client) -> None:
        await client.revoke_lease(lease_id)

    session.run(call)
    print_answer(session.form, {"id": lease_id, "revoked": True}, f"revoked lease {lease_id}")


def _fields(lease: LeaseInfo) -> dict[str, object]:
    return {
        "id": lease.id,
        "ttl_seconds": lease.ttl_seconds,
        "remaining_seconds": lease.remaining_seconds,
    }
