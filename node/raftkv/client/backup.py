"""Streaming a backup."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from raftkv.client.calls import Caller
from raftkv.client.errors import DamagedBackupError
from raftkv.client.streams import BrokenStreamError, Streams
from raftkv.client.transport import InterruptedRequestError, Request

# A node makes the file first, which takes its time when there is much to write.
_SILENCE_SECONDS: Final = 120.0
_FILE: Final = "application/octet-stream"


class Backup:
    """A backup that is arriving: iterate over its chunks, to the end."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Made by `Client.backup`."""
        self._response = response
        # Of the whole file; None: the node does not know it before it is sent.
        self.size_bytes = response.content_length
        self.revision = int(response.headers.get("X-RaftKV-Revision", "0"))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes of the file, which ends with a checksum of the rest.

        Raises:
            DamagedBackupError: at the end, if it is not what the node sent; throw it away.
        """
        # Brings half a node along, which every other call would wait for.
        from raftkv.storage.snapshots import Checksum  # noqa: PLC0415

        checksum = Checksum()
        try:
            async for chunk in self._response.content.iter_any():
                checksum.update(chunk)
                yield chunk
            checksum.verify()
        except ValueError as error:
            raise DamagedBackupError(f"the backup is damaged: {error}") from error
        except (aiohttp.ClientError, TimeoutError, InterruptedRequestError) as error:
            raise DamagedBackupError(f"the backup broke off: {error}") from error


class BackupCalls(Caller):
    """Backups."""

    @asynccontextmanager
    async def backup(self) -> AsyncIterator[Backup]:
        """The whole store at one revision: ``async with client.backup() as backup``."""
        streams = Streams(
            self._transport, "application/octet-stream", silence_seconds=_SILENCE_SECONDS
        )
        try:
            async with streams.open(Request("GET", "/v1/backup")) as response:
                yield Backup(response)
        except BrokenStreamError as error:
            raise DamagedBackupError(f"the backup broke off: {error}") from error
