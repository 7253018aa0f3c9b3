"""The ratios that are to be reached, set before anything was measured."""

from typing import Final

from benchmarks import closed_loop, failover, latency, store
from benchmarks.samples import ETCD, GRPC, JSON, Bar

_PUT_64: Final = closed_loop.PUT_64.metric("throughput")
_GET_64: Final = closed_loop.GET_64.metric("throughput")
_PUT_1: Final = closed_loop.PUT_1.metric("throughput")
_HALF_P99: Final = latency.Case(0, name=latency.HALF_OF_PEAK).metric("PUT", "p99")

BARS: Final = (
    Bar("PUT, 64 clients, against gRPC", _PUT_64, GRPC, 1.5, 3.0),
    Bar("PUT, 64 clients, against JSON", _PUT_64, JSON, 3.0, 5.0),
    Bar("linearizable GET, 64 clients, against gRPC", _GET_64, GRPC, 1.0, 2.0),
    Bar("linearizable GET, 64 clients, against JSON", _GET_64, JSON, 2.0, 4.0),
    Bar("PUT, one client, against gRPC", _PUT_1, GRPC, 1.0, 1.3),
    Bar("p99 of PUT at half of etcd's JSON peak, open loop", _HALF_P99, JSON, 1.0, 0.5),
    Bar("leader killed: until the first accepted write", failover.FIRST_WRITE, ETCD, 0.6, 0.4),
    Bar("resident memory a key, large store", store.MEMORY, ETCD, 1.0, 0.7),
)
