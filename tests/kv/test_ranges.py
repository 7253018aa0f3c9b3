"""Ranges against the model: every piece, revision, order and way of cutting."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from raftkv.kv.commands import Command, Delete, Put
from raftkv.kv.engine import Engine
from raftkv.kv.memory_engine import MemoryEngine
from raftkv.kv.outcomes import Item
from raftkv.kv.ranges import Page, Range, end_of_prefix, read_range
from raftkv.kv.store import Store
from tests.kv.model import Model
from tests.kv.support import DETERMINISTIC, KEYS, commands, entry, open_engine

bounds = st.sampled_from((b"", *KEYS, b"a\x01", b"zz"))
ranges = st.builds(
    Range,
    start=bounds,
    end=st.none() | bounds,
    is_descending=st.booleans(),
    limit=st.integers(1, 6),
    bytes_max=st.integers(1, 30),
    scan_max=st.integers(1, 6),
    with_values=st.booleans(),
    delimiter=st.sampled_from((b"", b"a", b"\x00", b"\xff\xff")),
    prefix_bytes=st.integers(0, 2),
)


def whole_range(engine: Engine, store_revision: int, wanted: Range) -> list[Page]:
    """All pieces, each asked for where the one before ended."""
    pages: list[Page] = []
    while True:
        page = read_range(engine, store_revision, wanted)
        pages.append(page)
        assert page.revision == (wanted.revision or store_revision)
        assert len(page.items) + len(page.prefixes) <= wanted.limit
        if page.resume is None:
            return pages
        place = "end" if wanted.is_descending else "start"
        wanted = replace(wanted, **{place: page.resume})
        assert len(pages) < 100, "no piece brings the range forward"


def expected(items: dict[bytes, Item], wanted: Range) -> tuple[list[Item], list[bytes]]:
    keys = [k for k in items if k >= wanted.start and (wanted.end is None or k < wanted.end)]
    found: list[Item] = []
    prefixes: list[bytes] = []
    for key in sorted(keys, reverse=wanted.is_descending):
        at = key.find(wanted.delimiter, wanted.prefix_bytes) if wanted.delimiter else -1
        if at < 0:
            found.append(items[key] if wanted.with_values else replace(items[key], value=b""))
        elif key[: at + len(wanted.delimiter)] not in prefixes:
            prefixes.append(key[: at + len(wanted.delimiter)])
    return found, prefixes


def check(engine: Engine, content: Sequence[Command], wanted: Range) -> None:
    store, model = Store(engine), Model()
    store.apply([entry(1, *content)])
    for command in content:
        model.execute(command)
    for revision, items in enumerate(model.states):
        if revision:
            asked = replace(wanted, revision=revision)
            pages = whole_range(engine, store.revision, asked)
            found = [item for page in pages for item in page.items]
            prefixes = [prefix for page in pages for prefix in page.prefixes]
            assert (found, prefixes) == expected(items, wanted)
            counted = whole_range(engine, store.revision, replace(asked, count_only=True))
            plain = expected(items, replace(wanted, delimiter=b""))[0]
            assert sum(page.count for page in counted) == len(plain)
            assert not any(page.items or page.prefixes for page in counted)
    now = whole_range(engine, store.revision, wanted)
    assert [item for page in now for item in page.items] == expected(model.items, wanted)[0]


@settings(DETERMINISTIC, max_examples=300)
@given(st.lists(commands, max_size=12), ranges)
def test_a_range_in_memory_is_the_model(content: list[Command], wanted: Range) -> None:
    check(MemoryEngine(), content, wanted)


@settings(DETERMINISTIC, max_examples=60)
@given(st.lists(commands, max_size=12), ranges)
def test_a_range_in_lmdb_is_the_model(content: list[Command], wanted: Range) -> None:
    with open_engine("lmdb") as engine:
        check(engine, content, wanted)


def test_rule_24_a_piece_looks_at_no_more_keys_than_it_may() -> None:
    """Also where nothing is found: all keys were deleted, and the past has to be searched."""
    engine = MemoryEngine()
    store = Store(engine)
    keys = [b"%03d" % number for number in range(100)]
    puts = [Put(key, b"") for key in keys]
    store.apply([entry(1, Put(b"zz", b""), *puts, *map(Delete, keys), Put(b"zz", b""))])
    page = read_range(engine, store.revision, Range(revision=1, scan_max=10))
    assert page == Page(1, resume=b"010")


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a", b"b"), (b"a\xff", b"b"), (b"\xff\xff", None), (b"", None), (b"a\x00", b"a\x01")],
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes | None) -> None:
    assert end_of_prefix(prefix) == end
