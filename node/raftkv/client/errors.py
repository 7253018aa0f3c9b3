"""How a call of the client library can fail.

ClientError                 anything below; its text is one sentence for a person
├── UnreachableError        no endpoint could be connected to, or none answered a read
├── RequestFailedError      a node answered with a problem; a write did not take effect
│   └── ConditionFailedError    if_match or create_only did not hold
└── OutcomeUnknownError     a write may or may not have taken effect, now or later
"""


class ClientError(Exception):
    """The call could not be fulfilled."""


class UnreachableError(ClientError):
    """No endpoint could be connected to, or none answered a read: nothing was changed."""


class RequestFailedError(ClientError):
    """A node refused, or could not do it; ``code`` is the API's stable code ("no_leader")."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ConditionFailedError(RequestFailedError):
    """The key is not as the condition wants it; ``mod_revision`` is None when it is absent."""

    def __init__(self, message: str, *, mod_revision: int | None) -> None:
        super().__init__(message, status=412, code="condition_failed")
        self.mod_revision = mod_revision


class OutcomeUnknownError(ClientError):
    """The write was sent and its answer was lost, or the node itself does not know."""
