"""Many watchers of one node in one process: what each receives is counted and timed.

`python -m benchmarks.watchers PORT COUNT SYSTEM` opens COUNT streams of all keys below `fan/` at
127.0.0.1:PORT, of "RaftKV" or "etcd JSON". It prints ``ready`` when all have begun, and after a
line ``end N`` on its input waits until each has seen N events, for a while. Then it prints a
`Tally` as one line of JSON.

Raw sockets, and no more parsing than is needed: a thousand streams are as much work to read as to
write. Writes go to `KEYS` keys in turn, each key having one under way at most. The value of an
event is ``<number> <seconds>``: its place in the order of its key, from 0, and the time of the
monotonic clock, which processes of one machine share, at which it was to be written.
"""

import asyncio
import re
import resource
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final, cast

import msgspec
import uvloop
from typing_extensions import override

KEYS: Final = 100
# Buckets of a tenth of a millisecond; the last one is for all that took longer.
BUCKET_SECONDS: Final = 0.0001
_BUCKETS: Final = 600_000
END_SECONDS_MAX: Final = 40.0
_CONNECTING_MAX: Final = 50
_RAFTKV_EVENT: Final = re.compile(
    rb'"key":"fan/(\d+)","key_encoding":"utf-8","value":"(\d+) ([0-9.]+)"'
)
_ETCD_EVENT: Final = re.compile(
    rb'"key":"([^"]+)","create_revision":"\d+","mod_revision":"\d+","version":"\d+","value":"([^"]+)"'
)
_CHUNK: Final = re.compile(rb"\r\n[0-9a-f]+\r\n")

#: An event: its key's number, its place in the order of the key, when it was due.
Event = tuple[int, int, float]


class Stream(msgspec.Struct, frozen=True):
    """How a system is asked for a stream, and how its events are read."""

    request: Callable[[int], bytes]  # for a port
    beginning: bytes  # what says that the stream has begun
    message_end: bytes
    events: Callable[[bytes], Iterable[Event]]  # in whole messages


def _raftkv_request(port: int) -> bytes:
    return f"GET /v1/watch?prefix=fan/ HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()


def _raftkv_events(data: bytes) -> Iterable[Event]:
    return ((int(key), int(place), float(due)) for key, place, due in _RAFTKV_EVENT.findall(data))


def _etcd_request(port: int) -> bytes:
    span = f'"key":"{b64encode(b"fan/").decode()}","range_end":"{b64encode(b"fan0").decode()}"'
    body = f'{{"create_request":{{{span}}}}}'
    return (
        f"POST /v3/watch HTTP/1.1\r\nHost: localhost:{port}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _etcd_events(data: bytes) -> Iterable[Event]:
    for key64, value64 in _ETCD_EVENT.findall(_CHUNK.sub(b"", data)):
        place, due = b64decode(value64).split()
        yield int(b64decode(key64)[4:]), int(place), float(due)


STREAMS: Final = {
    "RaftKV": Stream(_raftkv_request, b"event: progress", b"\n\n", _raftkv_events),
    "etcd JSON": Stream(_etcd_request, b'"created":true', b"}\n", _etcd_events),
}


class Tally(msgspec.Struct):
    """What all watchers of a process saw."""

    watchers: int
    received: int
    lost: int  # gaps in the order, and what was missing at the end
    doubled: int  # seen before, or out of order
    broken: int  # streams that ended
    reads: int  # from sockets
    #: How many events took how many buckets of `BUCKET_SECONDS`.
    buckets: dict[int, int]

    def percentile_seconds(self, share: float) -> float:
        """The least time within which ``share`` of the events were received."""
        left = share * self.received
        for bucket, count in sorted(self.buckets.items()):
            left -= count
            if left <= 0:
                return (bucket + 1) * BUCKET_SECONDS
        return 0.0


class _All:
    """The counts of all watchers."""

    def __init__(self) -> None:
        self.buckets = [0] * (_BUCKETS + 1)
        self.lost = self.doubled = self.broken = self.reads = 0
        self.watchers: list[_Watcher] = []
        self.begun = 0


class _Watcher(asyncio.Protocol):
    """One stream."""

    def __init__(self, all_: _All, port: int, stream: Stream) -> None:
        self._all = all_
        self._stream = stream
        self._port = port
        self._tail = b""
        self._has_begun = False
        self.count = 0  # of events
        self._next_numbers = [0] * KEYS

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        transport = cast("asyncio.Transport", transport)
        transport.write(self._stream.request(self._port))

    @override
    def data_received(self, data: bytes) -> None:
        now = monotonic()
        all_ = self._all
        all_.reads += 1
        data = self._tail + data
        stream = self._stream
        place = data.rfind(stream.message_end)
        if place < 0:
            self._tail = data
            return
        whole = place + len(stream.message_end)
        self._tail = data[whole:]
        if not self._has_begun and stream.beginning in data:
            self._has_begun = True
            all_.begun += 1
        expected, buckets = self._next_numbers, all_.buckets
        for key, number, due_at in stream.events(data[:whole]):
            if number < expected[key]:
                all_.doubled += 1
                continue
            all_.lost += number - expected[key]
            expected[key] = number + 1
            self.count += 1
            buckets[min(_BUCKETS, int((now - due_at) / BUCKET_SECONDS))] += 1

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._all.broken += 1


async def _run(port: int, count: int, system: str) -> None:
    loop = asyncio.get_running_loop()
    all_ = _All()
    connecting = asyncio.Semaphore(_CONNECTING_MAX)

    async def connect() -> None:
        async with connecting:
            _, watcher = await loop.create_connection(
                lambda: _Watcher(all_, port, STREAMS[system]), "127.0.0.1", port
            )
            all_.watchers.append(watcher)

    await asyncio.gather(*(connect() for _ in range(count)))
    while all_.begun < count and not all_.broken:  # noqa: ASYNC110 counted in a protocol
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    words = (await asyncio.to_thread(sys.stdin.readline)).split()
    total = int(words[1])
    deadline = monotonic() + END_SECONDS_MAX
    while (  # noqa: ASYNC110 counted in a protocol
        any(each.count < total for each in all_.watchers) and monotonic() < deadline
    ):
        await asyncio.sleep(0.02)
    # What left a gap is counted already.
    missing = sum(max(0, total - watcher.count) for watcher in all_.watchers)
    buckets = {bucket: times for bucket, times in enumerate(all_.buckets) if times}
    tally = Tally(
        watchers=count,
        received=sum(buckets.values()),
        lost=max(all_.lost, missing),
        doubled=all_.doubled,
        broken=all_.broken,
        reads=all_.reads,
        buckets=buckets,
    )
    sys.stdout.buffer.write(msgspec.json.encode(tally) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(_run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
