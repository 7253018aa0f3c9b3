"""What clients are routed to, and since when, as the EndpointSlices tell."""

from typing import Any

import pytest

from raftkv_operator import names
from raftkv_operator.clusters import ClusterKey
from raftkv_operator.endpoints import Endpoints, Routing, routed_to
from raftkv_operator.objects import JsonObject

KEY = ClusterKey("default", "demo")


def slice_of(service: str, *endpoints: JsonObject) -> JsonObject:
    labels = {**names.labels("demo"), names.LABEL_SERVICE: service}
    return {"metadata": {"name": f"{service}-x", "labels": labels}, "endpoints": list(endpoints)}


def endpoint(uid: str | None, ip: str, ready: bool | None = True) -> JsonObject:
    conditions = {} if ready is None else {"ready": ready}
    target = {} if uid is None else {"targetRef": {"kind": "Pod", "uid": uid}}
    return {"addresses": [ip], "conditions": conditions, **target}


def pod(uid: str, *ips: str) -> JsonObject:
    status: dict[str, Any] = {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]} if ips else {}
    return {"metadata": {"uid": uid}, "status": status}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([], set()),
        ([{"metadata": {"labels": {names.LABEL_SERVICE: "demo"}}, "endpoints": None}], set()),
        ([slice_of("demo", endpoint("a", "10.0.0.1"))], {"a", "10.0.0.1"}),
        ([slice_of("demo", endpoint("a", "10.0.0.1", ready=False))], set()),
        ([slice_of("demo", endpoint("a", "10.0.0.1", ready=None))], {"a", "10.0.0.1"}),
        ([slice_of("demo", endpoint(None, "10.0.0.1"))], {"10.0.0.1"}),
        ([slice_of("demo-peers", endpoint("a", "10.0.0.1"))], set()),
        ([slice_of("other", endpoint("a", "10.0.0.1"))], set()),
        (
            [
                slice_of("demo", endpoint("a", "10.0.0.1", ready=False)),
                slice_of("demo", endpoint("a", "fd00::1")),
            ],
            {"a", "fd00::1"},
        ),
    ],
)
def test_rule_19_routed_to_what_any_slice_of_the_client_service_holds_as_ready(
    slices: list[JsonObject], expected: set[str]
) -> None:
    assert routed_to("demo", slices) == expected


def test_rule_18_seconds_begin_when_the_change_was_seen() -> None:
    clock = Clock()
    endpoints = Endpoints(clock)
    routed = [slice_of("demo", endpoint("a", "10.0.0.1"))]
    assert endpoints.look(KEY, [pod("a", "10.0.0.1")], []) == {"a": Routing(False, 0.0)}
    clock.now += 5
    assert endpoints.look(KEY, [pod("a", "10.0.0.1")], routed) == {"a": Routing(True, 0.0)}
    clock.now += 2
    assert endpoints.look(KEY, [pod("a", "10.0.0.1")], routed) == {"a": Routing(True, 2.0)}
    clock.now += 2
    assert endpoints.look(KEY, [pod("a", "10.0.0.1")], routed) == {"a": Routing(True, 4.0)}
    assert endpoints.look(KEY, [pod("a", "10.0.0.1")], []) == {"a": Routing(False, 0.0)}


def test_rule_18_new_pod_of_the_same_name_begins_anew() -> None:
    clock = Clock()
    endpoints = Endpoints(clock)
    endpoints.look(KEY, [pod("a", "10.0.0.1")], [slice_of("demo", endpoint("a", "10.0.0.1"))])
    clock.now += 60
    seen = endpoints.look(
        KEY, [pod("b", "10.0.0.9")], [slice_of("demo", endpoint("b", "10.0.0.9"))]
    )
    assert seen == {"b": Routing(True, 0.0)}


def test_rule_19_address_of_a_pod_counts_in_every_family() -> None:
    endpoints = Endpoints(Clock())
    slices = [slice_of("demo", endpoint(None, "fd00::1"))]
    seen = endpoints.look(KEY, [pod("a", "10.0.0.1", "fd00::1"), pod("b")], slices)
    assert seen == {"a": Routing(True, 0.0), "b": Routing(False, 0.0)}


def test_rule_18_new_operator_waits_once_more() -> None:
    clock = Clock()
    routed = [slice_of("demo", endpoint("a", "10.0.0.1"))]
    first = Endpoints(clock)
    first.look(KEY, [pod("a", "10.0.0.1")], routed)
    clock.now += 60
    assert first.look(KEY, [pod("a", "10.0.0.1")], routed) == {"a": Routing(True, 60.0)}
    assert Endpoints(clock).look(KEY, [pod("a", "10.0.0.1")], routed) == {"a": Routing(True, 0.0)}


def test_deleted_cluster_is_forgotten() -> None:
    clock = Clock()
    endpoints = Endpoints(clock)
    endpoints.look(KEY, [pod("a", "10.0.0.1")], [])
    clock.now += 60
    endpoints.forget(KEY)
    endpoints.forget(KEY)
    assert endpoints.look(KEY, [pod("a", "10.0.0.1")], []) == {"a": Routing(False, 0.0)}
