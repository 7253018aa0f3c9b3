"""`raftkv txn`: a transaction from JSON or from a small language."""

import shlex
from collections.abc import Callable
from typing import BinaryIO, Final

import click

from raftkv.cli.common import ConditionError, Form, Session, bytes_of, client_options
from raftkv.cli.keys import WRITE_OPTIONS, with_options
from raftkv.cli.printing import item_fields, print_json, print_raw, printable
from raftkv.client import Client, Fence, Txn, TxnResult, compare, op
from raftkv.client.txn import (
    Compare,
    CounterResult,
    DeleteResult,
    GetResult,
    Op,
    OpResult,
    PutResult,
    Sign,
)

_REVISIONS: Final[dict[str, Callable[[bytes, Sign, int], Compare]]] = {
    "version": compare.version,
    "mod_revision": compare.mod_revision,
    "create_revision": compare.create_revision,
}


@click.command("txn")
@click.argument("file", type=click.File("rb"), default="-")
@with_options(WRITE_OPTIONS)
@client_options
def txn_command(
    session: Session, *, file: BinaryIO, fence: Fence | None, idempotency_key: str | None
) -> None:
    """Do several things at once, or none: FILE (default: standard input) says what.

    If all compares hold, the operations after `then` are done, else those after `else`; up to
    128, at one revision. Exits with 4 if a compare does not hold.

    \b
        raftkv txn <<'END'
        if value stock = 1
        if absent sold
        then delete stock
        then put sold 'ann and bob'
        else get sold
        END

    \b
    Compares:   if value KEY SIGN VALUE      SIGN is =, !=, < or >
                if version KEY SIGN N        also mod_revision, create_revision
                if lease KEY SIGN ID
                if exists KEY
                if absent KEY
    Operations: put KEY VALUE, get KEY, delete KEY, append KEY VALUE,
                increment KEY [N], delete_prefix PREFIX

    Words are split and quoted as in a shell; what follows # is left out. FILE may also be the
    JSON of the HTTP API: {"compare": [...], "success": [...], "failure": [...]}.
    """  # noqa: D301 click wants the character
    data = file.read()
    is_json = data.lstrip().startswith(b"{")
    if not is_json:
        check = Txn(Client(["localhost"]))
        _fill(check, data)

    async def call(client: Client) -> TxnResult:
        if is_json:
            return await client.commit_txn(data, fence, idempotency_key)
        txn = client.txn()
        _fill(txn, data)
        return await txn.commit(fence=fence, idempotency_key=idempotency_key)

    result = session.run(call)
    _print_result(result, session.form)
    if not result.succeeded:
        raise ConditionError("a compare does not hold: what is under `else` was done instead")


def _fill(txn: Txn, data: bytes) -> None:
    """Add what every line of ``data`` says; a wrong line is a usage error that names it."""
    number = 0
    count = 0
    try:
        lines = data.decode(errors="surrogateescape").splitlines()
        for number, line in enumerate(lines, start=1):  # noqa: B007 named in the error below
            words = shlex.split(line, comments=True)
            if words:
                _add(txn, words)
                count += 1
    except ValueError as error:
        raise click.UsageError(f"line {number}: {error}; see `raftkv txn --help`") from None
    if not count:
        raise click.UsageError("there is nothing to do; see `raftkv txn --help`")


def _add(txn: Txn, words: list[str]) -> None:
    match words[0]:
        case "if":
            txn.when(_compare(words[1:]))
        case "then":
            txn.then(_op(words[1:]))
        case "else":
            txn.otherwise(_op(words[1:]))
        case other:
            raise ValueError(f"{other!r} is neither if, then nor else")


def _compare(words: list[str]) -> Compare:
    match words:
        case ["exists", key]:
            return compare.exists(bytes_of(key))
        case ["absent", key]:
            return compare.absent(bytes_of(key))
        case ["value", key, sign, value]:
            return compare.value(bytes_of(key), _sign(sign), bytes_of(value))
        case ["lease", key, sign, lease]:
            return compare.lease(bytes_of(key), _sign(sign), lease)
        case [target, key, sign, number] if target in _REVISIONS:
            return _REVISIONS[target](bytes_of(key), _sign(sign), _number(number))
        case _:
            raise ValueError(f"{' '.join(words)!r} is not a compare")


def _op(words: list[str]) -> Op:
    match words:
        case ["put", key, value]:
            return op.put(bytes_of(key), bytes_of(value))
        case ["get", key]:
            return op.get(bytes_of(key))
        case ["delete" | "del", key]:
            return op.delete(bytes_of(key))
        case ["append", key, value]:
            return op.append(bytes_of(key), bytes_of(value))
        case ["increment" | "incr", key]:
            return op.increment(bytes_of(key))
        case ["increment" | "incr", key, by]:
            return op.increment(bytes_of(key), _number(by))
        case ["delete_prefix", prefix] if prefix:
            return op.delete_range(bytes_of(prefix))
        case _:
            raise ValueError(f"{' '.join(words)!r} is not an operation")


def _sign(text: str) -> Sign:
    match text:
        case "=" | "!=" | "<" | ">":
            return text
        case _:
            raise ValueError(f"{text!r} is none of =, !=, < and >")


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _print_result(result: TxnResult, form: Form) -> None:
    match form:
        case Form.JSON:
            print_json(
                {
                    "succeeded": result.succeeded,
                    "revision": result.revision,
                    "replayed": result.replayed,
                    "results": [_fields(each) for each in result.results],
                }
            )
        case Form.RAW:
            for each in result.results:
                if isinstance(each, GetResult):
                    print_raw((b"" if each.item is None else each.item.value) + b"\n")
        case Form.TABLE:
            what = "done" if result.succeeded else "a compare does not hold"
            click.echo(f"{what}, at revision {result.revision}")
            for each in result.results:
                click.echo(f"  {_sentence(each)}")


def _fields(result: OpResult) -> dict[str, object]:
    match result:
        case PutResult():
            return {"version": result.version}
        case CounterResult():
            return {"value": result.value, "version": result.version}
        case GetResult():
            return {"item": None if result.item is None else item_fields(result.item)}
        case DeleteResult():
            return {"deleted": result.deleted}


def _sentence(result: OpResult) -> str:
    match result:
        case PutResult():
            return f"stored, version {result.version}"
        case CounterResult():
            return f"the sum is {result.value}"
        case GetResult(None):
            return "there is no such key"
        case GetResult():
            assert result.item is not None
            return f"{printable(result.item.key)} = {printable(result.item.value)}"
        case DeleteResult():
            return f"deleted {result.deleted}"
