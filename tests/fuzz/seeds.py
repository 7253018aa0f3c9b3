"""What fuzzing begins with: sound inputs made by the product's own encoders, for each target.

Nothing is stored: `seeds_of` makes them anew, the same each time.
"""

from collections.abc import Iterator
from random import Random

from raftkv.kv.environment import Circumstances, EnvironmentState, encode_state
from raftkv.node.messages import (
    ForwardReplies,
    ForwardWrites,
    PeerFrame,
    SnapshotAck,
    SnapshotChunk,
    SnapshotOffer,
    StateHash,
)
from raftkv.raft.confchange import AddLearner, ReplaceMember, encode_config_change
from raftkv.raft.messages import (
    Append as AppendMessage,
)
from raftkv.raft.messages import (
    ConfState,
    EntryId,
    HardState,
    Heartbeat,
    Member,
    ReadIndexResp,
    Vote,
    encode_conf_state,
)
from raftkv.server.frames import PREAMBLE, Hello, Probe, ProbeReply, Refusal, Welcome, encode
from raftkv.storage.identity import Identity, encode_identity
from raftkv.storage.record import Append, encode_record
from tests.storage.support import frames_of, make_entries, sample_log, segment_path, sent_snapshot

CUT = b"\xfe\xfd"
CONF = ConfState(voters=(1, 2), members=(Member(2, "n2", "h:1", "http://h:2"),))


def seeds_of(target: str) -> list[bytes]:
    """The seeds of the target with this name."""
    return list(_MAKERS[target]())


def changed(seeds: list[bytes], count: int, rng: Random) -> Iterator[bytes]:
    """``count`` inputs near the seeds: bits flipped, parts cut, doubled, exchanged."""
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 5)):
            if not data:
                data += rng.randbytes(8)
            start = rng.randrange(len(data))
            end = min(len(data), start + rng.choice((1, 1, 2, 8, 64)))
            match rng.randrange(6):
                case 0:
                    data[start] ^= 1 << rng.randrange(8)
                case 1:
                    data[start] = rng.choice((0, 1, 0x7F, 0x80, 0xC1, 0xDD, 0xFF))
                case 2:
                    del data[start:end]
                case 3:
                    data[start:start] = data[start:end]
                case 4:
                    data[start:end] = rng.randbytes(end - start)
                case _:
                    other = rng.choice(seeds)
                    cut = rng.randrange(len(other) + 1)
                    data[start:end] = other[cut : cut + 64]
        yield bytes(data)


def _payloads() -> list[bytes]:
    sample = sample_log()
    content = sample.disk.read(segment_path("00000001.sealed"))
    return [frame.payload for frame in frames_of(content)]


def _wal_frame() -> Iterator[bytes]:
    for payload in _payloads():
        yield b"\1" + payload
    disk = sample_log().disk
    yield b"\0" + disk.read(segment_path("00000002.sealed"))[:1536]


def _wal_recovery() -> Iterator[bytes]:
    yield b"\0\x00\x02" + bytes(600)
    payloads = _payloads()
    yield b"\1" + CUT.join(payloads[:6])
    yield b"\2" + CUT.join(payloads[3:6])
    more = [
        Append(None, make_entries(6, 2, term=2)),
        Append(HardState(3, 9, 4), make_entries(5, 1, term=3)),
        Append(HardState(3, 9, 5), []),
    ]
    yield b"\2" + CUT.join(encode_record(record) for record in more)


def _identity() -> Iterator[bytes]:
    for identity in (Identity(7), Identity(1 << 63, "c1"), Identity(3, "c", CONF)):
        content = encode_identity(identity)
        yield b"\0" + content
        yield b"\1" + content.partition(b"\n")[2]


def _env_state() -> Iterator[bytes]:
    for is_clean in (True, False):
        yield encode_state(EnvironmentState(1, is_clean, Circumstances("b-1", 5, 77, "ab" * 16)))


def _snapshot_header() -> Iterator[bytes]:
    sent = sent_snapshot(EntryId(2, 4))
    yield b"\0" + sent.content
    length = int.from_bytes(sent.content[4:8], "little")
    yield b"\1" + sent.content[12 : 12 + length]


def _messages() -> list[PeerFrame]:
    info = sent_snapshot(EntryId(2, 4)).info
    messages = (
        AppendMessage(1, 2, 3, 1, 1, 4, 4, tuple(make_entries(5, 2))),
        Heartbeat(1, 2, 3, 1, 4, 9),
        Vote(1, 2, 4, 3, 7),
        ReadIndexResp(1, 2, 4, 1 << 40, None),
    )
    others = (
        ForwardWrites(7, ((1, b"\x92\x01\xa1k"), (2, b""))),
        ForwardReplies(7, ()),
        StateHash(1024, bytes(32), is_answer=True),
        SnapshotOffer(5, 3, 1, info),
        SnapshotChunk(5, 0, bytes(100)),
        SnapshotAck(5, None),
    )
    return [PeerFrame("c1", 1, 2, (message,)) for message in (*messages, *others)]


