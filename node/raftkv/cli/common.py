"""What the client commands share: options, opening a client, and errors as exit codes."""

import asyncio
import os
import ssl as ssl_module
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Final, TypeVar

import click

from raftkv.client import (
    AccessError,
    Client,
    ClientError,
    ConditionFailedError,
    Fence,
    LockHeldError,
    NotFoundError,
    UnreachableError,
    ssl_context,
)
from raftkv.client.wire import parse_duration, parse_endpoint

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

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


class AbsentError(CommandError):
    """The key, lease or lock is absent."""

    exit_code = 3


class ConditionError(CommandError):
    """A condition does not hold, or a lock is held by somebody else."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Session:
    """What the options of every client command say."""

    endpoints: tuple[str, ...]
    timeout_seconds: float
    form: Form
    token: str | None = None
    ssl: ssl_module.SSLContext | None = None

    def client(self, *, prefer_leader: bool = False) -> Client:
        """A client that is not open yet; a single command does not look for the leader."""
        return Client(
            self.endpoints,
            token=self.token,
            ssl=self.ssl,
            timeout_seconds=self.timeout_seconds,
            prefer_leader=prefer_leader,
            fail_fast=True,
        )

    def run(
        self, call: Callable[[Client], Awaitable[Result]], *, prefer_leader: bool = False
    ) -> Result:
        """The result of ``call`` with an open client; a failed call ends the command."""

        async def with_client() -> Result:
            async with self.client(prefer_leader=prefer_leader) as client:
                return await call(client)

        try:
            return asyncio.run(with_client())
        except ClientError as error:
            raise self.command_error(error) from None

    def command_error(self, error: ClientError) -> CommandError:
        """What a failed call means for the command: a sentence, and an exit code."""
        match error:
            case ConditionFailedError(code="condition_failed"):
                return ConditionError(f"the condition does not hold: {error}")
            case ConditionFailedError() | LockHeldError():
                return ConditionError(str(error))
            case NotFoundError():
                return AbsentError(str(error))
            case AccessError(status=401):
                return CommandError(f"{error}\nGive a token with --token-file or RAFTKV_TOKEN.")
            case UnreachableError():
                return CommandError(f"{error}{self.hint()}")
            case _:
                return CommandError(str(error))

    def hint(self) -> str:
        """What to add when nothing answers: somebody new may not know where it looked."""
        if self.endpoints != _LOCAL_ENDPOINTS:
            return ""
        return "\nStart a cluster here with `raftkv local`, or name a node with --endpoint."


def client_options(command: Command) -> Command:
    """Add --endpoint, --timeout, --output and the options of access; they become a `Session`.

    The innermost decorator: other parameters reach the command as keywords.
    """

    @wraps(command)
    def with_session(
        *,
        endpoints: tuple[str, ...],
        timeout: float,
        form: Form,
        token: str | None,
        token_file: Path | None,
        cacert: Path | None,
        cert: Path | None,
        key_file: Path | None,
        **others: object,
    ) -> None:
        session = Session(
            endpoints, timeout, form, _token(token, token_file), _ssl(cacert, cert, key_file)
        )
        command(session, **others)

    decorated: Command = with_session
    for option in _CLIENT_OPTIONS:
        decorated = option(decorated)
    return decorated


class Duration(click.ParamType[float]):
    """A time such as 500ms, 30s or 1m30s, as seconds."""

    name = "TIME"

    @override
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Called by click."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class FenceType(click.ParamType[Fence]):
    """NAME:TOKEN of a lock."""

    name = "NAME:TOKEN"

    @override
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fence:
        """Called by click."""
        if isinstance(value, Fence):
            return value
        name, colon, token = str(value).rpartition(":")
        if not (name and colon and token.isascii() and token.isdigit()):
            self.fail(f"{value!r} is not NAME:TOKEN, such as jobs:42", param, ctx)
        return Fence(name, int(token))


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


def _token(token: str | None, token_file: Path | None) -> str | None:
    """The token of --token, RAFTKV_TOKEN or --token-file: its first line."""
    if token_file is not None:
        try:
            lines = token_file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(f"cannot read the token file: {error}") from None
        token = lines[0].strip() if lines else ""
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise click.BadParameter("a token is one line of printable ASCII")
    return token


def _ssl(cacert: Path | None, cert: Path | None, key: Path | None) -> ssl_module.SSLContext | None:
    if cacert is None and cert is None and key is None:
        return None
    try:
        return ssl_context(cacert=cacert, cert=cert, key=key)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)

# The last comes first in --help.
_CLIENT_OPTIONS: Final = (
    click.option(
        "--key",
        "key_file",
        type=_FILE,
        envvar="RAFTKV_KEY",
        help="The private key of --cert, if it is not in the same file.  [env: RAFTKV_KEY]",
    ),
    click.option(
        "--cert",
        type=_FILE,
        envvar="RAFTKV_CERT",
        help="This client's certificate (PEM), for nodes that ask for one.  [env: RAFTKV_CERT]",
    ),
    click.option(
        "--cacert",
        type=_FILE,
        envvar="RAFTKV_CACERT",
        help="Trust https nodes whose certificates come from this authority (PEM)."
        "  [env: RAFTKV_CACERT; default: the system's authorities]",
    ),
    click.option(
        "--token-file",
        type=_FILE,
        envvar="RAFTKV_TOKEN_FILE",
        help="Read the token from the first line of this file.  [env: RAFTKV_TOKEN_FILE]",
    ),
    click.option(
        "--token",
        envvar="RAFTKV_TOKEN",
        metavar="TOKEN",
        help="The access token. Better in the environment than here, where other users of"
        " this machine can see it.  [env: RAFTKV_TOKEN]",
    ),
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

#: The names of the parameters that `client_options` adds.
CLIENT_PARAMETERS: Final = frozenset(
    {"form", "timeout", "endpoints", "token", "token_file", "cacert", "cert", "key_file"}
)
