"""`raftkv top`: what is shown of what nodes say, its keys, and nodes that die."""

import asyncio
from typing import Any

import pytest
from click.testing import CliRunner
from rich.text import Text
from textual.widgets import DataTable, RichLog, Static
from yarl import URL

from raftkv.cli.cluster_view import Event, differences, elections_of, merged, rows_of, summary_of
from raftkv.cli.main import main
from raftkv.cli.top import Look, Story, Watcher
from raftkv.cli.top_app import Top
from raftkv.client import ClientError, UnreachableError
from tests.server.http.fake_driver import FakeDriver

NAMES = ("n1", "n2", "n3")


def report(role: str = "follower", *, last: int = 90, age: float = 0.1, term: int = 4) -> Any:
    return {
        "role": role,
        "term": term,
        "last_log_index": last,
        "durable_index": last,
        "commit_index": last - 1,
        "applied_index": last - 2,
        "revision": 7,
        "match_index": last,
        "age_seconds": age,
    }


def cluster(**changes: Any) -> dict[str, Any]:
    """n1 leads; ``changes`` name fields, or members with their reports."""
    reports = {"n1": report("leader", last=100), "n2": report(last=98), "n3": report(last=60)}
    reports |= {name: changes.pop(name) for name in NAMES if name in changes}
    return {
        "leader": "id-n1",
        "leader_name": "n1",
        "term": 4,
        "config_index": 1,
        "voters": [f"id-{name}" for name in NAMES],
        "voters_outgoing": [],
        "learners": [],
        "joint": False,
        "role_changes": [
            {"number": 3, "role": "follower", "term": 4, "leader_name": "n1", "seconds_ago": 5.0}
        ],
        "members": [
            {
                "id": f"id-{name}",
                "name": name,
                "client_url": f"http://127.0.0.1:{number}",
                "role": "follower",
                "voter": True,
                "match_index": None,
                "healthy": None,
                "diverged": False,
                "report": reports[name],
                "unanswered_seconds": (reports[name] or {}).get("age_seconds", 9.0) - 0.1,
            }
            for number, name in enumerate(NAMES, 7400)
        ],
    } | changes


def look(name: str = "n2", **changes: Any) -> Look:
    status = {
        "name": name,
        "revision": 1234,
        "keys": 5,
        "db_bytes": 1 << 20,
        "pending_requests": 0,
        "version": "0.1.0",
    }
    return Look(cluster(**changes), status, URL("http://127.0.0.1:7401"))


def roles(**changes: Any) -> list[str]:
    return [row.role for row in rows_of(cluster(**changes))]


def test_a_follower_shows_the_whole_cluster() -> None:
    first, _, third = rows_of(cluster())
    assert (first.role, first.lag, first.last, first.applied) == ("leader", 0, 100, 98)
    assert (third.role, third.lag, third.match) == ("follower", 40, 60)
    assert roles(n3=None) == ["leader", "follower", "silent"]  # asked in vain from the start
    assert rows_of(cluster(n3=None))[2].lag is None
    assert roles(n3=report(age=9.0)) == ["leader", "follower", "silent"]
    elected = {"leader": "id-n2", "leader_name": "n2", "term": 5}
    assert roles(**elected) == ["follower", "leader", "follower"]
    assert roles(**elected, n1=report("leader", age=2.0)) == ["silent", "leader", "follower"]
    none = {"leader": None, "leader_name": None}
    assert roles(**none, n2=report("pre_candidate"))[1] == "pre_candidate"


def test_the_summary_counts_the_worse_half_of_a_joint_configuration() -> None:
    def said(**changes: Any) -> tuple[str, bool]:
        found = cluster(**changes)
        return tuple(summary_of(found, rows_of(found)))  # type: ignore[return-value]

    text, is_well = said()
    assert "leader n1 · term 4 · 3 of 3 answer · 1 more may fail" in text
    assert is_well
    silent = report(age=60.0)
    assert "2 of 3 answer · 0 more may fail" in said(n3=silent)[0]
    text, is_well = said(n2=silent, n3=silent)
    assert "quorum lost" in text
    assert not is_well
    joint = {"joint": True, "voters": ["id-n1", "id-n2"], "voters_outgoing": ["id-n1", "id-n3"]}
    text, is_well = said(**joint, n3=silent)
    assert "JOINT CHANGE" in text
    assert "quorum lost" in text
    notes = [row.note for row in rows_of(cluster(**joint))]
    assert notes == ["", "joining", "leaving"]
    assert "NO LEADER" in said(leader=None, leader_name=None)[0]


