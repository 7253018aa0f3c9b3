"""`raftkv restore`: a new cluster out of a backup."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from raftkv.cli.common import CommandError
from raftkv.kv.engine import StoreError
from raftkv.kv.lmdb_environment import LmdbEngineFactory
from raftkv.node.restoring import restore
from raftkv.node.settings import NodeSettings
from raftkv.storage.disk import DiskError
from raftkv.storage.errors import StorageError
from raftkv.storage.os_disk import OsDisk
from raftkv.storage.snapshots import (
    HEADER_BYTES,
    TRAILER_BYTES,
    SnapshotInfo,
    decode_header,
    describe_file,
)

_PIECE_BYTES: Final = 1 << 20


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The new node's data directory: empty, or not there yet.",
)
@click.option("--id", "name", required=True, help="The new node's name, as in `raftkv node --id`.")
@click.option(
    "--peer-url",
    required=True,
    metavar="HOST:PORT",
    help="Where its peers will find it: its --peer-addr, as others reach it.",
)
@click.option(
    "--client-url",
    required=True,
    metavar="URL",
    help="Where clients will find it: http://HOST:PORT.",
)
@click.option("--cluster-id", help="Of the new cluster; never used before. Default: random.")
def restore_command(
    file: Path, *, data: Path, name: str, peer_url: str, client_url: str, cluster_id: str | None
) -> None:
    """Make the first node of a NEW cluster out of the backup FILE.

    The backup is verified before anything is written. The new cluster has an id of its own, and
    its revisions go on far beyond the backup's, so that nothing a client still holds of the old
    one (ETags, watch positions, fencing tokens) can be mistaken. Keys and values come back;
    leases, locks and history do not.

    Start the node with `raftkv node --id NAME --data DIR ...`, without --peers; grow the cluster
    with `raftkv members add`. Never start nodes of the old cluster beside it under the same names.
    """
    rng = random.SystemRandom()
    settings = NodeSettings(name=name, peer_url=peer_url, client_url=client_url, version="")
    try:
        with file.open("rb") as source:
            info = read_info(source)
            disk = OsDisk(str(data))
            disk.lock()
            try:
                restored = restore(
                    disk,
                    LmdbEngineFactory(str(data / "store")),
                    rng,
                    settings,
                    cluster_id=cluster_id or f"{rng.getrandbits(128):032x}",
                    info=info,
                    pieces=_pieces(source, info.size_bytes),
                )
            finally:
                disk.close()
    except ValueError as error:
        raise CommandError(f"{file} is no backup that can be restored: {error}") from None
    except (StorageError, StoreError, DiskError, OSError) as error:
        raise CommandError(f"cannot restore into {data}: {error}") from None
    click.echo(
        f"{data}: member {restored.member.id:016x} ({name}) of new cluster {restored.cluster_id}, "
        f"{restored.keys} keys at revision {restored.revision}"
    )


def read_info(source: BinaryIO) -> SnapshotInfo:
    """What header and trailer of a backup say. Raises `ValueError` if they are none."""
    meta, blob_bytes = decode_header(source.read(HEADER_BYTES))
    source.seek(HEADER_BYTES + blob_bytes)
    return describe_file(meta, blob_bytes, source.read(TRAILER_BYTES + 1))


def _pieces(source: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    source.seek(0)
    columns = (TextColumn("restore"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("restore", total=size_bytes)
        while piece := source.read(_PIECE_BYTES):
            yield piece
            progress.advance(task, len(piece))
