"""What counts as drift, and what the API server's additions are not."""

import copy
from collections.abc import Callable
from decimal import Decimal

import pytest

from raftkv_operator.drift import has_drifted, quantity
from raftkv_operator.objects import JsonObject, ObjectKey
from tests.operator.examples import cluster, live_objects

OBJECTS = live_objects(cluster())
STATEFUL_SET = OBJECTS[ObjectKey("StatefulSet", "demo")]
SERVICE = OBJECTS[ObjectKey("Service", "demo")]

Change = Callable[[JsonObject], object]


def container(item: JsonObject) -> JsonObject:
    found: JsonObject = item["spec"]["template"]["spec"]["containers"][0]
    return found


NOT_DRIFT: list[tuple[str, JsonObject, Change]] = [
    ("nothing", STATEFUL_SET, lambda _: None),
    ("status", STATEFUL_SET, lambda o: o.update(status={"replicas": 3})),
    ("default", STATEFUL_SET, lambda o: container(o).update(terminationMessagePath="/dev/x")),
    ("label", STATEFUL_SET, lambda o: o["metadata"]["labels"].update(team="a")),
    ("assigned address", SERVICE, lambda o: o["spec"].update(clusterIP="10.0.0.1")),
    ("node port", SERVICE, lambda o: o["spec"]["ports"][0].update(nodePort=30000)),
    (
        "same quantity",
        STATEFUL_SET,
        lambda o: container(o)["resources"]["requests"].update(cpu="0.1"),
    ),
]
DRIFT: list[tuple[str, JsonObject, Change]] = [
    ("value", STATEFUL_SET, lambda o: container(o).update(image="other")),
    ("missing", STATEFUL_SET, lambda o: o["spec"].pop("replicas")),
    ("removed label", SERVICE, lambda o: o["metadata"]["labels"].clear()),
    ("longer list", SERVICE, lambda o: o["spec"]["ports"].append({"port": 1})),
    ("shorter list", STATEFUL_SET, lambda o: container(o)["env"].pop()),
    ("wider selector", SERVICE, lambda o: o["spec"]["selector"].clear()),
    ("narrower selector", SERVICE, lambda o: o["spec"]["selector"].update(a="b")),
    (
        "other quantity",
        STATEFUL_SET,
        lambda o: container(o)["resources"]["requests"].update(cpu="200m"),
    ),
    ("another kind of value", SERVICE, lambda o: o.update(spec=None)),
]


def after(item: JsonObject, change: Change) -> JsonObject:
    changed = copy.deepcopy(item)
    change(changed)
    return changed


@pytest.mark.parametrize(
    ("item", "change"), [case[1:] for case in NOT_DRIFT], ids=[case[0] for case in NOT_DRIFT]
)
def test_addition_of_the_api_server_is_no_drift(item: JsonObject, change: Change) -> None:
    assert not has_drifted(item, after(item, change))


@pytest.mark.parametrize(
    ("item", "change"), [case[1:] for case in DRIFT], ids=[case[0] for case in DRIFT]
)
def test_change_by_someone_is_drift(item: JsonObject, change: Change) -> None:
    assert has_drifted(item, after(item, change))


def test_field_that_left_the_spec_is_noticed_by_the_applied_hash() -> None:
    before = live_objects(cluster(service={"annotations": {"a": "b"}}))
    assert has_drifted(SERVICE, before[ObjectKey("Service", "demo")])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", Decimal(1)),
        ("100m", Decimal("0.1")),
        ("1Gi", Decimal(2**30)),
        ("1024Mi", Decimal(2**30)),
        ("1G", Decimal(10**9)),
        ("1.5k", Decimal(1500)),
        ("x", None),
        ("", None),
    ],
)
def test_quantity(text: str, value: Decimal | None) -> None:
    assert quantity(text) == value
