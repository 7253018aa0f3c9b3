"""`raftkv wal dump`: what it shows of a directory, sound, damaged, or in use."""

import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raftkv.cli.main import main
from raftkv.kv.commands import Put, encode_command, join_batch
from raftkv.raft import ConfState, Entry, EntryId, EntryType, HardState, Member, encode_conf_state
from raftkv.storage.disk import run_task
from raftkv.storage.identity import adopt_cluster
from raftkv.storage.os_disk import OsDisk
from raftkv.storage.recovery import open_storage
from raftkv.storage.snapshots import HEADER_BYTES
from raftkv.storage.wal import Wal
from tests.storage.support import make_snapshot, receive, sent_snapshot

SECRET = b"hunter2"
CONF = ConfState(voters=(5,), members=(Member(5, "n5", "n5:7401", "http://n5:7400"),))


def entry(index: int, size: int = 0) -> Entry:
    command = encode_command(Put(b"password", SECRET + bytes(size)))
    return Entry(1, index, EntryType.NORMAL, join_batch([command]))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Three segments, of which the first is gone, and a snapshot."""
    path = tmp_path / "data"
    disk = OsDisk(str(path))
    disk.lock()
    write(disk)
    disk.close()
    return path


def write(disk: OsDisk) -> Wal:
    recovered = run_task(disk, open_storage(Random(1), segment_bytes=4096))
    run_task(disk, adopt_cluster(recovered.identity, "c1", None))
    wal = recovered.wal
    founding = Entry(1, 1, EntryType.CONFIG, encode_conf_state(CONF))
    run_task(disk, wal.append(HardState(1, 5, 0), [founding]))
    for index in range(2, 14):
        run_task(disk, wal.append(HardState(1, 5, index - 1), [entry(index)]))
    info = run_task(disk, make_snapshot(EntryId(1, 9)))
    run_task(disk, wal.append_snapshot(info, installs=False))
    run_task(disk, wal.drop_before(9))
    run_task(disk, wal.append(None, [entry(14), entry(15)]))
    return wal


def dump(path: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["wal", "dump", str(path), *options])


def documents(path: Path, *options: str) -> list[dict[str, Any]]:
    result = dump(path, "-o", "json", *options)
    return [json.loads(line) for line in result.stdout.splitlines()]


def content_of(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_it_shows_everything_in_order_and_changes_nothing(data_dir: Path) -> None:
    before = content_of(data_dir)
    result = dump(data_dir)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("identity: member ")
    assert lines[0].endswith(", cluster c1")
    assert lines[1].startswith("snapshots/00000000000000000009-1.snapshot: 68584 bytes, up to ")
    assert lines[2] == "wal/00000002.sealed: 4096 bytes"
    assert lines[3].split() == [
        *("0", "frame", "9", "start", "of", "segment", "2", "after", "entry", "7@1,"),
        *("term", "1", "vote", "0000000000000005", "commit", "6"),
    ]
    assert [line.split()[1:3] for line in lines if line.startswith("  ")] == [
        ["frame", str(number)] for number in range(9, 19)
    ]
    assert "  snapshot 00000000000000000009-1.snapshot, term 1 vote" in result.stdout
    assert "append, entries 14@1 to 15@1" in lines[-1]
    assert content_of(data_dir) == before


def test_json_says_the_same_and_more(data_dir: Path) -> None:
    found = documents(data_dir)
    kinds = [document["kind"] for document in found]
    assert kinds == ["identity", "snapshot file", "segment", *["frame"] * 8, "segment"] + (
        ["frame"] * 2
    )
    identity, snapshot, _, start, append, *_ = found
    assert identity["cluster_id"] == "c1"
    assert (snapshot["last"], snapshot["revision"]) == ({"term": 1, "index": 9}, 27)
    assert snapshot["conf"]["voters"] == [f"{5:016x}", f"{1009:016x}"]
    assert (start["offset"], start["record"]["type"]) == (0, "start")
    assert append["record"] == {
        "type": "append",
        "hard_state": {"term": 1, "vote": f"{5:016x}", "commit": 7},
        "entries": [{"index": 8, "term": 1, "type": "normal", "size_bytes": len(entry(8).data)}],
    }
    assert found[-1]["record"]["hard_state"] is None
    names = [record.get("snapshot") for record in (each.get("record", {}) for each in found)]
    assert any(name and name["name"] == "00000000000000000009-1.snapshot" for name in names)


@pytest.mark.parametrize("form", ["text", "json"])
def test_keys_and_values_are_shown_only_if_asked_for(data_dir: Path, form: str) -> None:
    plain = dump(data_dir, "-o", form)
    assert "password" not in plain.output
    assert SECRET.decode() not in plain.output
    shown = dump(data_dir, "-o", form, "--values")
    assert shown.exit_code == 0
    assert shown.stdout.count("password") == shown.stdout.count(SECRET.decode()) == 8


def test_a_configuration_is_shown_with_its_members(tmp_path: Path) -> None:
    disk = OsDisk(str(tmp_path))
    recovered = run_task(disk, open_storage(Random(1), segment_bytes=4096))
    run_task(disk, adopt_cluster(recovered.identity, "c1", CONF))
    founding = Entry(1, 1, EntryType.CONFIG, encode_conf_state(CONF))
    run_task(disk, recovered.wal.append(HardState(1, 5, 0), [founding]))
    conf = documents(tmp_path)[-1]["record"]["entries"][0]["conf"]
    member = {"id": f"{5:016x}", "name": "n5"}
    assert conf["voters"] == [member["id"]]
    assert conf["members"] == [member | {"peer_url": "n5:7401", "client_url": "http://n5:7400"}]
    assert documents(tmp_path)[0]["founding"] == conf
    assert '1@1 config {"voters": ["0000000000000005"]' in dump(tmp_path).stdout


def test_a_running_nodes_directory_is_read_without_its_lock(tmp_path: Path) -> None:
    disk = OsDisk(str(tmp_path))
    disk.lock()
    wal = write(disk)
    assert dump(tmp_path).exit_code == 0
    # The write under way is half done; that is no damage.
    active = tmp_path / "wal" / "00000003.active"
    content = bytearray(active.read_bytes())
    size = documents(tmp_path)[-1]
    end = size["offset"] + size["size_bytes"]
    content[end : end + 4] = b"RKW\x01"
    active.write_bytes(content)
    result = dump(tmp_path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].endswith(
        "4 bytes that are no frame: cut short, or under way"
    )
    assert wal.segment_count == 2
    disk.close()


def test_a_directory_that_may_only_be_read_is_read(data_dir: Path) -> None:
    opened = []
    real = os.open

    def only_reading(path: Any, flags: int, *rest: Any) -> int:
        opened.append(flags & os.O_ACCMODE)
        return real(path, flags, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", only_reading)
        assert dump(data_dir).exit_code == 0
    assert set(opened) == {os.O_RDONLY}


def test_damage_is_shown_with_its_place_and_what_lies_behind_it_too(data_dir: Path) -> None:
    sealed = data_dir / "wal" / "00000002.sealed"
    content = bytearray(sealed.read_bytes())
    content[3 * 512 + 50] ^= 1
    sealed.write_bytes(content)
    snapshot = data_dir / "snapshots" / "00000000000000000009-1.snapshot"
    content = bytearray(snapshot.read_bytes())
    content[HEADER_BYTES + 5] ^= 1
    snapshot.write_bytes(content)
    (data_dir / "identity").write_text("?")
    before = content_of(data_dir)
    result = dump(data_dir)
    assert result.exit_code == 1
    assert result.stderr == "Error: 3 damaged places, see above\n"
    damages = [line for line in result.stdout.splitlines() if line.startswith("DAMAGE")]
    assert damages == [
        "DAMAGE identity: not an identity file of this version of raftkv",
        f"DAMAGE snapshots/{snapshot.name}: the content's hash does not match",
        "DAMAGE wal/00000002.sealed at offset 1536 (frame 12): frame 13 behind it is sound",
    ]
    # All other frames are shown.
    sequences = [each["sequence"] for each in documents(data_dir) if each["kind"] == "frame"]
    assert sequences == [9, 10, 11, *range(13, 19)]
    assert content_of(data_dir) == before


def test_a_damaged_first_frame_does_not_hide_the_others(data_dir: Path) -> None:
    active = data_dir / "wal" / "00000003.active"
    active.write_bytes(b"?" + active.read_bytes()[1:])
    result = dump(data_dir)
    assert "DAMAGE wal/00000003.active at offset 0: the first frame is damaged" in result.stdout
    assert [each["sequence"] for each in documents(data_dir) if each["kind"] == "frame"][-1] == 18


def test_missing_files_are_damage_and_unknown_ones_are_not(data_dir: Path) -> None:
    (data_dir / "wal" / "00000003.active").unlink()
    (data_dir / "snapshots" / "00000000000000000009-1.snapshot").rename(
        data_dir / "snapshots" / "mine"
    )
    result = dump(data_dir)
    assert result.exit_code == 1
    assert "DAMAGE wal: the segment after wal/00000002.sealed is missing" in result.stdout
    (data_dir / "wal" / "00000002.sealed").rename(data_dir / "wal" / "00000002.active")
    result = dump(data_dir)
    name = "snapshots/00000000000000000009-1.snapshot"
    assert result.stdout.splitlines()[-2:] == [
        f"DAMAGE {name}: the snapshot that the log names is missing",
        "snapshots/mine: no file that a node would read",
    ]


def test_an_exchanged_segment_is_damage(data_dir: Path) -> None:
    sealed, active = (data_dir / "wal" / name for name in ("00000002.sealed", "00000003.active"))
    (data_dir / "wal" / "00000005.active").write_bytes(active.read_bytes())
    active.write_bytes(sealed.read_bytes())
    output = dump(data_dir).stdout
    assert "DAMAGE wal/00000003.active at offset 0 (frame 9): by its content this is segment 2" in (
        output
    )
    assert "DAMAGE wal/00000005.active: it follows segment 3" in output


def test_an_installed_snapshot_is_shown(data_dir: Path) -> None:
    disk = OsDisk(str(data_dir))
    wal = run_task(disk, open_storage(Random(2), segment_bytes=4096)).wal
    info = run_task(disk, receive(sent_snapshot(EntryId(4, 70))))
    run_task(disk, wal.append_snapshot(info, installs=True))
    assert "install 00000000000000000070-4.snapshot, term 1 vote" in dump(data_dir).stdout
    assert documents(data_dir)[-1]["record"]["type"] == "install"


def test_an_empty_directory_holds_nothing(tmp_path: Path) -> None:
    result = dump(tmp_path)
    assert (result.exit_code, result.stdout) == (0, "identity: there is none\n")
    assert list(tmp_path.iterdir()) == []


def test_no_directory_is_wrong_usage(tmp_path: Path) -> None:
    assert dump(tmp_path / "missing").exit_code == 2
    (tmp_path / "wal").write_text("a file")
    result = dump(tmp_path)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path} cannot be read: Not a directory\n"


@pytest.mark.parametrize("seed", range(30))
def test_any_damage_is_survived(data_dir: Path, seed: int) -> None:
    rng = Random(seed)
    files = [path for path in data_dir.rglob("*") if path.is_file() and path.stat().st_size]
    for _ in range(rng.randrange(1, 6)):
        path = rng.choice(files)
        content = bytearray(path.read_bytes())
        at = rng.randrange(len(content) or 1)
        match rng.randrange(3):
            case 0 if content:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                del content[at:]
            case _:
                content[at : at + 512] = rng.randbytes(512)
        path.write_bytes(content)
    result = dump(data_dir, "--values")
    assert result.exit_code in (0, 1)
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
