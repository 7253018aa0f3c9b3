"""What the harness reads of other programs: answers, events, the output of etcd's tool."""

from base64 import b64encode

import pytest

from benchmarks.dialects import ETCD_JSON, RAFTKV, answer_bytes, value_of
from benchmarks.etcd_tool import count_for, parse, sequential_key
from benchmarks.systems import Etcd, RaftKV
from benchmarks.watchers import STREAMS
from benchmarks.workloads import GET, KEY_BYTES, PUT, TRANSACTIONS, VALUE_BYTES, key, mixed


def answer(status: int, body: bytes = b"", *heads: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d X" % status, *heads, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_an_answer_ends_where_its_head_says() -> None:
    whole = answer(200, b"abc")
    assert answer_bytes(whole + b"HTTP") == len(whole)
    assert answer_bytes(whole[:20]) is None
    with pytest.raises(ValueError, match="without a length"):
        answer_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_answers_of_raftkv() -> None:
    assert RAFTKV.written(answer(201, b"{}", b'ETag: "17"')).revision == 17
    assert RAFTKV.written(answer(429, b'{"outcome":"not_committed"}')).outcome == "refused"
    assert RAFTKV.written(answer(504, b'{"outcome":"unknown"}')).outcome == "unknown"
    read = RAFTKV.read(answer(200, value_of(42, 256), b"X-RaftKV-Mod-Revision: 9"))
    assert (read.outcome, read.number, read.revision) == ("done", 42, 9)
    absent = RAFTKV.read(answer(404, b"{}", b"X-RaftKV-Revision: 9"))
    assert (absent.outcome, absent.number, absent.revision) == ("done", -1, 0)


def test_answers_of_etcd() -> None:
    head = b'{"header":{"cluster_id":"1","revision":"17","raft_term":"2"}'
    assert ETCD_JSON.written(answer(200, head + b"}")).revision == 17
    assert ETCD_JSON.written(answer(503, b"{}")).outcome == "unknown"
    kv = b'{"key":"aw==","mod_revision":"9","value":"%s"}' % b64encode(value_of(42, 256))
    read = ETCD_JSON.read(answer(200, head + b',"kvs":[' + kv + b'],"count":"1"}'))
    assert (read.outcome, read.number, read.revision) == ("done", 42, 9)
    absent = ETCD_JSON.read(answer(200, head + b"}"))
    assert (absent.outcome, absent.number, absent.revision) == ("done", -1, 0)


def test_events_of_both_systems_also_where_chunks_cut_them() -> None:
    item = b'{"key":"fan/7","key_encoding":"utf-8","value":"3 1.5","x":1}'
    assert list(STREAMS["RaftKV"].events(b"event: put\ndata: " + item + b"\n\n")) == [(7, 3, 1.5)]
    kv = b'"key":"%s","create_revision":"2","mod_revision":"5","version":"4","value":"%s"'
    line = kv % (b64encode(b"fan/7"), b64encode(b"3 1.5"))
    text = (
        b'1ff\r\n{"result":{"events":[{"kv":{' + line[:30] + b"\r\n2a\r\n" + line[30:] + b"}}]}}\n"
    )
    assert list(STREAMS["etcd JSON"].events(text)) == [(7, 3, 1.5)]


SAID = """
Summary:
  Total:\t2.9339 secs.
  Requests/sec:\t6816.9624

Latency distribution:
  10% in 0.0057 secs.
  50% in 0.0085 secs.
  99% in 2.03e-02 secs.
"""


def test_what_etcds_tool_prints() -> None:
    result = parse(SAID, 20_000)
    assert (result.per_second, result.p50_ms, result.p99_ms) == pytest.approx(
        (6816.9624, 8.5, 20.3)
    )
    assert result.errors == ()
    assert count_for(result, 2.0) == 13_634
    failed = parse(SAID + "\nError distribution:\n  [3]\tetcdserver: too many requests\n", 20_000)
    assert failed.errors == ("[3]\tetcdserver: too many requests",)
    with pytest.raises(ValueError, match="no result"):
        parse("Error: no endpoints", 1)


def test_keys_of_etcds_tool_are_zigzag_varints() -> None:
    assert sequential_key(0) == "\0" * 16
    assert sequential_key(1).encode("latin-1") == b"\x02" + b"\0" * 15
    assert sequential_key(100).encode("latin-1") == b"\xc8\x01" + b"\0" * 14


def test_both_systems_are_asked_for_the_same() -> None:
    for system in (RaftKV, Etcd):
        for workload in (PUT, GET, TRANSACTIONS):
            requests = workload.requests(system.api, 300)
            assert len(requests) == (3 if workload is TRANSACTIONS else 300)
            assert not any("\n" in request.body for request in requests)
    assert len(key(3)) == KEY_BYTES
    assert {len(each.body) for each in PUT.requests(RaftKV.api, 5)} == {VALUE_BYTES}
    ours, theirs = mixed(RaftKV.api, 100), mixed(Etcd.api, 100)
    writes = [each.method == "PUT" for each in ours]
    assert writes == [each.path == "/v3/kv/put" for each in theirs]
    assert 0.08 < sum(writes) / len(writes) < 0.12
