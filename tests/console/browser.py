"""A headless Chromium, moved by its DevTools protocol: what a person does, and what one sees.

One WebSocket and no driver process: the protocol is JSON, and aiohttp is here already.
"""

import asyncio
import base64
import json
import re
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Any, Self

import aiohttp

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_POLL_SECONDS = 0.02
_START_SECONDS = 60.0
_SHIFT = 8
_CONTROL = 2
_KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "ArrowDown": (40, ""), "ArrowUp": (38, ""),
         "ArrowLeft": (37, ""), "ArrowRight": (39, ""), "Tab": (9, "")}  # fmt: skip


def find_chromium() -> str | None:
    """Where it is, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class PageError(AssertionError):
    """The page did not come to show what was waited for."""


class Browser:
    """One tab. What the page complains of is in ``complaints``. Use it with ``async with``."""

    def __init__(self, *, width: int = 1280, height: int = 900, scale: float = 1) -> None:
        self.complaints: list[str] = []
        #: Every URL that the page asked for.
        self.requested: list[str] = []
        self._size = (width, height, scale)
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def __aenter__(self) -> Self:
        program = find_chromium()
        assert program is not None
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._process = await asyncio.create_subprocess_exec(
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--no-default-browser-check", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-extensions",
            "--no-proxy-server", "--hide-scrollbars", "--remote-debugging-port=0",
            f"--user-data-dir={self._profile.name}", "about:blank",
            stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
        )  # fmt: skip
        self._session = aiohttp.ClientSession()
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._connect()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def _connect(self) -> None:
        assert self._process.stderr is not None
        found = None
        while found is None:
            line = (await self._process.stderr.readline()).decode(errors="replace")
            assert line, "Chromium ended before it listened"
            found = re.search(r"DevTools listening on ws://([^/]+)/", line)
        self._drain = asyncio.ensure_future(self._process.stderr.read())
        async with self._session.get(f"http://{found[1]}/json/list") as response:
            targets = await response.json(content_type=None)
        address = next(each["webSocketDebuggerUrl"] for each in targets if each["type"] == "page")
        self._socket = await self._session.ws_connect(address, max_msg_size=0)
        self._reader = asyncio.ensure_future(self._read())
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        await self.resize(*self._size)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if hasattr(self, "_socket"):
            await self._socket.close()
            self._reader.cancel()
        await self._session.close()
        if self._process.returncode is None:
            self._process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 10)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if hasattr(self, "_drain"):
            self._drain.cancel()
        self._profile.cleanup()

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            else:
                self._hear(said["method"], said["params"])

    def _hear(self, method: str, said: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", str(details)))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            entry = said["entry"]
            self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning"):
            self.complaints.append(str([each.get("value") for each in said["args"]]))
        elif method == "Network.requestWillBeSent":
            self.requested.append(said["request"]["url"])

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call the protocol; its result."""
        number = next(self._numbers)
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(30):
            said = await answered
        if "error" in said:
            raise PageError(f"{method}: {said['error']}")
        result: dict[str, Any] = said["result"]
        return result

    # ---- what a person does ---------------------------------------------------------------------

    async def open(self, url: str) -> None:
        await self.send("Page.navigate", url=url)

    async def resize(self, width: int, height: int, scale: float = 1) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip

    async def prefer(self, scheme: str) -> None:
        """The system's colours: ``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def click(self, selector: str) -> None:
        await self.wait(f"document.querySelector({json.dumps(selector)})")
        await self.js(f"document.querySelector({json.dumps(selector)}).click()")

    async def press(self, key: str, *, control: bool = False) -> None:
        """One key, named as KeyboardEvent.key has it."""
        code, text = _KEYS.get(key, (ord(key.upper()[0]), "" if control else key))
        modifiers = _CONTROL if control else _SHIFT if key == "?" else 0
        common: dict[str, Any] = {
            "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers,
        }  # fmt: skip
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        await self.send("Input.dispatchKeyEvent", **common, **down)
        await self.send("Input.dispatchKeyEvent", **common, type="keyUp")

    async def type(self, text: str) -> None:
        """Into what has the focus, in place of what is selected."""
        await self.send("Input.insertText", text=text)

    async def fill(self, selector: str, text: str) -> None:
        await self.wait(f"document.querySelector({json.dumps(selector)})")
        await self.js(
            f"{{ const field = document.querySelector({json.dumps(selector)});"
            " field.focus(); field.select(); }"
        )
        await self.type(text)

    # ---- what one sees --------------------------------------------------------------------------

    async def js(self, expression: str) -> Any:
        """The value of an expression."""
        said = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in said:
            raise PageError(f"{expression}: {said['exceptionDetails']}")
        return said["result"].get("value")

    async def text(self, selector: str) -> str:
        """What stands there, as it is rendered; empty if there is nothing."""
        found = await self.js(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        assert isinstance(found, str)
        return found

    async def wait(self, condition: str, seconds: float = 15.0) -> float:
        """Until the expression holds; how long that took."""
        began = monotonic()
        # What is not there yet is no error.
        tried = f"(() => {{ try {{ return Boolean({condition}) }} catch {{ return false }} }})()"
        while not await self.js(tried):
            if monotonic() - began > seconds:
                seen = await self.js("document.body.innerText")
                raise PageError(f"not within {seconds} s: {condition}\n{seen}\n{self.complaints}")
            await asyncio.sleep(_POLL_SECONDS)
        return monotonic() - began

    async def wait_text(self, selector: str, text: str, seconds: float = 15.0) -> float:
        """Until ``text`` stands there."""
        return await self.wait(
            f"document.querySelector({json.dumps(selector)})?.innerText"
            f".includes({json.dumps(text)})",
            seconds,
        )

    async def picture(self) -> bytes:
        """What is in view, as PNG."""
        said = await self.send("Page.captureScreenshot", format="png")
        return base64.b64decode(said["data"])
