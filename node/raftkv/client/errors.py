"""How a call of the client library can fail.

ClientError                     anything below; its text is one sentence for a person
├── UnreachableError            no endpoint could be connected to, or none answered a read
├── RequestFailedError          a node answered with a problem; a write did not take effect
│   ├── NotFoundError           404: no such lease, lock or member
│   ├── ConditionFailedError    412: if_match or create_only did not hold, or the fence is lost
│   ├── LockHeldError           409: somebody else holds the lock, and the wait is over
│   ├── AccessError             401 or 403: the token is missing, unknown, or does not allow it
│   └── HistoryLostError        410: what was asked for is no longer there
│       ├── CompactedError          the history before ``oldest_revision`` was removed
│       └── EpochChangedError       the store was restored from a backup since
├── OutcomeUnknownError         a write may or may not have taken effect, now or later
├── LeaseLostError              a lease ended, or could not be kept alive
│   └── LockLostError           the same of a lock: another may hold it by now
└── DamagedBackupError          a backup did not arrive as the node sent it

Each has ``status`` (0: no answer), ``code`` (the API's stable code), ``outcome`` and ``detail``.
"""

from typing import Literal

Outcome = Literal["not_committed", "committed", "unknown"]


class ClientError(Exception):
    """The call could not be fulfilled."""

    def __init__(
        self,
        detail: str,
        *,
        status: int = 0,
        code: str = "",
        outcome: Outcome = "not_committed",
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.outcome: Outcome = outcome


class UnreachableError(ClientError):
    """No endpoint could be connected to, or none answered a read: nothing was changed."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, code="unreachable")


class RequestFailedError(ClientError):
    """A node refused, or could not do it; ``code`` is the API's stable code ("no_leader")."""


class NotFoundError(RequestFailedError):
    """What the call names does not exist. A key that is absent is no error: it reads as None."""


class ConditionFailedError(RequestFailedError):
    """The key is not as the condition wants it, or the lock of the fence is lost.

    ``mod_revision`` is the key's, None when it is absent or when it was not the key that failed.
    """

    def __init__(
        self,
        detail: str,
        *,
        mod_revision: int | None = None,
        status: int = 412,
        code: str = "condition_failed",
    ) -> None:
        super().__init__(detail, status=status, code=code)
        self.mod_revision = mod_revision


class LockHeldError(RequestFailedError):
    """Somebody else holds the lock, and the time to wait for it is over."""


class AccessError(RequestFailedError):
    """The token is missing or unknown (401), or does not allow the call (403)."""


class HistoryLostError(RequestFailedError):
    """The revision that was asked for cannot be had: read the present state and go on from it."""


class CompactedError(HistoryLostError):
    """The history was removed up to ``oldest_revision`` (0: the node did not say)."""

    def __init__(self, detail: str, *, oldest_revision: int = 0, code: str = "compacted") -> None:
        super().__init__(detail, status=410, code=code)
        self.oldest_revision = oldest_revision


class EpochChangedError(HistoryLostError):
    """The store was restored from a backup: its revisions are another history's."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, status=410, code="epoch_changed")


class OutcomeUnknownError(ClientError):
    """The write was sent and its answer was lost, or the node itself does not know."""

    def __init__(self, reason: str, *, status: int = 0, code: str = "unknown") -> None:
        super().__init__(
            f"the write may or may not have taken effect: {reason}",
            status=status,
            code=code,
            outcome="unknown",
        )


class LeaseLostError(ClientError):
    """The lease ended, or could not be kept alive for as long as it lives."""


class LockLostError(LeaseLostError):
    """The lock ended, or could not be kept alive: another client may hold it by now."""


class DamagedBackupError(ClientError):
    """The stream ended early, or its checksum does not fit."""
