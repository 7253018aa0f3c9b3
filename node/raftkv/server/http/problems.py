"""Every way a request can fail, as `application/problem+json` tells it (RFC 9457).

Owns the stable codes with their status, and what each promises about the request: whether trying
the same again can help, and whether it took effect. Raised as `Refused` wherever the meaning of a
request is worked out; `raftkv.server.http.render` turns it into an answer. Pure.

Invariant: no problem with outcome "not_committed" is ever given to a write that may have reached
the log (node design, rule 18).
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from raftkv.kv.outcomes import (
    ConditionFailed,
    CounterOverflow,
    IdempotencyMismatch,
    LeaseForbidden,
    LeaseFull,
    LeaseNotFound,
    LockBusy,
    LockLost,
    LockQueued,
    NotACounter,
    NotYetReached,
    Outcome,
    Returned,
    TooLarge,
    TooManyKeys,
    TxnFailed,
)
from raftkv.node.messages import Failure, FailureCode

CommitOutcome = Literal["not_committed", "committed", "unknown"]


class Kind(NamedTuple):
    """One row of the table of problems."""

    code: str  # stable: programs compare it
    status: int
    title: str
    retryable: bool = False  # the same request may succeed later, and repeating it is safe
    outcome: CommitOutcome = "not_committed"
    retry_after_seconds: int | None = None


MALFORMED: Final = Kind("malformed", 400, "Malformed request")
BAD_KEY: Final = Kind("bad_key", 400, "Not a key")
BAD_PARAMETER: Final = Kind("bad_parameter", 400, "Bad query parameter")
BAD_HEADER: Final = Kind("bad_header", 400, "Bad header")
BAD_ID: Final = Kind("bad_id", 400, "Not an id")
BAD_BODY: Final = Kind("bad_body", 400, "Bad request body")
INVALID: Final = Kind("invalid", 400, "Invalid request")
FUTURE_REVISION: Final = Kind("future_revision", 400, "Revision is in the future")
UNAUTHENTICATED: Final = Kind("unauthenticated", 401, "No valid token")
FORBIDDEN: Final = Kind("forbidden", 403, "Not allowed")
FOREIGN_ORIGIN: Final = Kind("foreign_origin", 403, "Request from a foreign web page")
FOREIGN_HOST: Final = Kind("foreign_host", 403, "Host is not a name of this machine")
KEY_NOT_FOUND: Final = Kind("key_not_found", 404, "Key not found")
LEASE_NOT_FOUND: Final = Kind("lease_not_found", 404, "Lease not found")
LOCK_NOT_FOUND: Final = Kind("lock_not_found", 404, "Lock is not held")
UNKNOWN_PATH: Final = Kind("unknown_path", 404, "No such path")
METHOD_NOT_ALLOWED: Final = Kind("method_not_allowed", 405, "Method not allowed")
BODY_TIMEOUT: Final = Kind("body_timeout", 408, "Request body did not arrive in time")
CONFLICT: Final = Kind("conflict", 409, "Conflict")
NOT_A_COUNTER: Final = Kind("not_a_counter", 409, "Value is not a counter")
COUNTER_OVERFLOW: Final = Kind("counter_overflow", 409, "Counter would overflow")
TOO_MANY_KEYS: Final = Kind("too_many_keys", 409, "Too many keys")
LEASE_FULL: Final = Kind("lease_full", 409, "Too many keys for one lease")
LOCK_HELD: Final = Kind("lock_held", 409, "Lock is held by another")
COMPACTED: Final = Kind("compacted", 410, "Revision is compacted")
EPOCH_CHANGED: Final = Kind("epoch_changed", 410, "Revision of another cluster")
CHANGE_REFUSED: Final = Kind("change_refused", 409, "Membership change refused")
CONFIG_CHANGED: Final = Kind("config_changed", 412, "Another configuration is in force")
CONDITION_FAILED: Final = Kind("condition_failed", 412, "Condition failed")
LOCK_LOST: Final = Kind("lock_lost", 412, "Lock is not held under this token")
TOO_LARGE: Final = Kind("too_large", 413, "Too large")
CONTENT_ENCODING: Final = Kind("content_encoding", 415, "Content-Encoding is not accepted")
EXPECTATION_FAILED: Final = Kind("expectation_failed", 417, "Expectation failed")
WRONG_CLUSTER: Final = Kind("wrong_cluster", 421, "Another cluster is meant")
IDEMPOTENCY_MISMATCH: Final = Kind(
    "idempotency_mismatch", 422, "Idempotency-Key belongs to another request"
)
OVERLOADED: Final = Kind("overloaded", 429, "Too much in flight", True, retry_after_seconds=1)
IDEMPOTENCY_FULL: Final = Kind(
    "idempotency_full", 429, "Too many idempotency records", True, retry_after_seconds=5
)
INTERNAL: Final = Kind("internal", 500, "Internal error", outcome="unknown")
QUOTA: Final = Kind("quota", 507, "Quota reached")
NO_LEADER: Final = Kind("no_leader", 503, "No leader", True, retry_after_seconds=1)
UNINITIALISED: Final = Kind("uninitialised", 503, "Not in a cluster", True, retry_after_seconds=1)
STOPPING: Final = Kind("stopping", 503, "Node is stopping", True, retry_after_seconds=1)
DEADLINE: Final = Kind("deadline", 504, "Deadline passed", True)
UNKNOWN: Final = Kind("unknown", 504, "Outcome unknown", outcome="unknown")

_OF_FAILURE: Final = {
    FailureCode.NO_LEADER: NO_LEADER,
    FailureCode.UNKNOWN: UNKNOWN,
    FailureCode.DEADLINE: DEADLINE,
    FailureCode.OVERLOADED: OVERLOADED,
    FailureCode.UNINITIALISED: UNINITIALISED,
    FailureCode.CONFLICT: CONFLICT,
    FailureCode.INVALID: INVALID,
    FailureCode.STOPPED: STOPPING,
    FailureCode.FUTURE_REVISION: FUTURE_REVISION,
    FailureCode.QUOTA: QUOTA,
    FailureCode.COMPACTED: COMPACTED,
    FailureCode.IDEMPOTENCY_FULL: IDEMPOTENCY_FULL,
    FailureCode.REFUSED: CHANGE_REFUSED,
    FailureCode.PRECONDITION: CONFIG_CHANGED,
}


_OF_OUTCOME: Final[dict[type[Outcome], tuple[Kind, str]]] = {
    NotACounter: (NOT_A_COUNTER, "the value is no number"),
    TooManyKeys: (TOO_MANY_KEYS, "more keys would be changed than one command may change"),
    LeaseNotFound: (LEASE_NOT_FOUND, "there is no such lease"),
    LeaseFull: (LEASE_FULL, "as many keys as a lease may have are attached to it"),
    LeaseForbidden: (FORBIDDEN, "the token does not allow this"),
    LockBusy: (LOCK_HELD, "another owner holds the lock"),
    LockQueued: (LOCK_HELD, "another owner holds the lock"),
    LockLost: (LOCK_LOST, "the lock is not held under this token, or no longer"),
    IdempotencyMismatch: (
        IDEMPOTENCY_MISMATCH,
        "this Idempotency-Key was used for another request",
    ),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong with one request."""

    kind: Kind
    detail: str  # one sentence for a person
    headers: tuple[tuple[str, str], ...] = ()  # beyond those of every problem
    revision: int | None = None  # the store's, if the answer that failed named one
    fields: tuple[tuple[str, int | str], ...] = ()  # of the body, beyond those of every problem


