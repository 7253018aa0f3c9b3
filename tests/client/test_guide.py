"""The samples of docs/client.md run as they stand."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import raftkv.client
from raftkv.client import Client
from tests.client.contract_server import contract_server

GUIDE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
SAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


async def test_the_samples_of_the_guide_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(SAMPLES) > 8
    names: dict[str, Any] = {}
    async with contract_server() as server:
        for number, sample in enumerate(SAMPLES):
            text = re.sub(r"http://127\.0\.0\.1:74[0-9]0", server.url, sample)
            code = compile(text, f"<sample {number}>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, names)
            if inspect.isawaitable(running):
                await running
        assert len(server.items) > 1000
        assert server.items[b"log"].value == b"one line\norder 7\n"
        assert server.items[b"report"].value == b"..."
        assert (tmp_path / "store.backup").read_bytes() == server.backup


def test_everything_that_is_public_has_a_docstring() -> None:
    for name in raftkv.client.__all__:
        value = getattr(raftkv.client, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        assert name.startswith("_") or method.__doc__, name


def test_the_guide_names_every_call_of_the_client() -> None:
    calls = [name for name in dir(Client) if not name.startswith("_")]
    others = {"acquire_lock", "keep_lock_alive", "release_lock", "get_lock", "list_locks"}
    others |= {"commit_txn", "delete_prefix", "count", "endpoints", "revision"}
    missing = [name for name in calls if name not in others and name not in GUIDE]
    assert missing == []
