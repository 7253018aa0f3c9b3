"""`raftkv wal`: looks into a node's data directory, without the node."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import click
import msgspec

from raftkv.cli.common import CommandError
from raftkv.cli.printing import print_json_line, printable
from raftkv.kv.commands import decode_batch
from raftkv.raft import ConfState, Entry, EntryId, EntryType, HardState, decode_conf_state
from raftkv.storage.disk import DiskError, run_task
from raftkv.storage.dump import (
    Damage,
    Finding,
    Record,
    SegmentReader,
    Tail,
    find_missing,
    read_listing,
    read_segment,
    read_snapshot,
)
from raftkv.storage.identity import Identity
from raftkv.storage.layout import SegmentFile
from raftkv.storage.os_disk import OsDisk
from raftkv.storage.record import Append, SegmentStart, Snapshot, SnapshotRef, WalRecord
from raftkv.storage.snapshots import SnapshotInfo

Fields = dict[str, object]


@click.group("wal")
def wal_group() -> None:
    """Look into a node's data directory."""


@wal_group.command("dump")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Text for a person, or one JSON document a line for a program.",
)
@click.option("--values", is_flag=True, help="Also show the keys and values that were written.")
def dump_command(*, directory: Path, form: str, values: bool) -> None:
    """Show what lies in DIRECTORY: identity, log, snapshots, and any damage with its place.

    Changes nothing, and may be used beside a running node, whose last write it may then see half
    done. Exits with 1 if anything is damaged.
    """
    damages = 0
    try:
        for item in _all(OsDisk(str(directory))):
            damages += isinstance(item, Damage)
            if form == "json":
                print_json_line(_fields(item, values=values))
            else:
                for line in _lines(item, values=values):
                    click.echo(printable(line.encode()).plain)
    except DiskError as error:
        raise CommandError(f"{directory} cannot be read: {error.reason}") from None
    if damages:
        raise CommandError(f"{damages} damaged place{'s' * (damages > 1)}, see above")


@dataclass(frozen=True, slots=True)
class Note:
    """Worth a line, and not damage."""

    path: str
    text: str


Item = Identity | SnapshotInfo | SegmentFile | Finding | Note


def _all(disk: OsDisk) -> Iterator[Item]:
    listing = run_task(disk, read_listing())
    yield listing.identity or Note("identity", "there is none")
    for name in listing.snapshots:
        yield run_task(disk, read_snapshot(name)) or Note(f"snapshots/{name}", _GONE)
    reader = SegmentReader()
    for segment in listing.segments:
        content = run_task(disk, read_segment(segment))
        if content is None:
            yield Note(segment.path, _GONE)
            continue
        yield segment
        yield from reader.read(segment, content, is_last=segment is listing.segments[-1])
    yield from run_task(disk, find_missing(listing, reader.newest))
    for path in listing.others:
        yield Note(path, "no file that a node would read")


_GONE = "removed while this was reading"


# ---- as plain values -----------------------------------------------------------------------


def _fields(item: Item, *, values: bool) -> Fields:
    match item:
        case Identity():
            return _identity(item)
        case SnapshotInfo():
            return _snapshot(item)
        case SegmentFile():
            return _segment(item)
        case Note(path, text):
            return {"kind": "note", "path": path, "text": text}
        case _:
            return _finding(item, values=values)


def _identity(identity: Identity) -> Fields:
    return {
        "kind": "identity",
        "path": "identity",
        "member_id": f"{identity.member_id:016x}",
        "cluster_id": identity.cluster_id,
        "founding": None if identity.founding is None else _conf(identity.founding),
    }


def _snapshot(info: SnapshotInfo) -> Fields:
    meta = info.meta
    return {
        "kind": "snapshot file",
        "path": f"snapshots/{info.name}",
        "size_bytes": info.size_bytes,
        "digest": info.digest.hex(),
        "cluster_id": meta.cluster_id,
        "last": _plain(meta.last),
        "config_index": meta.config_index,
        "conf": _conf(meta.conf),
        "chain_hash": meta.chain_hash.hex(),
        "revision": meta.revision,
    }


def _segment(segment: SegmentFile) -> Fields:
    return {
        "kind": "segment",
        "path": segment.path,
        "number": segment.number,
        "state": segment.state.value,
        "size_bytes": segment.size_bytes,
    }


def _damage(damage: Damage) -> Fields:
    fields: Fields = {"kind": "damage", "path": damage.path}
    if damage.offset is not None:
        fields["offset"] = damage.offset
    if damage.sequence is not None:
        fields["sequence"] = damage.sequence
    return fields | {"reason": damage.reason}


def _finding(finding: Finding, *, values: bool) -> Fields:
    match finding:
        case Damage():
            return _damage(finding)
        case Tail(path, offset, size_bytes):
            return {"kind": "tail", "path": path, "offset": offset, "size_bytes": size_bytes}
        case Record(path, frame, record):
            return {
                "kind": "frame",
                "path": path,
                "offset": frame.offset,
                "size_bytes": frame.end - frame.offset,
                "sequence": frame.sequence,
                "durable_sequence": frame.durable_sequence,
                "crc": f"{frame.crc:08x}",
                "record": _record(record, values=values),
            }


