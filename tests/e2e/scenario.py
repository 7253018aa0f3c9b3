"""One behaviour to show on a real cluster."""

from collections.abc import Callable
from typing import NamedTuple

from tests.e2e.suite import Suite


class Scenario(NamedTuple):
    """``run`` raises `E2EError` when the behaviour is not as described."""

    name: str
    behaviour: str
    run: Callable[[Suite], None]
