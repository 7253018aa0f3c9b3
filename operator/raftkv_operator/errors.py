"""What can go wrong, by what the operator does about it.

- `InvalidSpecError`: permanent until the user changes the spec; a condition with the sentence.
- `KubeError` and its children: what the API server answered.
  - `ConflictError`: the view was stale; look again.
  - `ForbiddenError`: missing rights; reported, not retried within the pass (rule 14).
  - `RejectedError`: the API server refuses the object as such; a condition with its sentence.
  - `GoneError`: a watch must start from a new list.
- `NodeError`: a node did not answer, answered nonsense, or is not the node that was meant.
  - `NodeRefusedError`: it answered, with a sentence, that it will not.

Anything else is a bug: logged with its traceback, counted, and tried again with a back-off.
"""


class OperatorError(Exception):
    """Root of the errors that the operator expects."""


class InvalidSpecError(OperatorError):
    """The spec can not be acted on. The text is for the user."""


class KubeError(OperatorError):
    """The API server refused, failed or could not be reached."""

    def __init__(self, message: str, *, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.code = code  # HTTP status; 0: no answer
        self.reason = reason  # of the API's Status object, such as "AlreadyExists"


class NotFoundError(KubeError):
    """404."""


class ConflictError(KubeError):
    """409: a resourceVersion or uid precondition failed, or the name is taken."""


class ForbiddenError(KubeError):
    """401 or 403."""


class RejectedError(KubeError):
    """400 or 422: trying the same again cannot help."""


class GoneError(KubeError):
    """410: the resourceVersion to watch from is too old."""


class NodeError(OperatorError):
    """A node could not be asked, or is not the one that was meant."""


class NodeRefusedError(NodeError):
    """A node answered that it will not do what was asked; nothing changed."""

    def __init__(self, message: str, *, status: int, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason  # of a refused change of the membership, such as "learner_lags"

    @property
    def is_passing(self) -> bool:
        """Whether the next look will show something else, or the same call may then succeed."""
        return self.status in _PASSING_STATUSES or self.reason in _PASSING_REASONS


# Another configuration, too busy, no leader, and an outcome that only the next look can tell.
_PASSING_STATUSES = frozenset({412, 429, 503, 504})
_PASSING_REASONS = frozenset({"not_leader", "not_ready", "change_in_progress", "learner_lags"})


def describe_error(error: BaseException) -> str:
    """The error's text; the name of its type when it has none, as a timeout."""
    return str(error) or type(error).__name__
