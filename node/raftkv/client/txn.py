"""Transactions: compares, then one of two lists of operations, all or nothing, at one revision.

result = await (
    client.txn()
    .when(compare.value(b"stock", "=", b"1"), compare.absent(b"sold"))
    .then(op.delete(b"stock"), op.put(b"sold", b"ann"))
    .otherwise(op.get(b"sold"))
    .commit()
)
"""

from collections.abc import Mapping
from typing import Final, Literal, Self

import msgspec

from raftkv.client.calls import Caller
from raftkv.client.model import Fence, Item
from raftkv.client.transport import Request
from raftkv.client.wire import ItemBody, bytes_fields, decode, duration

OPS_MAX: Final = 128

Sign = Literal["=", "!=", "<", ">"]
Target = Literal["value", "version", "create_revision", "mod_revision", "lease"]
JsonFields = Mapping[str, str | int | bool]


class Compare(msgspec.Struct, frozen=True):
    """What must hold of a key; made by the functions of `compare`."""

    fields: JsonFields


class Op(msgspec.Struct, frozen=True):
    """What is to be done; made by the functions of `op`."""

    fields: JsonFields


class PutResult(msgspec.Struct, frozen=True):
    """Of `op.put` and `op.append`: the key was stored."""

    version: int


class CounterResult(msgspec.Struct, frozen=True):
    """Of `op.increment`: the sum."""

    value: int
    version: int


class GetResult(msgspec.Struct, frozen=True):
    """Of `op.get`: the item as the operations before left it; None: there is none."""

    item: Item | None


class DeleteResult(msgspec.Struct, frozen=True):
    """Of `op.delete` and `op.delete_range`: how many keys were removed."""

    deleted: int


OpResult = PutResult | CounterResult | GetResult | DeleteResult


class TxnResult(msgspec.Struct, frozen=True):
    """What came of a transaction."""

    succeeded: bool  # the compares held, and ``then`` was done; else ``otherwise``
    revision: int  # the store's, after it
    results: tuple[OpResult, ...]  # one for each operation that was done
    # The answer to an earlier attempt was lost, and nodes do not keep what `op.get` had read:
    # those items are None. Read the keys again at ``revision``.
    replayed: bool = False


class _ResultBody(msgspec.Struct, frozen=True):
    op: str
    version: int = 0
    deleted: int = 0
    value: str = "0"
    item: ItemBody | None = None


class _TxnBody(msgspec.Struct, frozen=True):
    succeeded: bool
    revision: int
    results: tuple[_ResultBody, ...]


class compare:  # noqa: N801 read as a namespace: compare.value(...)
    """What a transaction can ask of keys."""

    @staticmethod
    def value(key: bytes, sign: Sign, value: bytes) -> Compare:
        """The value, bytewise; an absent key has none, and only ``!=`` holds of it."""
        return _compare(key, "value", sign, bytes_fields("value", value))

    @staticmethod
    def version(key: bytes, sign: Sign, version: int) -> Compare:
        """How often the key was written since it was created; 0 when it is absent."""
        return _compare(key, "version", sign, {"value": version})

    @staticmethod
    def mod_revision(key: bytes, sign: Sign, revision: int) -> Compare:
        """The revision that changed the key last; 0 when it is absent."""
        return _compare(key, "mod_revision", sign, {"value": revision})

    @staticmethod
    def create_revision(key: bytes, sign: Sign, revision: int) -> Compare:
        """The revision that created the key; 0 when it is absent."""
        return _compare(key, "create_revision", sign, {"value": revision})

    @staticmethod
    def lease(key: bytes, sign: Sign, lease: str) -> Compare:
        """The lease of the key; "0" when it has none."""
        return _compare(key, "lease", sign, {"value": lease})

    @staticmethod
    def exists(key: bytes) -> Compare:
        """The key is there."""
        return compare.version(key, ">", 0)

    @staticmethod
    def absent(key: bytes) -> Compare:
        """The key is not there."""
        return compare.version(key, "=", 0)


