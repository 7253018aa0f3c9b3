"""What is fuzzed: each target takes any bytes and raises only if a promise was broken.

A target drives one decoder the way the product does, and lets through only the errors that the
decoder's docstring names. Checksums would keep random bytes out, so most targets seal what they
are given: the fuzzer then meets what lies behind the checksum. The first byte chooses how.

Run by `tests.fuzz` under atheris for as long as one likes, and by `test_targets.py` on the seeds
and a few thousand changed ones.
"""

import asyncio
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, cast

import google_crc32c
from multidict import CIMultiDict

from raftkv.kv.environment import decode_state, encode_state
from raftkv.node.requests import _decode_reply, _is_command
from raftkv.raft.confchange import decode_config_change
from raftkv.raft.messages import Append as AppendMessage
from raftkv.raft.messages import Entry, EntryType, HardState, NodeId, decode_conf_state
from raftkv.raft.validation import is_plausible
from raftkv.server.frames import (
    PREAMBLE,
    FrameReader,
    Hello,
    ProbeReply,
    ProtocolError,
    Refused,
    Reply,
    decode_opening,
    decode_peer_frame,
    decode_reply,
    encode,
)
from raftkv.server.http import (
    conditions,
    guards,
    leases,
    locks,
    membership,
    ranges,
    requests,
    targets,
    txns,
    watching,
)
from raftkv.server.http import problems as http_problems
from raftkv.server.http.app import create_server
from raftkv.server.http.routes import Listener
from raftkv.server.http.settings import HttpSettings
from raftkv.server.metrics import Metrics
from raftkv.server.peer_connection import Certificate, Incoming
from raftkv.storage.disk import run_task
from raftkv.storage.errors import CorruptionError, SnapshotRefusedError, StorageError
from raftkv.storage.identity import decode_identity, encode_identity
from raftkv.storage.record import (
    HEADER_BYTES,
    decode_frame,
    decode_record,
    encode_frame,
    encode_record,
    find_later_frame,
    frame_bytes,
)
from raftkv.storage.snapshots import (
    HEADER_BYTES as SNAPSHOT_HEADER_BYTES,
)
from raftkv.storage.snapshots import (
    Checksum,
    decode_header,
    decode_trailer,
    verify_snapshot,
)
from tests.server.http.fake_driver import FakeDriver
from tests.simulation.disk import SimDisk
from tests.storage.support import (
    SEGMENT_BYTES,
    found_on,
    frames_of,
    make_entries,
    open_on,
    restart,
    segment_path,
    state_of,
)

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

Target = Callable[[bytes], None]


