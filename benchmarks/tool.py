"""A program that measures, run to its end or killed at its deadline."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path


async def output_of(
    command: Sequence[str],
    seconds_max: float,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What it printed. `RuntimeError` if it failed, `TimeoutError` if it was too slow."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=directory,
        env={**os.environ, **(environment or {})},
    )
    try:
        async with asyncio.timeout(seconds_max):
            output, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    if process.returncode != 0:
        end = (text + complaints.decode(errors="replace")).strip()[-300:]
        raise RuntimeError(f"{command[0]} failed with {process.returncode}: {end}")
    return text
