"""Named places where a test can make the operator die as if by SIGKILL.

`execute` passes ``before:<action>`` and ``after:<action>``; the names derive from the actions.
Without ``RAFTKV_OPERATOR_CRASH_AT`` nothing is ever armed.
"""

import os
import signal

from raftkv_operator.actions import action_points


def crash_points() -> tuple[str, ...]:
    """Every name that can be armed."""
    return tuple(f"{side}:{point}" for point in action_points() for side in ("before", "after"))


class Failpoints:
    """At most one armed point."""

    def __init__(self, crash_at: str | None = None) -> None:
        """Arm ``crash_at``.

        Raises:
            ValueError: there is no such point; a typo must not make a test pass.
        """
        if crash_at is not None and crash_at not in crash_points():
            raise ValueError(f"no crash point {crash_at!r}; there are: {', '.join(crash_points())}")
        self._crash_at = crash_at

    def reach(self, point: str) -> None:
        """Die here if armed: no cleanup, no buffered answer, as in a power cut."""
        if point == self._crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
            # The first process of a container is deaf to its own SIGKILL.
            os._exit(128 + signal.SIGKILL)