class Taken:
    """Cuts the fuzzer's bytes into choices."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def number(self, size: int) -> int:
        """The next ``size`` bytes; zeros if there are none left."""
        taken, self.rest = self.rest[:size], self.rest[size:]
        return int.from_bytes(taken, "little")

    def pieces(self) -> list[bytes]:
        """The rest, cut at every two bytes ``fe fd``: what a fuzzer finds and keeps."""
        return self.rest.split(b"\xfe\xfd")


def _must(promised: object) -> None:
    """Of an error that was expected: what else must hold of it."""
    assert promised


# ---- the log -------------------------------------------------------------------------------


def wal_frame(data: bytes) -> None:
    """Frames and records: undamaged ones come out as they went in, others not at all."""
    taken = Taken(data)
    mode = taken.number(1)
    content = taken.rest
    if mode % 2:
        chunks, _ = encode_frame(content, salt=mode, sequence=7, durable_sequence=6, previous_crc=5)
        content = b"".join(chunks)
    frame = decode_frame(content, 0)
    assert (frame is not None) or not mode % 2
    find_later_frame(content, 0, sequence=1, salt=mode)
    if frame is None:
        return
    again, crc = encode_frame(
        frame.payload,
        salt=frame.salt,
        sequence=frame.sequence,
        durable_sequence=frame.durable_sequence,
        previous_crc=frame.previous_crc,
    )
    used = HEADER_BYTES + len(frame.payload)
    assert (b"".join(again)[:used], crc) == (content[:used], frame.crc)
    try:
        record = decode_record(frame.payload)
    except ValueError:
        return
    assert decode_record(encode_record(record)) == record


@cache
def _log() -> SimDisk:
    disk = SimDisk()
    recovered = found_on(disk)
    run_task(disk, recovered.wal.append(HardState(1, 7, 0), make_entries(1, 3)))
    run_task(disk, recovered.wal.append(HardState(2, None, 2), make_entries(4, 2, term=2)))
    disk.kill()
    return disk


def wal_recovery(data: bytes) -> None:
    """A directory with a made-up log: recovered, the same again a second time, or refused."""
    disk = _log().clone()
    path = segment_path("00000001.active")
    content = bytearray(disk.read(path))
    taken = Taken(data)
    mode = taken.number(1)
    if mode % 3 == 0:
        place = taken.number(2) % len(content)
        content[place : place + len(taken.rest)] = taken.rest
        del content[SEGMENT_BYTES:]
    else:
        frames = list(frames_of(bytes(content)))
        kept = frames[: mode % len(frames)] if mode % 3 == 1 else frames
        at = kept[-1].end if kept else 0
        crc = kept[-1].crc if kept else 0
        sequence = kept[-1].sequence if kept else 0
        for payload in taken.pieces():
            if at + frame_bytes(len(payload)) > len(content):
                break
            sequence += 1
            chunks, crc = encode_frame(
                payload,
                salt=frames[0].salt,
                sequence=sequence,
                durable_sequence=sequence - 1,
                previous_crc=crc,
            )
            written = b"".join(chunks)
            content[at : at + len(written)] = written
            at += len(written)
        content[at:] = bytes(len(content) - at)
    disk.write(path, bytes(content))
    _opens_or_refuses(disk)


def _opens_or_refuses(disk: SimDisk) -> None:
    before = {path: disk.read(path) for path in disk.paths()}
    try:
        recovered = open_on(disk)
    except StorageError as error:
        _must(str(error))
        _must({path: disk.read(path) for path in disk.paths()} == before)
        return
    assert recovered.hard_state.commit <= state_of(recovered).last_index
    assert state_of(restart(disk)) == state_of(recovered)


def identity(data: bytes) -> None:
    """An identity file: what it says, or refused; what is read is written the same."""
    taken = Taken(data)
    mode = taken.number(1)
    content = taken.rest
    if mode:
        body = content.rstrip(b"\n") + b"\n"
        content = b"raftkv identity 1 crc32c %08x\n%s" % (google_crc32c.value(body), body)
    try:
        found = decode_identity(content)
    except CorruptionError as error:
        _must("must rejoin as a new one" in str(error))
        return
    assert decode_identity(encode_identity(found)) == found


def env_state(data: bytes) -> None:
    """The file that vouches for the state machine: read, or taken for unreadable."""
    state = decode_state(data)
    assert state is None or decode_state(encode_state(state)) == state


def snapshot_header(data: bytes) -> None:
    """Header and trailer of a snapshot, sealed or not, and files around them."""
    taken = Taken(data)
    mode = taken.number(1)
    block = taken.rest
    if mode % 2:
        payload = block[: SNAPSHOT_HEADER_BYTES - 12]
        fields = b"RKS\x01" + len(payload).to_bytes(4, "little")
        rest = payload.ljust(SNAPSHOT_HEADER_BYTES - 12, b"\0")
        block = fields + google_crc32c.value(fields + rest).to_bytes(4, "little") + rest
    for judge in (
        lambda: decode_header(block),
        lambda: decode_trailer(block[:48], mode),
        lambda: _checksum(block),
    ):
        try:
            judge()
        except ValueError as error:
            _must(str(error))
    disk = _log().clone()
    name = "00000000000000000004-2.snapshot"
    disk.write(f"snapshots/{name}", block)
    try:
        run_task(disk, verify_snapshot(name))
    except (CorruptionError, SnapshotRefusedError) as error:
        _must(name in str(error))


def _checksum(content: bytes) -> None:
    checksum = Checksum()
    for start in range(0, len(content), 1000):
        checksum.update(content[start : start + 1000])
    checksum.verify()


# ---- peers ---------------------------------------------------------------------------------


class _Sink(asyncio.Transport):
    """A socket that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False
        self.is_reading_paused = False
        self.closed: Callable[[], None] = lambda: None
        self.protocol: asyncio.BaseProtocol | None = None

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    @override
    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    @override
    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.closed()

    @override
    def abort(self) -> None:
        self.close()

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    @override
    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    @override
    def is_closing(self) -> bool:
        return self.is_closed

    @override
    def get_write_buffer_size(self) -> int:
        return 0

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _NoSocket() if name == "socket" else default

    @override
    def pause_reading(self) -> None:
        self.is_reading_paused = True

    @override
    def resume_reading(self) -> None:
        self.is_reading_paused = False

    @override
    def is_reading(self) -> bool:
        return not self.is_reading_paused


