"""What the client commands share: options, opening a client, and errors as exit codes."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import Final, TypeVar

import click

from raftkv.client.errors import ClientError, ConditionFailedError, UnreachableError
from raftkv.client.http import KvClient, parse_endpoint

# Where `raftkv local` serves.
_LOCAL_ENDPOINTS: Final = (
    "http://127.0.0.1:7400",
    "http://127.0.0.1:7410",
    "http://127.0.0.1:7420",
)

Result = TypeVar("Result")
Command = Callable[..., None]


class Form(StrEnum):
    """How a result is printed."""

    TABLE = "table"  # for a person
    RAW = "raw"  # the bytes or numbers alone, for a pipe
    JSON = "json"  # for a program


class CommandError(click.ClickException):
    """Ends the command with one sentence on standard error."""

    exit_code = 1


class NotFoundError(CommandError):
    """The key is absent."""

    exit_code = 3


class ConditionError(CommandError):
    """--if-match or --create-only does not hold."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Session:
    """What the options of every client command say."""

    endpoints: tuple[str, ...]
    timeout_seconds: float
    form: Form

    def run(self, call: Callable[[KvClient], Awaitable[Result]]) -> Result:
        """The result of ``call`` with an open client; a failed call ends the command."""

        async def with_client() -> Result:
            async with KvClient(self.endpoints, timeout_seconds=self.timeout_seconds) as client:
                return await call(client)

        try:
            return asyncio.run(with_client())
        except ConditionFailedError as error:
            raise ConditionError(f"the condition does not hold: {error}") from None
        except UnreachableError as error:
            raise CommandError(f"{error}{self.hint()}") from None
        except ClientError as error:
            raise CommandError(str(error)) from None

    def hint(self) -> str:
        """What to add when nothing answers: somebody new may not know where it looked."""
        if self.endpoints != _LOCAL_ENDPOINTS:
            return ""
        return "\nStart a cluster here with `raftkv local`, or name a node with --endpoint."


def client_options(command: Command) -> Command:
    """Add --endpoint, --timeout and --output; the command gets them as its `Session`.

    The innermost decorator: other parameters reach the command as keywords.
    """

    @wraps(command)
    def with_session(
        *, endpoints: tuple[str, ...], timeout: float, form: Form, **others: object
    ) -> None:
        command(Session(endpoints, timeout, form), **others)

    decorated: Command = with_session
    for option in _CLIENT_OPTIONS:
        decorated = option(decorated)
    return decorated


def bytes_of(argument: str) -> bytes:
    """A command line argument as the bytes the shell handed over."""
    return os.fsencode(argument)


def is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def _form(value: str | None) -> Form:
    if value is not None:
        return Form(value)
    return Form.TABLE if is_terminal() else Form.RAW


def _endpoints(given: tuple[str, ...]) -> tuple[str, ...]:
    named = given or tuple(
        part.strip() for part in os.environ.get("RAFTKV_ENDPOINTS", "").split(",") if part.strip()
    )
    endpoints = named or _LOCAL_ENDPOINTS
    for endpoint in endpoints:
        try:
            parse_endpoint(endpoint)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return endpoints


_CLIENT_OPTIONS: Final = (
    click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice([form.value for form in Form]),
        callback=lambda _context, _option, value: _form(value),
        help="How to print the result.  [default: table on a terminal, raw into a pipe]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0.01, max=60.0),
        default=5.0,
        show_default=True,
        metavar="SECONDS",
        help="Give up after this time, with all retries.",
    ),
    click.option(
        "--endpoint",
        "endpoints",
        multiple=True,
        metavar="URL",
        callback=lambda _context, _option, value: _endpoints(value),
        help="A node to ask, such as http://10.0.0.7:7400. Give it more than once to name"
        " several; any of them will do.  [env: RAFTKV_ENDPOINTS, separated by commas]",
    ),
)
