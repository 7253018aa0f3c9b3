"""`raftkv status`: what each node says of itself."""

import asyncio
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raftkv.cli.common import CommandError, Form, Session, client_options
from raftkv.cli.printing import print_json
from raftkv.client import Client, ClientError
from raftkv.client.model import JsonObject

_COLUMNS: Final = {
    "name": "node",
    "state": "state",
    "role": "role",
    "term": "term",
    "leader_name": "leader",
    "commit_index": "commit",
    "applied_index": "applied",
    "last_log_index": "log",
    "revision": "revision",
}


@click.command("status")
@client_options
def status_command(session: Session) -> None:
    """Show role, term, leader and log positions of each node.

    Exits with 1 when no node answers.
    """

    async def call(client: Client) -> list[JsonObject]:
        return await asyncio.gather(
            *(_status(client, index) for index in range(len(client.endpoints)))
        )

    answers = session.run(call)
    match session.form:
        case Form.JSON:
            print_json(answers)
        case Form.RAW:
            for answer in answers:
                fields = [answer["endpoint"], *(answer.get(name) for name in _COLUMNS)]
                click.echo("\t".join("-" if field is None else str(field) for field in fields))
        case Form.TABLE:
            Console().print(_table(answers))
    if all("error" in answer for answer in answers):
        raise CommandError(f"{answers[0]['error']}{session.hint()}")


async def _status(client: Client, index: int) -> JsonObject:
    endpoint = client.endpoints[index]
    named: JsonObject = {"endpoint": str(endpoint.origin())}
    try:
        return named | await client.status(endpoint)
    except ClientError as error:
        return named | {"error": str(error)}


def _table(answers: list[JsonObject]) -> Table:
    # Narrow: nine columns are to fit into 80 characters.
    table = Table("endpoint", *_COLUMNS.values(), box=None, padding=(0, 1, 0, 0))
    for answer in answers:
        endpoint = str(answer["endpoint"]).removeprefix("http://")
        if "error" in answer:
            table.add_row(Text(endpoint), Text("-"), Text("no answer", style="red"))
            continue
        cells = [endpoint, *(answer.get(name) for name in _COLUMNS)]
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in cells))
    return table