class _NoSocket:
    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Any option is taken."""

    family, type = 2, 1


class _Owner:
    """The receiving side of peer connections: whoever knows our name may come in."""

    def opened(self, connection: Incoming) -> tuple[Refused, str] | None:
        return None

    def check_hello(
        self, hello: Hello, certificate: Certificate | None
    ) -> tuple[Refused, str] | None:
        return None if hello.receiver == 2 else (Refused.WRONG_RECEIVER, "not me")

    def greeted(self, connection: Incoming, hello: Hello) -> None: ...

    def answer_probe(self, sender: NodeId) -> Reply:
        return ProbeReply("n", 2, None, "running", "h:1", "http://h:2", None, None)

    def received(self, frame: Any) -> None:
        assert frame.receiver == 2

    def refused(self, reason: Refused, origin: object, detail: str) -> None:
        assert reason in Refused

    def closed(self, connection: Incoming) -> None: ...


def peer_stream(data: bytes) -> None:
    """A connection to the peer port: frames are taken or the connection is cut, never more."""
    taken = Taken(data)
    mode, step = taken.number(1), taken.number(1) + 1
    content = taken.rest
    if mode % 4:
        bodies = taken.pieces()
        content = PREAMBLE if mode % 4 == 1 else b""
        for body in bodies:
            content += len(body).to_bytes(4, "little")
            content += google_crc32c.value(body).to_bytes(4, "little") + body
    if mode % 4 == 2:
        reader = FrameReader(expects_preamble=False)
        try:
            for start in range(0, len(content), step):
                for body in reader.feed(content[start : start + step]):
                    decode_reply(body)
        except ProtocolError as error:
            _must(error.reason in Refused)
        return
    if mode % 4 == 3:
        content = PREAMBLE + b"".join(encode(Hello("c1", 1, 2, 0))) + content
    connection, sink = Incoming(_Owner()), _Sink()
    connection.connection_made(sink)
    for start in range(0, len(content), step):
        if not sink.is_closed:
            connection.data_received(content[start : start + step])
    connection.connection_lost(None)


def peer_message(data: bytes) -> None:
    """A body behind its checksum: decoded or refused, and plausible or dropped, never a crash."""
    for decode in (decode_opening, decode_reply):
        try:
            decode(data)
        except ProtocolError:
            continue
    assert _is_command(data) in (True, False)
    assert _decode_reply(data) is not None
    try:
        frame = decode_peer_frame(data)
    except ProtocolError:
        return
    for message in frame.messages:
        if hasattr(message, "receiver"):
            is_plausible(cast("Any", message), 2)
    assert decode_peer_frame(b"".join(encode(frame))[8:]) == frame


def configuration(data: bytes) -> None:
    """The data of an entry with a configuration, and an order to change one."""
    entry = Entry(1, 2, EntryType.CONFIG, data)
    message = AppendMessage(1, 2, 1, 1, 1, 1, 0, (entry,))
    if is_plausible(message, 2):
        assert decode_conf_state(data).voters
    try:
        decode_config_change(data)
    except ValueError as error:
        _must(str(error))


# ---- HTTP ----------------------------------------------------------------------------------


# The version is the request's own, also one that is refused.
_STATUS_LINE: Final = re.compile(rb"HTTP/[0-9]\.[0-9] [1-5][0-9][0-9] ")


async def _serve(content: bytes, step: int) -> bytes:
    server = create_server(
        Listener.CLIENT | Listener.ADMIN,
        FakeDriver(),
        HttpSettings(node_name="n1", linger_seconds=0.0),
        Metrics(),
        host="127.0.0.1",
        authenticate=None,
    )
    # Whoever speaks at first may hand the connection over to another protocol.
    sink = _Sink()
    sink.protocol = server()
    sink.protocol.connection_made(sink)
    is_lost = False

    def now() -> asyncio.Protocol:
        return cast("asyncio.Protocol", sink.get_protocol())

    def lose() -> None:
        nonlocal is_lost
        if not is_lost:
            is_lost = True
            asyncio.get_running_loop().call_soon(now().connection_lost, None)

    sink.closed = lose
    for start in range(0, len(content), step):
        if sink.is_closed:
            break
        now().data_received(content[start : start + step])
        if start % (16 * step) == 0:
            await asyncio.sleep(0)
    # Some turns of the loop for what was asked; nothing here waits for anything else.
    for _ in range(30):
        await asyncio.sleep(0)
    if not sink.is_closed:
        now().eof_received()
        sink.close()
    for _ in range(3):
        await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return bytes(sink.written)


def http_head(data: bytes) -> None:
    """A connection to the client port: what comes back is HTTP, and never a bug of the server."""
    taken = Taken(data)
    step = taken.number(1) + 1
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(_raise_later)
        _UNHANDLED.clear()
        written = runner.run(_serve(taken.rest[:4096], step))
    assert not _UNHANDLED, _UNHANDLED
    assert not written or _STATUS_LINE.match(written), written[:100]
    assert b'"code":"internal"' not in written, written
    assert b" 500 " not in written[:40]


_UNHANDLED: Final[list[str]] = []


def _raise_later(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _UNHANDLED.append(repr(context))


_BODIES: Final[tuple[Callable[[bytes], object], ...]] = (
    lambda body: txns.parse_txn(body, 1 << 20),
    leases.parse_grant,
    lambda body: locks.parse_acquire(b"name", body, b"owner"),
    lambda body: membership.parse_bootstrap("", body),
    lambda body: membership.parse_drain("POST", "", body),
    membership.parse_add,
    lambda body: membership.parse_replace("00000000000000ab", body),
    membership.parse_transfer,
    membership.parse_compact,
)


def json_body(data: bytes) -> None:
    """Every JSON body that a call takes: understood, or refused by name."""
    for parse in _BODIES:
        try:
            parse(data)
        except http_problems.Refused as refused:
            _must(400 <= refused.problem.kind.status < 500)


def http_target(data: bytes) -> None:
    """Targets, queries and header values: understood, or refused by name."""
    text = Taken(data).rest.decode("utf-8", "surrogateescape")
    first, _, second = text.partition("\n")
    headers = CIMultiDict[str](
        [
            (name, second)
            for name in (
                *("If-Match", "If-None-Match", "Idempotency-Key", "X-RaftKV-Fence"),
                *("Last-Event-ID", "Accept", "X-RaftKV-Config-Index", "Host", "Origin"),
            )
        ]
    )
    try:
        path, query = targets.split_target(first)
    except http_problems.Refused:
        path, query = "/", "".join(each for each in first if each.isascii())
    for parse in cast(
        "tuple[Callable[[], object], ...]",
        (
            lambda: targets.key_of_path(path),
            lambda: targets.key_of_base64url(path),
            lambda: ranges.parse_range(query, [second]),
            lambda: ranges.parse_delete(query, CIMultiDict()),
            lambda: requests.parse_read(b"k", query, headers),
            lambda: requests.parse_write("PUT", b"k", query, headers),
            lambda: requests.parse_write("POST", b"k", query, CIMultiDict()),
            lambda: watching.parse_watch(query, headers),
            lambda: guards.parse_guards(headers),
            lambda: conditions.parse_tags("If-Match", [second]),
            lambda: conditions.write_condition([second], []),
            lambda: leases.parse_list(query),
            lambda: locks.parse_list(query),
            lambda: locks.release(b"name", second),
            lambda: requests.check_head(headers, is_write=True, must_be_local=True),
            lambda: membership.parse_config_index(headers),
        ),
    ):
        try:
            parse()
        except http_problems.Refused as refused:
            _must(400 <= refused.problem.kind.status < 500)


TARGETS: Final[Mapping[str, Target]] = {
    target.__name__: target
    for target in (
        wal_frame,
        wal_recovery,
        identity,
        env_state,
        snapshot_header,
        peer_stream,
        peer_message,
        configuration,
        http_head,
        http_target,
        json_body,
    )
}
