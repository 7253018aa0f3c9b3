"""The names under which the client library was known before it was split."""

from raftkv.client.client import Client as KvClient
from raftkv.client.model import (
    Consistency,
    Deleted,
    Item,
    JsonObject,
    Page,
    Written,
)
from raftkv.client.wire import key_path, parse_endpoint

__all__ = [
    "Consistency",
    "Deleted",
    "Item",
    "JsonObject",
    "KvClient",
    "Page",
    "Written",
    "key_path",
    "parse_endpoint",
]
