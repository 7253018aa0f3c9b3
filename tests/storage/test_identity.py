"""Who a node is, and directories that are not its own."""

from random import Random

import google_crc32c
import pytest

from raftkv.raft.messages import ConfState, Member
from raftkv.storage.disk import run_task
from raftkv.storage.errors import CorruptionError, ForeignDirectoryError
from raftkv.storage.identity import (
    Identity,
    adopt_cluster,
    create_identity,
    decode_identity,
    encode_identity,
    random_nonzero,
    read_identity,
    write_identity,
)
from tests.simulation.disk import SimDisk
from tests.storage.support import found_on, open_on, restart

CONF = ConfState(
    voters=(5, 6),
    members=(
        Member(5, "demo-0", "demo-0.demo:7401", "http://demo-0.demo:7400"),
        Member(6, "demo-1", "demo-1.demo:7401", "http://demo-1.demo:7400"),
    ),
    sessions=((5, 1), (6, 1)),
)


class Bits:
    """A source of randomness with a script."""

    def __init__(self, *values: int) -> None:
        self._values = list(values)

    def getrandbits(self, k: int, /) -> int:
        assert k == 64
        return self._values.pop(0)


@pytest.mark.parametrize(
    "identity",
    [
        Identity(1),
        Identity((1 << 64) - 1, "c1"),
        Identity(0x0123456789ABCDEF, "größer \n \0", CONF),
    ],
)
def test_an_identity_survives_writing(identity: Identity) -> None:
    assert decode_identity(encode_identity(identity)) == identity
    disk = SimDisk()
    run_task(disk, write_identity(identity))
    disk.power_loss(Random(1))
    assert run_task(disk, read_identity()) == identity


def test_the_format_is_what_the_documentation_says() -> None:
    # The example of docs/file-formats.md.
    content = (
        b"raftkv identity 1 crc32c a367729f\n"
        b'{"member_id":10499958131665514997,"cluster_id":"c1","founding":null}\n'
    )
    identity = Identity(10499958131665514997, "c1")
    assert decode_identity(content) == identity
    assert encode_identity(identity) == content


def test_a_member_id_is_never_zero() -> None:
    assert create_identity(Bits(0, 0, 9)) == Identity(9)
    assert random_nonzero(Bits(1 << 63)) == 1 << 63


def test_rule_15_an_empty_volume_gets_a_new_id_and_belongs_nowhere() -> None:
    first, second = open_on(SimDisk(), seed=1), open_on(SimDisk(), seed=2)
    assert first.identity.member_id != second.identity.member_id
    assert first.identity.cluster_id is None
    assert first.entries == []
    assert first.base.index == 0


def test_rule_15_identity_and_cluster_outlive_restarts() -> None:
    disk = SimDisk()
    member_id = open_on(disk).identity.member_id
    identity = restart(disk).identity
    assert identity == Identity(member_id)
    adopted = run_task(disk, adopt_cluster(identity, "c1", CONF))
    assert adopted == Identity(member_id, "c1", CONF)
    disk.power_loss(Random(3))
    assert open_on(disk, seed=7).identity == adopted


def test_rule_15_a_member_never_changes_its_cluster() -> None:
    disk = SimDisk()
    identity = found_on(disk).identity
    with pytest.raises(AssertionError, match="never changes its cluster"):
        run_task(disk, adopt_cluster(identity, "c2", None))


def test_every_flipped_bit_of_an_identity_is_refused() -> None:
    content = encode_identity(Identity(77, "c1", CONF))
    for offset in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[offset] ^= 1 << bit
            with pytest.raises(CorruptionError, match=r"identity: .* must rejoin as a new one"):
                decode_identity(bytes(damaged))


def test_every_prefix_of_an_identity_is_refused() -> None:
    content = encode_identity(Identity(77, "c1", CONF))
    for length in range(len(content)):
        with pytest.raises(CorruptionError):
            decode_identity(content[:length])


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"member_id":0}',
        b'{"member_id":18446744073709551616}',
        b'{"member_id":"1"}',
        b'{"member_id":1,"cluster":"c"}',
        b"[" * 100000,
    ],
)
def test_a_sound_file_with_a_wrong_identity_is_refused(body: bytes) -> None:
    content = b"raftkv identity 1 crc32c %08x\n%s" % (google_crc32c.value(body), body)
    with pytest.raises(CorruptionError):
        decode_identity(content)


def test_a_damaged_identity_is_refused_and_left_as_it_is() -> None:
    disk = SimDisk()
    found_on(disk)
    disk.flip_bit("identity", 40)
    before = {path: disk.read(path) for path in disk.paths()}
    with pytest.raises(CorruptionError, match="identity: the checksum does not match"):
        restart(disk)
    assert {path: disk.read(path) for path in disk.paths()} == before


def test_a_log_without_identity_is_refused_and_left_as_it_is() -> None:
    disk = SimDisk()
    found_on(disk)
    disk.remove("identity")
    before = {path: disk.read(path) for path in disk.paths()}
    with pytest.raises(
        ForeignDirectoryError, match="no identity file but holds 'snapshots', 'wal'"
    ):
        restart(disk)
    assert {path: disk.read(path) for path in disk.paths()} == before


def test_a_foreign_directory_is_refused_and_left_as_it_is() -> None:
    disk = SimDisk()
    for name in ("holiday.jpg", "a", "b", "c"):
        disk.write(name, b"mine")
    with pytest.raises(ForeignDirectoryError, match="holds 'a', 'b', 'c' and 1 more: ") as raised:
        open_on(disk)
    assert "\n" not in str(raised.value)
    assert disk.paths() == ["a", "b", "c", "holiday.jpg"]


def test_what_a_fresh_volume_or_a_start_cut_short_left_is_no_obstacle() -> None:
    disk = SimDisk()
    for name in ("lock", "lost+found", ".snapshot", "identity.tmp"):
        disk.write(name, b"")
    recovered = open_on(disk)
    assert recovered.identity.member_id != 0
    assert "identity.tmp" not in disk.paths()
