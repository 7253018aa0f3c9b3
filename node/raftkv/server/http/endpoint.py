"""What every call is handled with: the request as it came, and the node behind the listener.

Made by `raftkv.server.http.handlers`, used by the coroutines of `raftkv.server.http.calls`.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property

from raftkv.kv.commands import Command, encode_command
from raftkv.kv.outcomes import Outcome, PlainOutcome, Replayed, Returned
from raftkv.node.events import Query
from raftkv.node.messages import Failure
from raftkv.server.driver_api import DriverApi
from raftkv.server.http.authorisation import Identity
from raftkv.server.http.problems import BAD_BODY, TOO_LARGE, Refused, problem_of
from raftkv.server.http.reading import HowToRead, Kind, Reading, reading_of
from raftkv.server.http.render import REPLAYED, REVISION, Renderer, Response
from raftkv.server.http.requests import Headers
from raftkv.server.http.routes import Match
from raftkv.server.http.settings import HttpSettings
from raftkv.server.metrics import Metrics
from raftkv.server.watches import Watches


@dataclass(slots=True)
class Request:
    """A request as it came, its body not yet read."""

    method: str
    target: str  # raw, never decoded
    headers: Headers
    # Reads the body, at most so many bytes, else refuses with 413.
    read_body: Callable[[int], Awaitable[bytes]]
    route: str = "(none)"  # the path of the matched row, for metrics
    identity: Identity | None = None  # who sent it; None: there is no token file
    is_authorised: bool = False  # whether what it touches was allowed to ``identity``

    async def refuse_body(self) -> None:
        """Refuse a body where the call takes none: it would not be heeded."""
        try:
            await self.read_body(0)
        except Refused as refused:
            if refused.problem.kind is TOO_LARGE:
                raise Refused(BAD_BODY, "this call takes no body") from None
            raise


class Endpoint:
    """A listener's node, and how it is asked and answered for."""

    def __init__(self, driver: DriverApi, settings: HttpSettings, metrics: Metrics) -> None:
        self.driver = driver
        self.settings = settings
        self.metrics = metrics
        self.renderer = Renderer(settings.node_name)
        self.started_at = time.monotonic()

    @cached_property
    def watches(self) -> Watches:
        """Who watches. Made when the first one comes."""
        settings = self.settings
        return Watches(
            self.driver,
            self.metrics,
            count_max=settings.watchers_max,
            progress_seconds=settings.watch_progress_seconds,
        )

    @property
    def revision(self) -> int:
        """The store's revision, for answers that were not made from the store."""
        return self.driver.status().revision

    async def write(self, command: Command, timeout_seconds: float) -> Outcome | Failure:
        """Apply ``command`` through the log, and count what became of it."""
        answer = await self.driver.write(encode_command(command), timeout_seconds)
        self.count_proposal(answer)
        return answer

    def count_proposal(self, answer: Outcome | Failure) -> None:
        """Every command that was sent to the node is counted once, by whether it was applied."""
        metrics = self.metrics
        is_failure = isinstance(answer, Failure)
        (metrics.proposals_failed if is_failure else metrics.proposals_committed).inc()

    def answered(
        self, answer: Outcome | Failure, render: Callable[[PlainOutcome], Response]
    ) -> Response:
        """The answer to a write; ``render`` is for the outcome, whether it is a replay or not."""
        if isinstance(answer, Failure):
            return self.failed(answer)
        if not isinstance(answer, Replayed):
            return render(answer)
        outcome = answer.outcome
        # A record keeps no values: the previous item is left out, not said to be missing.
        response = render(outcome.outcome if isinstance(outcome, Returned) else outcome)
        response.headers[REPLAYED] = "true"
        response.headers[REVISION] = str(answer.revision)
        return response

    async def read(self, query: Query, how: HowToRead, kind: type[Kind]) -> Reading[Kind] | Failure:
        """Ask the node; what it finds is of ``kind``."""
        answer = await self.driver.read(query, *how)
        if isinstance(answer, Failure):
            return answer
        return reading_of(answer, how.consistency, kind)

    def failed(self, failure: Failure) -> Response:
        """The node could not do as asked."""
        return self.renderer.problem(problem_of(failure), self.revision)

    def redirected(self, request: Request) -> Response | None:
        """The way to the leader, for ``redirect=true``; None if it is this node or not known."""
        status = self.driver.status()
        if status.leader is None or status.leader == status.member_id:
            return None
        location = self.driver.client_url_of(status.leader)
        if location is None:
            return None
        return self.renderer.redirect(location + request.target, status.revision)


#: One row's handler: the listener's node, the request, where it matched, its raw query.
Call = Callable[[Endpoint, Request, Match, str], Awaitable[Response]]