def _peer_message() -> Iterator[bytes]:
    for frame in _messages():
        yield encode(frame)[1]
    for opening in (Hello("c1", 1, 2, 0), Probe(9)):
        yield encode(opening)[1]
    for reply in (Welcome(), Refusal("version", "no"), _reply()):
        yield encode(reply)[1]


def _configuration() -> Iterator[bytes]:
    yield encode_conf_state(CONF)
    yield encode_config_change(AddLearner(CONF.members[0]))
    yield encode_config_change(ReplaceMember(1, 2))


def _reply() -> ProbeReply:
    return ProbeReply("n", 2, None, "running", "h:1", "http://h:2", "d", lists_sender=True)


def _peer_stream() -> Iterator[bytes]:
    bodies = CUT.join(encode(frame)[1] for frame in _messages()[:4])
    for step in (0, 6, 255):
        yield bytes((1, step)) + encode(Hello("c1", 1, 2, 0))[1] + CUT + bodies
        yield bytes((3, step)) + bodies
    yield b"\2\x10" + encode(Welcome())[1] + CUT + bodies
    yield b"\0\xff" + PREAMBLE + b"".join(encode(Probe(9)))
    yield b"\0\xffGET / HTTP/1.1\r\n\r\n"


_HEADS = (
    b"GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PUT /v1/kv/a%2fb?lease=00000000000000ab HTTP/1.1\r\nHost: localhost\r\n"
    b'Content-Length: 5\r\nIf-Match: "7", W/"8-j"\r\nIdempotency-Key: k1\r\n\r\nhello',
    b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n",
    b"POST /v1/kv/n?op=increment&by=-3 HTTP/1.0\r\nHost: localhost\r\n\r\n",
    b"DELETE /v1/kv?prefix=a&all=false HTTP/1.1\r\nhost: localhost\r\nExpect: 100-continue\r\n\r\n",
    b'POST /v1/txn HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17\r\n\r\n{"success":[{}]}\n',
    b"GET /v1/kv?prefix=a&limit=3&order=desc HTTP/1.1\r\nHost: localhost\r\n"
    b"Accept: application/x-ndjson\r\nConnection: close\r\n\r\n",
    b"HEAD /v1/k/YQ== HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n",
    b'POST /v1/locks/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{"ttl":"30s"}',
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://other/v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
)


def _http_head() -> Iterator[bytes]:
    for head in _HEADS:
        yield b"\xff" + head
    yield b"\0" + _HEADS[1]
    yield b"\6" + b"".join(_HEADS[:3])


def _http_target() -> Iterator[bytes]:
    for target, value in (
        (b"/v1/kv/a%00%ff", b'"7", "8-j"'),
        (b"/v1/k/YWI", b"*"),
        (b"/?prefix=a%2fb&delimiter=%2f&limit=5&revision=7&order=desc&keys_only=true", b""),
        (b"/?start=a&end=b&all=true&consistency=bounded&max_stale=1m30s", b"text/plain;q=0.3"),
        (b"/?consistency=local&min_revision=9&timeout=500ms&wait=30s", b"k-1"),
        (b"/?lease=00000000000000ab&op=append", b"lock%2f1:77"),
        (b"/?prefix=&from=17&prev=true", b"0123456789abcdef:17"),
        (b"/?cursor=kwcAYWI", b"9"),
    ):
        yield b"\0" + target + b"\n" + value


def _json_body() -> Iterator[bytes]:
    yield (
        b'{"compare":[{"key":"a","mod_revision":7},{"key":"b","exists":false}],"success":['
        b'{"op":"put","key":"a","value":"v","lease":"00000000000000ab"},{"op":"get","key":"b"},'
        b'{"op":"delete","key":"YQ","encoding":"base64"},{"op":"delete_range","prefix":"x"},'
        b'{"op":"append","key":"l","value":"w"},{"op":"increment","key":"n","by":-2}],'
        b'"failure":[]}'
    )
    yield b'{"ttl":"1m30s"}'
    yield b'{"ttl":"30s","wait":"5s","owner":"me","encoding":"utf8"}'
    yield (
        b'{"cluster_id":"c1","members":[{"id":"00000000000000ab","name":"n1",'
        b'"peer_url":"h:1","client_url":"http://h:2"}]}'
    )
    yield b'{"id":"00000000000000ab","name":"n1","peer_url":"h:1","client_url":"http://h:2"}'
    yield b'{"by":"00000000000000cd"}'
    yield b'{"to":"00000000000000cd"}'
    yield b'{"revision":12}'
    yield b'{"drain":true}'
    yield b"[" * 300
    yield b'{"ttl":"30s","ttl":"31s"}'
    yield b'{"ttl":1e999}'


_MAKERS = {
    "wal_frame": _wal_frame,
    "wal_recovery": _wal_recovery,
    "identity": _identity,
    "env_state": _env_state,
    "snapshot_header": _snapshot_header,
    "peer_stream": _peer_stream,
    "peer_message": _peer_message,
    "configuration": _configuration,
    "http_head": _http_head,
    "http_target": _http_target,
    "json_body": _json_body,
}
