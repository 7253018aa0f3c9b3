"""How often one object is repaired."""

from typing import Any

from raftkv_operator.actions import Apply
from raftkv_operator.repair_limit import REPAIR_INTERVAL_SECONDS, RepairLimit


def repair(uid: str | None = "u1", **spec: Any) -> Apply:
    return Apply({"kind": "Service", "metadata": {"name": "demo"}, "spec": spec}, uid)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_first_repair_is_made_at_once_and_the_same_again_after_the_interval() -> None:
    clock = Clock()
    limit = RepairLimit(clock)
    assert not limit.is_contested(repair())
    assert limit.take(repair())
    clock.seconds += REPAIR_INTERVAL_SECONDS - 0.1
    assert limit.is_contested(repair())
    assert not limit.take(repair())
    clock.seconds += 0.1
    assert limit.is_contested(repair()), "it is repaired, but still contested"
    assert limit.take(repair())
    assert not limit.take(repair())


def test_other_objects_other_content_and_creations_are_not_held_back() -> None:
    limit = RepairLimit(Clock())
    for each in (repair(), repair("u2"), repair(port=1), repair(None), repair(None)):
        assert not limit.is_contested(each)
        assert limit.take(each)


def test_an_object_that_was_left_alone_is_no_longer_contested() -> None:
    clock = Clock()
    limit = RepairLimit(clock)
    assert limit.take(repair())
    clock.seconds += 3 * REPAIR_INTERVAL_SECONDS
    assert not limit.is_contested(repair())
    assert limit._last == {}, "what is forgotten takes no memory"