class Refused(Exception):  # noqa: N818 it is an answer to the client, not an error of ours
    """Leaves parsing or handling of a request that is answered with ``problem``."""

    def __init__(self, kind: Kind, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.problem = Problem(kind, detail, headers)


def problem_of(failure: Failure) -> Problem:
    """The node could not do as asked."""
    fields: tuple[tuple[str, int | str], ...] = ()
    if failure.code is FailureCode.COMPACTED:
        fields = (("oldest_revision", failure.revision),)
    elif failure.code is FailureCode.REFUSED:
        fields = (("reason", failure.reason),)
    return Problem(_OF_FAILURE[failure.code], failure.detail, fields=fields)


def problem_of_outcome(outcome: Outcome) -> Problem:
    """The command was applied, and changed nothing: why.

    Raises:
        AssertionError: ``outcome`` is a success of another call.
    """
    assert not isinstance(outcome, Returned), "a success"
    revision = outcome.revision
    match outcome:
        case ConditionFailed(mod_revision=current):
            detail = f"the key is at revision {current}" if current else "no such key"
            headers = (("ETag", f'"{current}"'),) if current else ()
            return Problem(CONDITION_FAILED, detail, headers, revision)
        case TooLarge():
            detail = f"the result would have {outcome.value_bytes} bytes"
            return Problem(TOO_LARGE, detail, revision=revision)
        case CounterOverflow():
            detail = f"the sum with {outcome.value} would not fit into 64 bits"
            return Problem(COUNTER_OVERFLOW, detail, revision=revision)
        case TxnFailed():
            return _problem_of_txn(outcome)
        case NotYetReached():
            detail = f"the store is at revision {revision}"
            return Problem(FUTURE_REVISION, detail, revision=revision)
        case _:
            refusal = _OF_OUTCOME.get(type(outcome))
            assert refusal is not None, f"{type(outcome).__name__} does not answer this call"
            kind, detail = refusal
            return Problem(kind, detail, revision=revision)


def _problem_of_txn(failed: TxnFailed) -> Problem:
    branch = "success" if failed.succeeded else "failure"
    reason = problem_of_outcome(failed.reason)
    return Problem(
        reason.kind,
        f"{branch}[{failed.op}]: {reason.detail}",
        revision=failed.revision,
        fields=(("branch", branch), ("op", failed.op)),
    )


def quoted(text: str) -> str:
    """A client's own text, safe and short enough to be shown in a problem."""
    shown = ascii(text[:64])
    return shown if len(text) <= 64 else f"{shown} and {len(text) - 64} more characters"
