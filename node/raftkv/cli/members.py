"""`raftkv members` and `raftkv transfer`: who belongs to the cluster, and who leads it."""

import re
from collections.abc import Awaitable, Callable

import click

from raftkv.cli.common import AbsentError, CommandError, Form, Session, client_options
from raftkv.cli.printing import print_answer, print_json, print_rows, print_table
from raftkv.client import Client, Member
from raftkv.client.model import JsonObject

_ID = re.compile(r"[0-9a-f]{16}")

_if_config = click.option(
    "--if-config",
    "config_index",
    type=click.IntRange(min=0),
    metavar="INDEX",
    help="Only if the configuration is still this one (`config_index` of `raftkv members list"
    " -o json`); else exit with 4.",
)


@click.group("members")
def members_group() -> None:
    """Show and change who belongs to the cluster.

    A new node is a learner first: it gets everything and has no vote. Once it has caught up,
    promote it, or let it take the place of a voter that is gone. One change at a time; what
    would endanger the cluster is refused with the reason.

    \b
        raftkv members list
        raftkv members add 4d1c...e7 --name n4 --peer-url 10.0.0.4:7401 \\
            --client-url http://10.0.0.4:7400
        raftkv members replace n2 --by n4

    MEMBER is a name or an id.
    """  # noqa: D301 click wants the character


@members_group.command("list")
@client_options
def list_command(session: Session) -> None:
    """Show the members; how far behind each is, only the leader knows."""

    async def call(client: Client) -> JsonObject:
        return await client.cluster()

    async def find(client: Client) -> list[Member]:
        return await client.members()

    if session.form is Form.JSON:
        print_json(session.run(call))
        return
    rows: list[tuple[object, ...]] = [
        (
            member.name,
            member.id,
            member.role if member.voter else "learner",
            member.match_index,
            member.lag_entries,
            member.healthy,
            member.client_url,
            member.peer_url,
        )
        for member in session.run(find)
    ]
    if session.form is Form.RAW:
        print_rows(rows)
    else:
        print_table(("name", "id", "role", "match", "lag", "healthy", "clients", "peers"), rows)


@members_group.command("add")
@click.argument("member_id", metavar="ID")
@click.option("--name", required=True, help="Letters, digits and . _ -")
@click.option("--peer-url", required=True, metavar="HOST:PORT", help="Where its peers reach it.")
@click.option("--client-url", required=True, metavar="URL", help="Where clients reach it.")
@click.option("--promote", is_flag=True, help="Let it vote by itself once it has caught up.")
@_if_config
@client_options
def add_command(
    session: Session,
    *,
    member_id: str,
    name: str,
    peer_url: str,
    client_url: str,
    promote: bool,
    config_index: int | None,
) -> None:
    """Add the node with this ID as a learner.

    Start it first, without --peers and with an empty --data; ID is the `member_id` that
    `raftkv status --endpoint ITS_URL -o json` shows.
    """

    async def call(client: Client) -> JsonObject:
        return await client.add_member(
            member_id,
            name=name,
            peer_url=peer_url,
            client_url=client_url,
            promote=promote,
            config_index=config_index,
        )

    _print_change(session, call, f"added {name} as a learner")


@members_group.command("promote")
@click.argument("member")
@_if_config
@client_options
def promote_command(session: Session, *, member: str, config_index: int | None) -> None:
    """Give a learner that has caught up its vote."""

    async def call(client: Client) -> JsonObject:
        return await client.promote_member(await _id(client, member), config_index=config_index)

    _print_change(session, call, f"promoted {member}")


@members_group.command("replace")
@click.argument("member")
@click.option("--by", required=True, metavar="LEARNER", help="Who takes its place.")
@_if_config
@client_options
def replace_command(session: Session, *, member: str, by: str, config_index: int | None) -> None:
    """Let a learner that has caught up take the place of a voter, in one step."""

    async def call(client: Client) -> JsonObject:
        old, new = await _id(client, member), await _id(client, by)
        return await client.replace_member(old, by=new, config_index=config_index)

    _print_change(session, call, f"replaced {member} by {by}")


@members_group.command("remove")
@click.argument("member")
@_if_config
@client_options
def remove_command(session: Session, *, member: str, config_index: int | None) -> None:
    """Remove a member; its id never comes back."""

    async def call(client: Client) -> JsonObject:
        return await client.remove_member(await _id(client, member), config_index=config_index)

    _print_change(session, call, f"removed {member}")


@click.command("transfer")
@click.argument("member", required=False)
@client_options
def transfer_command(session: Session, *, member: str | None) -> None:
    """Hand leadership to MEMBER (a name or an id; default: the most caught-up voter)."""

    async def call(client: Client) -> JsonObject:
        return await client.transfer_leader(None if member is None else await _id(client, member))

    _print_change(session, call, "leadership was handed over")


async def _id(client: Client, member: str) -> str:
    """The id of a member by its name or id; a name that several have is refused."""
    if _ID.fullmatch(member):
        return member
    found = [each for each in await client.members() if each.name == member]
    if not found:
        raise AbsentError(f"there is no member {member!r}; see `raftkv members list`")
    if len(found) > 1:
        ids = ", ".join(each.id for each in found)
        raise CommandError(f"several members are called {member!r}; give one of the ids {ids}")
    return found[0].id


def _print_change(
    session: Session, call: Callable[[Client], Awaitable[JsonObject]], done: str
) -> None:
    print_answer(session.form, session.run(call), done)
