"""`GET /v1/kv/{key}?after=&wait=`: the answer comes when the key changes, or when time is over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from raftkv.kv.commands import Command, Compact, Delete, Put, Sweep, encode_command
from raftkv.node.events import Consistency
from raftkv.node.messages import Failure, FailureCode
from raftkv.node.status import State
from raftkv.server import watches
from raftkv.server.http import app
from raftkv.server.http.settings import HttpSettings
from raftkv.server.watches import Watches
from tests.server.http.harness import Answer, Served, serving, until

BOTH_LOOPS = True


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(app, "_DRAIN_CHECK_SECONDS", -1.0)


def change(served: Served, *commands: Command) -> None:
    served.driver.apply(*(encode_command(command) for command in commands))


def hub(served: Served) -> Watches:
    return served.server._handlers.endpoint.watches


@asynccontextmanager
async def asking(
    served: Served, query: str, headers: dict[str, str] | None = None
) -> AsyncIterator[asyncio.Task[Answer]]:
    """A long poll that waits: it has looked at the key and found nothing new."""
    target = f"/v1/kv/a?{query}"
    asked = asyncio.ensure_future(served.ask("GET", target, headers=headers or {}))
    before = len(served.driver.reads)
    await until(lambda: len(served.driver.reads) > before and hub(served).count)
    await asyncio.sleep(0.02)
    assert not asked.done()
    yield asked
    await asked


async def test_what_changed_already_is_answered_at_once(served: Served) -> None:
    change(served, Put(b"a", b"1"), Put(b"b", b""), Put(b"a", b"2"))
    for after in (0, 101, 102):
        answer = await served.ask("GET", f"/v1/kv/a?after={after}&wait=30s")
        assert (answer.status, answer.body, answer.headers["ETag"]) == (200, b"2", '"103"')
        assert answer.headers["X-RaftKV-Consistency"] == "linearizable"
    answer = await served.ask(
        "GET", "/v1/kv/a?after=101&wait=30s", headers={"Accept": "application/json"}
    )
    assert answer.json()["mod_revision"] == 103


async def test_the_answer_comes_when_the_key_changes(served: Served) -> None:
    change(served, Put(b"a", b"1"))
    async with asking(served, "after=101&wait=30s") as asked:
        change(served, Put(b"b", b"other"), Put(b"a/1", b"other"))
        await asyncio.sleep(0.02)
        assert not asked.done()
        change(served, Put(b"a", b"2"))
    answer = asked.result()
    assert (answer.status, answer.body) == (200, b"2")
    assert answer.headers["X-RaftKV-Revision"] == "104"
    assert answer.headers["X-RaftKV-Consistency"] == "linearizable"
    # The first look asks the cluster, the next one this node, which knows it all.
    assert [how for _, how, *_ in served.driver.reads if how is Consistency.LINEARIZABLE] != []
    await until(lambda: hub(served).count == 0)


async def test_a_key_that_is_created_or_removed_has_changed(served: Served) -> None:
    async with asking(served, "after=100&wait=30s") as asked:
        change(served, Put(b"a", b"1"))
    assert asked.result().body == b"1"
    async with asking(served, "after=101&wait=30s") as asked:
        change(served, Delete(b"a"))
    answer = asked.result()
    assert (answer.status, answer.code()) == (404, "key_not_found")
    assert answer.headers["X-RaftKV-Revision"] == "102"
    assert answer.headers["X-RaftKV-Mod-Revision"] == "102"
    answer = await served.ask("GET", "/v1/kv/a?after=101&wait=30s")
    assert answer.status == 404
    answer = await served.ask("GET", "/v1/kv/a?after=102&wait=10ms")
    assert answer.status == 204


async def test_when_nothing_changes_the_answer_is_204_at_the_deadline(served: Served) -> None:
    change(served, Put(b"a", b"1"))
    answer = await served.ask("GET", "/v1/kv/a?after=101&wait=30ms")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["X-RaftKV-Revision"] == "101"
    assert "Content-Type" not in answer.headers
    assert "ETag" not in answer.headers


async def test_a_tag_may_be_given_instead_of_a_revision(served: Served) -> None:
    change(served, Put(b"a", b"1"))
    headers = {"If-None-Match": '"101"'}
    answer = await served.ask("GET", "/v1/kv/a?wait=30ms", headers=headers)
    assert (answer.status, answer.headers["ETag"]) == (304, '"101"')
    async with asking(served, "wait=30s", headers) as asked:
        change(served, Put(b"a", b"1"))
    assert (asked.result().status, asked.result().headers["ETag"]) == (200, '"102"')
    # "*": whatever it is, until it is gone.
    async with asking(served, "wait=30s", {"If-None-Match": "*"}) as asked:
        change(served, Put(b"a", b"2"))
        await asyncio.sleep(0.02)
        assert not asked.done()
        change(served, Delete(b"a"))
    assert asked.result().status == 404


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("wait=3s", {}, "bad_parameter"),
        ("after=1&wait=3s", {"If-None-Match": '"1"'}, "bad_parameter"),
        ("after=-1", {}, "bad_parameter"),
        ("after=x", {}, "bad_parameter"),
        ("after=1&wait=0s", {}, "bad_parameter"),
        ("after=1&wait=601s", {}, "bad_parameter"),
        ("after=1&wait=3", {}, "bad_parameter"),
        ("after=1&revision=1", {}, "bad_parameter"),
        ("after=101&wait=3s", {}, "future_revision"),
    ],
)
async def test_what_cannot_be_waited_for_is_refused(
    served: Served, query: str, headers: dict[str, str], code: str
) -> None:
    answer = await served.ask("GET", f"/v1/kv/a?{query}", headers=headers)
    assert (answer.status, answer.code()) == (400, code)
    await until(lambda: hub(served).count == 0)


async def test_a_key_whose_end_is_forgotten_may_have_changed(served: Served) -> None:
    """It cannot be told any more, so the client hears what there is now."""
    change(served, Put(b"a", b"1"), Delete(b"a"), Put(b"b", b""), Compact(103), Sweep(100))
    answer = await served.ask("GET", "/v1/kv/a?after=101&wait=30s")
    assert (answer.status, answer.headers["X-RaftKV-Revision"]) == (404, "103")
    assert "X-RaftKV-Mod-Revision" not in answer.headers
    answer = await served.ask("GET", "/v1/kv/a?after=103&wait=10ms")
    assert answer.status == 204


async def test_failures_and_the_limit_of_watches() -> None:
    async with serving(settings=HttpSettings(node_name="n1", watchers_max=1)) as served:
        async with asking(served, "after=100&wait=30s"):
            answer = await served.ask("GET", "/v1/kv/a?after=100&wait=30s")
            assert (answer.status, answer.code()) == (429, "overloaded")
            change(served, Put(b"a", b""))
        served.driver.failure = Failure(FailureCode.NO_LEADER, "none")
        answer = await served.ask("GET", "/v1/kv/a?after=101&wait=30s")
        assert (answer.status, answer.code()) == (503, "no_leader")


async def test_a_drain_ends_long_polls_so_that_they_can_go_on_elsewhere(served: Served) -> None:
    async with asking(served, "after=100&wait=30s") as asked:
        served.driver.change(state=State.DRAINING)
    assert asked.result().status == 204
    async with asking(served, "after=100&wait=30s") as asked:
        served.server.end_watches()
    assert (asked.result().status, asked.result().headers["Connection"]) == (204, "close")
    assert (await served.ask("GET", "/v1/kv/a?after=100&wait=30s")).status == 204


async def test_a_client_that_goes_away_is_forgotten(served: Served) -> None:
    async with served.connect() as raw:
        raw.send(b"GET /v1/kv/a?after=100&wait=30s HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: served.driver.reads and hub(served).count == 1)
    await until(lambda: hub(served).count == 0)


async def test_no_change_is_missed_between_looking_and_waiting(served: Served) -> None:
    """A counter that many write and one follows by long polls: every value or a later one."""
    change(served, Put(b"a", b"0"))
    seen, after = 0, 101

    async def count() -> None:
        for number in range(1, 100):
            change(served, Put(b"a", b"%d" % number), Put(b"b", b""))
            await asyncio.sleep(0.0005 * (number % 4))

    counting = asyncio.ensure_future(count())
    while seen < 99:
        answer = await served.ask("GET", f"/v1/kv/a?after={after}&wait=5s")
        assert answer.status == 200
        assert int(answer.body) > seen
        seen, after = int(answer.body), int(answer.headers["ETag"].strip('"'))
    await counting