class op:  # noqa: N801 read as a namespace: op.put(...)
    """What a transaction can do."""

    @staticmethod
    def put(
        key: bytes, value: bytes, *, lease: str | None = None, ttl_seconds: float | None = None
    ) -> Op:
        """Store ``value``."""
        fields = {"op": "put"} | bytes_fields("key", key) | bytes_fields("value", value)
        if lease is not None:
            fields["lease"] = lease
        if ttl_seconds is not None:
            fields["ttl"] = duration(ttl_seconds)
        return Op(fields)

    @staticmethod
    def get(key: bytes) -> Op:
        """Read the item, as the operations before left it."""
        return Op({"op": "get"} | bytes_fields("key", key))

    @staticmethod
    def delete(key: bytes) -> Op:
        """Remove the key, if it is there."""
        return Op({"op": "delete"} | bytes_fields("key", key))

    @staticmethod
    def delete_range(
        prefix: bytes = b"", *, start: bytes = b"", end: bytes = b"", all_keys: bool = False
    ) -> Op:
        """Remove the keys of a range, as `Client.delete_range`."""
        fields: dict[str, str | int | bool] = {"op": "delete_range"}
        for name, data in (("prefix", prefix), ("start", start), ("end", end)):
            if data:
                fields.update(bytes_fields(name, data))
        if all_keys:
            fields["all"] = True
        return Op(fields)

    @staticmethod
    def append(key: bytes, suffix: bytes) -> Op:
        """Append to the value, creating the key if it is absent."""
        return Op({"op": "append"} | bytes_fields("key", key) | bytes_fields("value", suffix))

    @staticmethod
    def increment(key: bytes, by: int = 1) -> Op:
        """Add to the decimal number under the key."""
        return Op({"op": "increment", "by": by, **bytes_fields("key", key)})


class Txn:
    """A transaction that is being put together; nothing happens before `commit`."""

    def __init__(self, caller: "TxnCalls") -> None:
        """Made by `Client.txn`."""
        self._caller = caller
        self._compares: list[Compare] = []
        self._success: list[Op] = []
        self._failure: list[Op] = []

    def when(self, *compares: Compare) -> Self:
        """All of these must hold; without any, they do."""
        self._compares += compares
        return self

    def then(self, *ops: Op) -> Self:
        """What to do if they hold, in this order."""
        self._success += ops
        return self

    def otherwise(self, *ops: Op) -> Self:
        """What to do if one does not hold."""
        self._failure += ops
        return self

    def body(self) -> bytes:
        """The JSON that is sent."""
        return msgspec.json.encode(
            {
                "compare": [each.fields for each in self._compares],
                "success": [each.fields for each in self._success],
                "failure": [each.fields for each in self._failure],
            }
        )

    async def commit(
        self, *, fence: Fence | None = None, idempotency_key: str | None = None
    ) -> TxnResult:
        """Do it: all of one list, or nothing.

        Raises:
            RequestFailedError: an operation cannot be done ("not_a_counter", "too_large", ...);
                nothing has changed.
        """
        return await self._caller.commit_txn(self.body(), fence, idempotency_key)


class TxnCalls(Caller):
    """Transactions."""

    def txn(self) -> Txn:
        """An empty transaction, to be filled and committed."""
        return Txn(self)

    async def commit_txn(
        self, body: bytes, fence: Fence | None = None, idempotency_key: str | None = None
    ) -> TxnResult:
        """Send the JSON of a transaction (docs/http-api.md); `txn` writes it for you."""
        headers = {"Content-Type": "application/json"}
        request = Request("POST", "/v1/txn", headers=headers, body=body, has_deadline=True)
        answer = await self._write(request, idempotency_key=idempotency_key, fence=fence)
        done = decode(answer, _TxnBody, is_write=True)
        results = tuple(_result(each, done.revision) for each in done.results)
        replayed = answer.headers.get("Idempotency-Replayed") == "true"
        return TxnResult(done.succeeded, done.revision, results, replayed)


def _result(body: _ResultBody, revision: int) -> OpResult:
    match body.op:
        case "get":
            return GetResult(None if body.item is None else body.item.item(revision))
        case "delete" | "delete_range":
            return DeleteResult(body.deleted)
        case "increment":
            return CounterResult(int(body.value), body.version)
        case _:
            return PutResult(body.version)


def _compare(key: bytes, target: Target, sign: Sign, value: JsonFields) -> Compare:
    return Compare({"target": target, "op": sign, **bytes_fields("key", key), **value})