def test_events_are_told_once() -> None:
    told = elections_of(cluster(), "n2", 100.0)
    assert [(event.at, event.text) for event in told] == [(95.0, "n1 leads term 4")]
    assert merged(told, elections_of(cluster(), "n2", 104.0)) == told  # a slow answer
    assert merged(told, elections_of(cluster(), "n3", 101.0)) == told  # another one tells it
    silent = Event(200.0, "n3 does not answer")
    assert merged([*told, silent], [silent]) == [*told, silent, silent]  # it happened twice
    before, now = rows_of(cluster()), rows_of(cluster(n3=report(age=9.0)))
    assert differences(before, now, 1.0) == [Event(1.0, "n3 does not answer")]
    assert differences(now, before, 2.0) == [Event(2.0, "n3 answers again")]
    assert differences(before, before[:2], 3.0) == [Event(3.0, "n3 was removed")]
    assert differences(before[:2], before, 4.0) == [Event(4.0, "n3 was added")]
    story = Story()
    story.tell(look("n2"), now=10.0)
    story.tell(look("n3"), now=11.0)
    assert story.events[-1].text == "n2 does not answer here: asking n3"


class Nodes:
    """Endpoints that answer until they die: in place of a client."""

    def __init__(self, *alive: int) -> None:
        self.endpoints = [URL("http://127.0.0.1:7400")]
        self.alive = set(alive)
        self.asked: list[int] = []

    async def cluster(self, endpoint: URL) -> Any:
        port = endpoint.port or 0
        self.asked.append(port)
        if port not in self.alive:
            raise UnreachableError(f"cannot connect to {endpoint}")
        return cluster()

    async def status(self, endpoint: URL) -> Any:
        if endpoint.port not in self.alive:
            raise UnreachableError(f"cannot connect to {endpoint}")
        return {"name": f"n{(endpoint.port or 0) - 7399}"}


async def test_when_the_node_dies_those_that_it_told_of_are_asked() -> None:
    nodes = Nodes(7400, 7402)
    watcher = Watcher(nodes)  # type: ignore[arg-type]
    assert (await watcher.look()).status["name"] == "n1"
    nodes.asked.clear()
    assert (await watcher.look()).status["name"] == "n1"
    assert nodes.asked == [7400]  # one node is asked, not all
    nodes.alive.discard(7400)
    assert (await watcher.look()).status["name"] == "n3"
    nodes.alive = set()
    with pytest.raises(UnreachableError):
        await watcher.look()
    nodes.alive = {7401}
    assert (await watcher.look()).status["name"] == "n2"


def names_in(app: Top) -> list[str]:
    table = app.query_one("#members", DataTable)
    return [str(table.get_row_at(number)[0]) for number in range(table.row_count)]


def text_of(app: Top, selector: str) -> str:
    return str(app.query_one(selector, Static).content)


async def test_the_terminal_shows_sorts_pauses_and_survives() -> None:
    looks: asyncio.Queue[Look | ClientError] = asyncio.Queue()
    looks.put_nowait(look())

    async def looker() -> Look:
        found = await looks.get()  # in between nothing happens, so a key is soon done
        if isinstance(found, ClientError):
            raise found
        return found

    app = Top(looker, interval_seconds=0.02)
    async with app.run_test(size=(120, 30)) as pilot:

        async def shows(selector: str, text: str) -> None:
            for _ in range(500):
                if text in text_of(app, selector):
                    return
                await pilot.pause(0.01)
            raise AssertionError(text_of(app, selector))

        await shows("#summary", "leader n1")
        await shows("#node", "from n2")
        assert names_in(app) == list(NAMES)
        for key in "s" * 8 + "r":  # to `behind`, the largest first
            await pilot.press(key)
        assert names_in(app) == ["n3", "n2", "n1"]
        label = app.query_one("#members", DataTable).ordered_columns[8].label
        assert isinstance(label, Text)
        assert label.plain == "behind ▼"
        looks.put_nowait(look("n3", n1=report("leader", age=9.0), leader=None, leader_name=None))
        await shows("#summary", "NO LEADER")
        assert app.query_one("#summary").has_class("bad")
        written = [line.text for line in app.query_one("#events", RichLog).lines]
        assert any("n1 does not answer" in line for line in written)
        looks.put_nowait(UnreachableError("cannot connect to anybody"))
        await shows("#summary", "NOBODY ANSWERS")
        assert names_in(app)  # what was seen stays
        await pilot.press("p")
        await shows("#summary", "PAUSED")
        looks.put_nowait(look())
        await pilot.press("p")
        await shows("#summary", "leader n1")
        await pilot.press("tab")
        assert app.focused is app.query_one("#events")
        before = app.theme
        await pilot.press("d")
        assert app.theme != before
        await pilot.press("q")
    assert app.return_code == 0


def test_without_a_terminal_it_prints_one_table(driver: FakeDriver) -> None:
    assert driver.members.members
    done = CliRunner().invoke(main, ["top"])
    assert done.exit_code == 0, done.output
    names = [line.split("\t")[0] for line in done.output.splitlines()]
    assert names == sorted(member.name for member in driver.members.members)
    shown = CliRunner().invoke(main, ["top", "--once", "-o", "table"])
    assert "may fail" in shown.output
    assert "on disk" in shown.output
    rows = CliRunner().invoke(main, ["top", "-o", "json"])
    assert '"role"' in rows.output


def test_nobody_answers() -> None:
    done = CliRunner().invoke(main, ["top", "--endpoint", "http://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "127.0.0.1:1" in done.output
