"""Waiting for a condition, the only way in which these tests wait."""

import asyncio
from collections.abc import Callable


async def until(what: str, condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return when ``condition`` holds; fail the test if it does not within ``seconds``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.002)
