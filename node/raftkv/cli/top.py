"""`raftkv top`: the cluster, live, in a terminal.

One node is asked every second, which asks the others while somebody looks. When it does not answer
any more, the other endpoints are asked, and the addresses that the members advertise.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import click
from yarl import URL

from raftkv.cli.cluster_view import (
    ROLES,
    Event,
    Json,
    Row,
    differences,
    elections_of,
    merged,
    rows_of,
    summary_of,
)
from raftkv.cli.common import CommandError, Form, Session, client_options, is_terminal
from raftkv.cli.printing import print_json, print_rows, print_table
from raftkv.client import Client, ClientError
from raftkv.client.wire import parse_endpoint

# What a node is given to answer one look.
_ANSWER_SECONDS_MAX: Final = 1.5
# Between the two looks of --once: the members answer in between.
_ANSWERS_SECONDS: Final = 0.4

HEADER: Final = (
    "member", "role", "term", "last", "on disk", "match", "commit", "applied", "behind", "heard",
    "",
)  # fmt: skip


class Look(NamedTuple):
    """What one node said of the cluster."""

    cluster: Json
    status: Json
    endpoint: URL


#: Asks whoever answers. Raises ClientError if nobody does.
Looker = Callable[[], Awaitable[Look]]


class Watcher:
    """Looks at the cluster through one node after the other."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._last: URL | None = None
        self._others: list[URL] = []  # what members advertise

    async def look(self) -> Look:
        """What the node that answered last says, else the first of all others."""
        if self._last is not None:
            try:
                return await self._ask(self._last)
            except ClientError:
                self._last = None
        known = dict.fromkeys([*self._client.endpoints, *self._others])
        asked = [asyncio.ensure_future(self._ask(endpoint)) for endpoint in known]
        error: ClientError | None = None
        try:
            for answered in asyncio.as_completed(asked):
                try:
                    return await answered
                except ClientError as caught:
                    error = error or caught
        finally:
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        assert error is not None
        raise error

    async def _ask(self, endpoint: URL) -> Look:
        cluster: Json
        status: Json
        cluster, status = await asyncio.gather(
            self._client.cluster(endpoint), self._client.status(endpoint)
        )
        self._last = endpoint
        self._others = []
        for member in cluster["members"]:
            try:
                self._others.append(parse_endpoint(member["client_url"]))
            except ValueError:
                continue  # a member may advertise what this client cannot reach
        return Look(cluster, status, endpoint)


@click.command("top")
@click.option(
    "--once", is_flag=True, help="Print one table and end; so it does without a terminal."
)
@click.option(
    "--interval",
    "interval_seconds",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@client_options
def top_command(session: Session, *, once: bool, interval_seconds: float) -> None:
    """Watch members, roles, log positions and elections.

    \b
    q          end
    s, r       sort by the next column, turn the order
    up, down   go through the members; Tab goes to the events and back
    p          pause
    d          dark or light
    """  # noqa: D301 click wants the character
    if once or session.form is not Form.TABLE or not is_terminal():
        _print_once(session)
        return
    # Imported here: it takes longer than most commands.
    from raftkv.cli.top_app import Top  # noqa: PLC0415

    async def run() -> None:
        async with _client(session) as client:
            await Top(Watcher(client).look, interval_seconds=interval_seconds).run_async()

    asyncio.run(run())


def _client(session: Session) -> Client:
    return Client(
        session.endpoints,
        token=session.token,
        ssl=session.ssl,
        timeout_seconds=min(session.timeout_seconds, _ANSWER_SECONDS_MAX),
        fail_fast=True,
    )


def _print_once(session: Session) -> None:
    async def look_twice() -> Look:
        async with _client(session) as client:
            watcher = Watcher(client)
            await watcher.look()
            # The first look makes the node ask the others.
            await asyncio.sleep(_ANSWERS_SECONDS)
            return await watcher.look()

    try:
        look = asyncio.run(look_twice())
    except ClientError as error:
        raise session.command_error(error) from None
    if not look.cluster["members"]:
        raise CommandError(f"{look.endpoint.origin()} belongs to no cluster yet")
    rows = rows_of(look.cluster)
    match session.form:
        case Form.JSON:
            print_json([row._asdict() for row in rows])
        case Form.RAW:
            print_rows([cells(row) for row in rows])
        case Form.TABLE:
            click.echo(summary_of(look.cluster, rows).text)
            print_table(HEADER, [cells(row) for row in rows])


def cells(row: Row) -> tuple[object, ...]:
    """A row as it is printed."""
    heard = row.heard_seconds
    age = None if heard is None else "now" if heard < 1 else f"{heard:.0f} s ago"
    return (
        row.name, ROLES.get(row.role, row.role), row.term, row.last, row.durable, row.match,
        row.commit, row.applied, row.lag, age, row.note,
    )  # fmt: skip


class Story:
    """What was seen so far: the rows, and the events until now."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.events: list[Event] = []
        self._teller: str | None = None

    def tell(self, look: Look, now: float | None = None) -> None:
        """Add what a look shows; ``now`` is for tests."""
        now = time.time() if now is None else now
        rows = rows_of(look.cluster)
        name = look.status["name"]
        more = elections_of(look.cluster, name, now)
        if self._teller is not None:
            more += differences(self.rows, rows, now)
            if name != self._teller:
                more.append(Event(now, f"{self._teller} does not answer here: asking {name}"))
        self._teller = name
        self.rows = rows
        self.events = merged(self.events, more)
