"""`make screenshots`: the pictures of docs/console.md, taken of a live cluster.

Three nodes on loopback under a small load; the leader hands over, and then is killed.
"""

import asyncio
import json
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from raftkv.cli.top import Watcher
from raftkv.cli.top_app import Top
from raftkv.client import Client
from raftkv.client.wire import key_path
from tests.console.browser import Browser, find_chromium
from tests.process.cluster import Cluster, NodeProcess

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
# What the roles' chart is to show before and after the election.
_QUIET_SECONDS: Final = 12
_WRITE_PAUSE_SECONDS: Final = 0.03

_SHOP: Final = {
    "config/app.json": json.dumps({"workers": 8, "region": "eu-1", "dark_launch": True}, indent=2),
    "config/limits": "1000",
    "feature-flags/new-checkout": "on",
    "orders/2026-11/10021": '{"customer":"ann","total":"18.90"}',
    "orders/2026-11/10022": '{"customer":"bob","total":"7.20"}',
    "services/mail/10.0.0.7:8080": "ready",
    "greeting": "hello, world",
}


async def main() -> int:
    if find_chromium() is None:
        print("Chromium is not installed: apt-get install chromium", file=sys.stderr)  # noqa: T201
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="raftkv-screenshots-") as directory:
        async with Cluster(Path(directory)) as cluster, aiohttp.ClientSession() as session:
            leader = await cluster.wait_leader()
            node = next(each for each in cluster.nodes if each is not leader)
            for key, value in _SHOP.items():
                await put(session, node, key, value)
            await take_keys(session, node)
            await take_cluster(cluster, session, node, leader)
    return 0


async def put(session: aiohttp.ClientSession, node: NodeProcess, key: str, value: str) -> None:
    url = URL(node.url + key_path(key.encode()), encoded=True)
    async with session.put(url, data=value.encode()) as answer:
        answer.raise_for_status()


@asynccontextmanager
async def writing(session: aiohttp.ClientSession, node: NodeProcess) -> AsyncIterator[None]:
    """A small load until the end of the block; what fails in an election is let go."""

    async def write() -> None:
        for number in count(1):
            with suppress(aiohttp.ClientError, TimeoutError):
                key = f"orders/2026-11/{10030 + number % 400}"
                await put(session, node, key, json.dumps({"number": number}))
            await asyncio.sleep(_WRITE_PAUSE_SECONDS)

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def keep(name: str, picture: bytes) -> None:
    (IMAGES / name).write_bytes(picture)
    print(f"docs/images/{name}")  # noqa: T201


async def open_key(page: Browser, *way: str) -> None:
    """Through folders to a key, by their names."""
    for name in way:
        buttons = "[...document.querySelectorAll('#list button')]"
        button = f"{buttons}.find((each) => each.innerText.includes({json.dumps(name)}))"
        await page.wait(button)
        await page.js(f"{button}.click()")


async def take_keys(session: aiohttp.ClientSession, node: NodeProcess) -> None:
    async with Browser(width=1280, height=820) as page:
        await page.prefer("dark")
        await page.open(f"{node.url}/#keys")
        await page.wait_text("#feed-state", "live")
        for key, value in (("config/limits", "2000"), ("greeting", "hello"), ("greeting", "hi")):
            await put(session, node, key, value)
        await open_key(page, "config/", "app.json")
        await page.wait("document.querySelector('#value')")
        await page.wait_text("#feed", "greeting")
        keep("console-dark.png", await page.picture())
        await page.prefer("light")
        await page.fill("#value", json.dumps({"workers": 12, "region": "eu-1"}, indent=2))
        theirs = {"workers": 8, "region": "us-2", "dark_launch": False}
        await put(session, node, "config/app.json", json.dumps(theirs, indent=2))
        await page.press("s", control=True)
        await page.wait_text("#notice", "Conflict")
        await page.js("window.scrollTo(0, 0)")
        keep("console-conflict.png", await page.picture())


async def take_cluster(
    cluster: Cluster, session: aiohttp.ClientSession, node: NodeProcess, leader: NodeProcess
) -> None:
    async with Browser(width=1280, height=820) as page, writing(session, node):
        await page.prefer("light")
        await page.open(f"{node.url}/")
        await page.wait("document.querySelectorAll('tr[data-role=follower]').length === 2")
        await asyncio.sleep(_QUIET_SECONDS)
        leader.kill()
        await page.wait_text("#members", "Not answering")
        await page.wait("!['none', ''].includes(document.querySelector('#tiles b').innerText)")
        await asyncio.sleep(_QUIET_SECONDS / 2)
        keep("console-light.png", await page.picture())
        keep("console-top.svg", (await take_top(node)).encode())
        # Two of three are gone now: the last one asks for votes that do not come.
        third = next(each for each in cluster.running if each is not node)
        third.send_signal(signal.SIGSTOP)
        try:
            await page.wait_text("#tiles [data-key=leader] b", "none")
            await page.wait_text("#members", "Pre-candidate")
            await page.resize(390, 844, 2)
            await asyncio.sleep(_QUIET_SECONDS / 4)
            keep("console-phone.png", await page.picture())
        finally:
            third.send_signal(signal.SIGCONT)


async def take_top(node: NodeProcess) -> str:
    """The terminal as SVG, without the address of a font that its maker puts in."""
    async with Client([node.url], timeout_seconds=1.5, fail_fast=True) as client:
        app = Top(Watcher(client).look, interval_seconds=0.5)
        async with app.run_test(size=(104, 22)) as pilot:
            await pilot.pause(3.0)
            drawn = app.export_screenshot(title="raftkv top")
    return re.sub(r'url\("https?://[^"]*"\)[^,;]*', 'local("monospace")', drawn)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
