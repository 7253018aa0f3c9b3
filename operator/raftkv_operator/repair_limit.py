"""How often one object is repaired, when someone keeps changing it back.

Asked by `execute` before each repair. A first repair is made at once. What is changed again soon
after it was repaired is contested: by a second operator that wants it otherwise, by another
controller, or by an API server that does not keep what it is given. The answer cannot be to
write several times a second for ever. Kept in memory: an operator that starts anew repairs at
once, and nothing depends on what it forgot.
"""

from collections.abc import Callable

from msgspec import Struct

from raftkv_operator.actions import Apply
from raftkv_operator.objects import JsonObject

REPAIR_INTERVAL_SECONDS = 10.0
# An object that was left alone for so long is no longer contested.
_FORGET_SECONDS = 3 * REPAIR_INTERVAL_SECONDS


class _Repair(Struct, frozen=True):
    item: JsonObject  # what was applied
    at: float  # by the monotonic clock, in seconds


class RepairLimit:
    """The last repair of each object, by its uid."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._last: dict[str, _Repair] = {}

    def is_contested(self, repair: Apply) -> bool:
        """Whether the object was changed again after the same repair was made not long ago."""
        return self._seconds_since(repair) is not None

    def take(self, repair: Apply) -> bool:
        """Whether ``repair`` may be made now; a creation always may."""
        seconds = self._seconds_since(repair)
        if seconds is not None and seconds < REPAIR_INTERVAL_SECONDS:
            return False
        if repair.live_uid is not None:
            self._last[repair.live_uid] = _Repair(repair.item, self._monotonic())
        return True

    def _seconds_since(self, repair: Apply) -> float | None:
        """Since the same was applied to the same object; None: not within living memory."""
        now = self._monotonic()
        self._last = {
            uid: last for uid, last in self._last.items() if now - last.at < _FORGET_SECONDS
        }
        last = None if repair.live_uid is None else self._last.get(repair.live_uid)
        return None if last is None or last.item != repair.item else now - last.at
