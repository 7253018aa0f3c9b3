"""`raftkv local` as a person uses it: paste the curl, kill the leader, press Ctrl-C."""

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.process.cluster import COMMAND, wait_until
from tests.process.ports import free_ports

pytestmark = pytest.mark.process

_PIDS = re.compile(r"^n\d .*?(\d+) *$", re.MULTILINE)


class Local:
    """The command, its output in a file."""

    def __init__(self, directory: Path) -> None:
        self.output = directory / "output"
        self.directory = directory

    def start(self, *arguments: str) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "local", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.directory), "PYTHONUNBUFFERED": "1"},
            )

    def text(self) -> str:
        return self.output.read_text()

    async def wait_for(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        async def look() -> re.Match[str] | None:
            return re.search(pattern, self.text())

        return await wait_until(f"{pattern!r} in the output", look, seconds)

    def pids(self) -> list[int]:
        return [int(pid) for pid in _PIDS.findall(self.text())]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    made = Local(tmp_path)
    yield made
    made.end()


def ports_of(nodes: int) -> int:
    """The first of the ports of ``nodes`` nodes."""
    return free_ports([offset + each for offset in range(0, 10 * nodes, 10) for each in (0, 1)])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pasted(line: str) -> bytes:
    """The output of a curl line."""
    arguments = [*shlex.split(line), "-sS", "--fail", "--max-time", "10"]
    return subprocess.run(arguments, capture_output=True, check=True).stdout


async def test_what_it_prints_works_as_pasted(local: Local) -> None:
    local.start("--port", str(ports_of(3)))
    await local.wait_for("Ctrl-C stops everything")
    put, get = re.findall(r"^  (curl .*)$", local.text(), re.MULTILINE)
    assert b'"revision":1' in pasted(put)
    assert pasted(get) == b"hello"
    killing = await local.wait_for(r"  kill -9 (\d+)")
    assert int(killing[1]) in local.pids()
    os.kill(int(killing[1]), signal.SIGKILL)
    await local.wait_for(r"n\d, which led, has ended \(killed by SIGKILL\)")
    await local.wait_for(r"n\d leads in term [3-9]")
    local.process.send_signal(signal.SIGINT)
    assert local.process.wait(15) == 0
    assert not any(is_running(pid) for pid in local.pids())
    assert not list(local.directory.glob("raftkv-*")), "the temporary data is still there"


async def test_given_data_is_kept_and_found_again(local: Local) -> None:
    port = str(ports_of(1))
    arguments = ("--nodes", "1", "--port", port, "--data", str(local.directory / "kept"))
    local.start(*arguments)
    await local.wait_for("Ctrl-C stops everything")
    url = f"http://127.0.0.1:{port}/v1/kv/k"
    pasted(f"curl -X PUT -d v {url}")
    local.end()
    assert not any(is_running(pid) for pid in local.pids())
    local.start(*arguments)
    await local.wait_for("Ctrl-C stops everything")
    assert pasted(f"curl {url}") == b"v"
    local.end()
    for changed in (("--nodes", "3"), ("--port", str(ports_of(1)))):
        local.start(*arguments, *changed)
        assert local.process.wait(15) == 1
        [line] = local.text().splitlines()
        assert f"holds a cluster started with --nodes 1 --port {port};" in line


@pytest.mark.parametrize("offset", [0, 11, 20])
def test_an_occupied_port_is_one_sentence(local: Local, offset: int) -> None:
    first = ports_of(3)
    with socket.create_server(("127.0.0.1", first + offset)):
        started_at = monotonic()
        local.start("--port", str(first), "--data", str(local.directory / "data"))
        assert local.process.wait(15) == 1
    [line] = local.text().splitlines()
    assert line.startswith(f"Error: port {first + offset} of 127.0.0.1 is taken")
    assert not (local.directory / "data").exists()
    assert monotonic() - started_at < 15


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
async def test_a_killed_node_is_started_again_and_follows(
    local: Local, number: signal.Signals
) -> None:
    local.start("--port", str(ports_of(3)), "--restart-after", "2.5")
    await local.wait_for(r"elect a new one; it is started again after 2\.5 s:")
    killing = await local.wait_for(r"  kill -9 (\d+)")
    pid = int(killing[1])
    await local.wait_for("Ctrl-C stops everything")
    os.kill(pid, number)
    how = "killed by SIGKILL" if number == signal.SIGKILL else "stopped in order"
    ended = await local.wait_for(rf"(n\d)(, which led,)? has ended \({how}\)\n.*again in 2\.5 s")
    name = ended[1]
    started = await local.wait_for(rf"{name} is started again, process (\d+)")
    assert int(started[1]) != pid
    await local.wait_for(rf"again, process(.|\n)*{name} (answers: it )?follows n\d in term [3-9]")
    assert "start it again with" not in local.text()
    local.end()
    assert not is_running(int(started[1]))


@pytest.mark.long
async def test_a_lost_majority_is_told_and_comes_back(local: Local) -> None:
    local.start("--port", str(ports_of(3)), "--restart-after", "3")
    await local.wait_for("Ctrl-C stops everything")
    first, second, _third = local.pids()
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)
    await local.wait_for("1 of 3 nodes is left: no majority, so nothing is written or read")
    await local.wait_for(r"n2 is started again(.|\n)*n\d (answers: it )?leads in term")