def _record(record: WalRecord, *, values: bool) -> Fields:
    match record:
        case SegmentStart():
            return {
                "type": "start",
                "number": record.number,
                "member_id": f"{record.member_id:016x}",
                "last": _plain(record.last),
                "hard_state": _hard_state(record.hard_state),
                "snapshot": _ref(record.snapshot),
            }
        case Append():
            return {
                "type": "append",
                "hard_state": _hard_state(record.hard_state),
                "entries": [_entry(entry, values=values) for entry in record.entries],
            }
        case Snapshot():
            return {
                "type": "install" if record.installs else "snapshot",
                "hard_state": _hard_state(record.hard_state),
                "snapshot": _ref(record.snapshot),
                "entries": [_entry(entry, values=values) for entry in record.entries],
            }


def _hard_state(state: HardState | None) -> Fields | None:
    if state is None:
        return None
    vote = None if state.vote is None else f"{state.vote:016x}"
    return {"term": state.term, "vote": vote, "commit": state.commit}


def _ref(ref: SnapshotRef | None) -> Fields | None:
    if ref is None:
        return None
    return {
        "name": ref.name,
        "last": _plain(ref.last),
        "config_index": ref.config_index,
        "chain_hash": ref.chain_hash.hex(),
    }


def _conf(conf: ConfState) -> Fields:
    """Ids of nodes are hexadecimal, as everywhere else."""
    return {
        name: [f"{member_id:016x}" for member_id in ids]
        for name, ids in (
            ("voters", conf.voters),
            ("learners", conf.learners),
            ("voters_outgoing", conf.voters_outgoing),
            ("learners_next", conf.learners_next),
        )
        if ids or name == "voters"
    } | {
        "members": [
            {
                "id": f"{member.id:016x}",
                "name": member.name,
                "peer_url": member.peer_url,
                "client_url": member.client_url,
            }
            for member in conf.members
        ]
    }


def _entry(entry: Entry, *, values: bool) -> Fields:
    fields: Fields = {
        "index": entry.index,
        "term": entry.term,
        "type": EntryType(entry.type).name.lower(),
        "size_bytes": len(entry.data),
    }
    try:
        if entry.type is EntryType.CONFIG:
            fields["conf"] = _conf(decode_conf_state(entry.data))
        elif values and entry.type is EntryType.NORMAL:
            fields["commands"] = _plain(decode_batch(entry.data))
    except ValueError as error:
        fields["unknown"] = str(error)
    return fields


def _plain(value: object) -> object:
    """As JSON can say it."""
    match value:
        case msgspec.Struct():
            fields = {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
            return {"type": type(value).__name__, **fields} if _is_tagged(value) else fields
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return {"base64": base64.b64encode(value).decode("ascii")}
        case Enum():
            return value.name.lower()
        case tuple() | list():
            return [_plain(part) for part in value]
        case _:
            return value


def _is_tagged(value: msgspec.Struct) -> bool:
    return value.__struct_config__.tag is not None


# ---- as text -------------------------------------------------------------------------------


def _lines(item: Item, *, values: bool) -> Iterator[str]:
    match item:
        case Identity():
            yield f"identity: member {item.member_id:016x}, cluster {item.cluster_id or '-'}"
        case SnapshotInfo():
            meta = item.meta
            yield (
                f"snapshots/{item.name}: {item.size_bytes} bytes, up to entry {_id(meta.last)}, "
                f"revision {meta.revision}, cluster {meta.cluster_id}, sound"
            )
        case SegmentFile():
            yield f"{item.path}: {item.size_bytes} bytes"
        case Note(path, text):
            yield f"{path}: {text}"
        case Damage(path, reason, offset, sequence):
            place = path if offset is None else f"{path} at offset {offset}"
            yield f"DAMAGE {place if sequence is None else f'{place} (frame {sequence})'}: {reason}"
        case Tail(_, offset, size_bytes):
            yield f"{offset:>10}  {size_bytes} bytes that are no frame: cut short, or under way"
        case Record(_, frame, record):
            yield f"{frame.offset:>10}  frame {frame.sequence}  {_record_line(record)}"
            if not isinstance(record, SegmentStart):
                yield from _entry_lines(record.entries, values=values)


def _record_line(record: WalRecord) -> str:
    parts = ["append"]
    if isinstance(record, SegmentStart):
        ref = record.snapshot
        parts = [f"start of segment {record.number} after entry {_id(record.last)}"]
        parts += [] if ref is None else [f"standing on {ref.name}"]
    elif isinstance(record, Snapshot):
        parts = [f"{'install' if record.installs else 'snapshot'} {record.snapshot.name}"]
    state = record.hard_state
    if state is not None:
        vote = "-" if state.vote is None else f"{state.vote:016x}"
        parts.append(f"term {state.term} vote {vote} commit {state.commit}")
    if not isinstance(record, SegmentStart) and record.entries:
        first, last = record.entries[0], record.entries[-1]
        size_bytes = sum(len(entry.data) for entry in record.entries)
        parts.append(f"entries {_id(first.id)} to {_id(last.id)}, {size_bytes} bytes")
    return ", ".join(parts)


def _entry_lines(entries: Sequence[Entry], *, values: bool) -> Iterator[str]:
    """What deserves a line of its own: configurations, and commands if they may be shown."""
    for entry in entries:
        fields = _entry(entry, values=values)
        shown = fields.get("conf") or fields.get("commands") or fields.get("unknown")
        if shown:
            text = json.dumps(shown, ensure_ascii=False)
            yield f"            {_id(entry.id)} {fields['type']} {text}"


def _id(entry: EntryId) -> str:
    return f"{entry.index}@{entry.term}"
