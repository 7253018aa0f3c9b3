"""Whether a live object differs from what should be there, judged from the watch cache (rule 13).

Called by the planner. Pure. Applying an object to learn whether it changed would cost a request
per object and pass. The API server adds defaults, so a live object may hold more than was applied;
it may not hold less, something else, or longer lists.
"""

import re
from decimal import Decimal

from raftkv_operator.objects import JsonObject

# Maps that server-side apply replaces as a whole: an added key is drift there.
_ATOMIC_MAPS = frozenset({"selector", "matchLabels"})
# Below these the API server spells quantities its own way ("1024Mi" becomes "1Gi").
_QUANTITY_MAPS = frozenset({"requests", "limits"})

_QUANTITY = re.compile(r"([+-]?[0-9.]+)([KMGTPE]i|[numkMGTPE])?")
_FACTORS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}


def has_drifted(desired: JsonObject, live: JsonObject) -> bool:
    """Whether applying ``desired`` would change ``live``."""
    return not _is_covered(desired, live, within="")


def quantity(text: str) -> Decimal | None:
    """The value of a Kubernetes quantity, or None when it is none that we know."""
    matched = _QUANTITY.fullmatch(text)
    if matched is None:
        return None
    number, unit = matched.groups()
    return Decimal(number) * _FACTORS.get(unit, Decimal(1))


def _is_covered(desired: object, live: object, *, within: str) -> bool:
    """Whether ``live`` holds ``desired``; ``within`` is the name of the enclosing map."""
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return False
        if within in _ATOMIC_MAPS and desired.keys() != live.keys():
            return False
        return all(
            name in live
            and (
                _is_same_quantity(value, live[name])
                if within in _QUANTITY_MAPS
                else _is_covered(value, live[name], within=name)
            )
            for name, value in desired.items()
        )
    if isinstance(desired, list):
        return (
            isinstance(live, list)
            and len(desired) == len(live)
            and all(
                _is_covered(item, other, within=within)
                for item, other in zip(desired, live, strict=True)
            )
        )
    return desired == live


def _is_same_quantity(desired: object, live: object) -> bool:
    value = quantity(str(desired))
    return str(desired) == str(live) or (value is not None and value == quantity(str(live)))