async def test_a_node_can_be_started_by_hand_with_the_line_that_is_printed(local: Local) -> None:
    local.start("--port", str(ports_of(3)), "--no-restart")
    await local.wait_for("Ctrl-C stops everything")
    os.kill(local.pids()[2], signal.SIGKILL)
    line = await local.wait_for(r"start it again with: (.*)\n")
    by_hand = await asyncio.create_subprocess_exec(*shlex.split(line[1]), stderr=DEVNULL)
    try:
        await local.wait_for(r"again with(.|\n)*n3 (answers: it )?follows n\d in term")
        local.process.send_signal(signal.SIGINT)
        assert local.process.wait(15) == 0
        assert "n3 was started by hand; stop it where you started it" in local.text()
    finally:
        by_hand.kill()
        await by_hand.wait()


async def test_a_node_that_ends_by_itself_stays_down(local: Local) -> None:
    data = local.directory / "data"
    arguments = ("--nodes", "1", "--port", str(ports_of(1)), "--data", str(data))
    local.start(*arguments, "--restart-after", "0.5")
    await local.wait_for("Ctrl-C stops everything")
    [pid] = local.pids()
    (data / "n1" / "identity").write_bytes(b"garbage")
    os.kill(pid, signal.SIGKILL)
    assert local.process.wait(30) == 1
    assert re.search(r"has ended \(killed by SIGKILL\)(.|\n)*started again", local.text())
    assert re.search(r"has ended \(exit code \d+; its last words: .*identity", local.text())
    assert "start it again with: " in local.text()
    assert "all nodes have ended" in local.text()


async def test_it_ends_when_all_nodes_did(local: Local) -> None:
    local.start("--nodes", "1", "--port", str(ports_of(1)), "--no-restart")
    await local.wait_for("what is killed stays down")
    await local.wait_for("Ctrl-C stops everything")
    [pid] = local.pids()
    os.kill(pid, signal.SIGKILL)
    assert local.process.wait(15) == 1
    assert "all nodes have ended" in local.text()


async def test_no_node_is_left_behind_when_it_is_killed(local: Local) -> None:
    data = local.directory / "data"
    local.start("--port", str(ports_of(3)), "--data", str(data))
    await local.wait_for("Ctrl-C stops everything")
    local.process.kill()

    async def have_stopped() -> bool | None:
        logs = [(data / f"n{number}.log").read_text().rstrip() for number in (1, 2, 3)]
        return all("stopped" in log.splitlines()[-1] for log in logs) or None

    await wait_until("all nodes ended, in order", have_stopped, 10)
