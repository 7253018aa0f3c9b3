"""Every example of these pages is run as printed, from top to bottom, and prints what it says.

Each page is one story, told to a cluster of `raftkv local` (and, in docs/http-api.md, to two nodes
that it starts itself). One shell performs it here, with other ports and processes.
`REWRITE_EXAMPLES=1` writes the outputs of this run into the page; read the difference line by line.
"""

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.process.cluster import COMMAND, wait_until
from tests.process.ports import free_ports

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        shutil.which("bash") is None or shutil.which("curl") is None,
        reason="bash or curl is not installed",
    ),
]

ROOT: Final = Path(__file__).parents[2]
#: The page, and the fewest examples that it has.
PAGES: Final = (
    pytest.param("http-api.md", 40, id="http-api.md"),
    pytest.param("quickstart.md", 15, id="quickstart.md"),
    pytest.param("tutorial.md", 12, id="tutorial.md", marks=pytest.mark.long),
)
README: Final = ROOT / "README.md"

#: Fields whose values differ from run to run. Whatever else changes is a change of the API.
VOLATILE_FIELDS: Final = frozenset(
    {
        *("uptime_seconds", "seconds_since_leader", "last_contact_seconds", "rtt_seconds"),
        *("remaining", "log_time_ms", "snapshot_age_seconds", "snapshot_duration_seconds"),
        # How many entries a log has depends on the ticks of its clock and on elections.
        *("term", "commit_index", "applied_index", "last_log_index", "durable_index"),
        *("match_index", "lag_entries", "config_index", "state_hash_index", "index"),
        *("db_bytes", "size_bytes", "next_cursor"),
        # What others said depends on when this node asked; elections on chance.
        *("report", "role_changes", "unanswered_seconds"),
    }
)
#: Likewise in any text: what is drawn at random or hashed, and the place in a log in a file's name.
#: The ids of leases are revisions, and begin with zeros.
VOLATILE_TEXTS: Final = (
    (re.compile(r"\b(?!0{8})([0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{16})\b"), "<random>"),
    (re.compile(r"\b\d{20}-\d+\.snapshot\b"), "<snapshot>"),
    (re.compile(r"(?<=^X-RaftKV-Age-Seconds: )[\d.]+", re.MULTILINE), "<seconds>"),
)
#: Tables of a terminal: who leads after an election, and the numbers, are those of the run.
VOLATILE_CELLS: Final = (
    (re.compile(r"^((?:\S+:\d+ +)?n\d .*?)\b(leader|follower)\b"), r"\1<role>"),
    (re.compile(r"(?<=<role>)( +\d+ +)n\d\b"), r"\1<leader>"),
    (re.compile(r"(?<![\w/:])\d+(\.\d+)?(?= |$|\W(?!\d))"), "<number>"),
    (re.compile(r" +"), " "),
)
#: In the order of ids, which is another one in each run.
LISTS_OF_MEMBERS: Final = ("members",)

_PAGE_PORT: Final = 7400
_OFFSETS: Final = (0, 1, 10, 11, 20, 21, 30, 31, 40, 41, 43)
_COLUMNS: Final = 130
_SECONDS_MAX: Final = 60
_END: Final = "----- end of example -----"


@dataclass
class Example:
    """One command of the page, and the lines that it says it prints."""

    line: int  # where its output begins, as an index into the page's lines
    command: str
    output: list[str]


def examples_of(text: str) -> Iterator[Example]:
    """Of what is indented: a line that begins with ``$``, and what follows it up to the next."""
    lines = [*text.splitlines(), ""]
    at = 0
    while at < len(lines):
        at += 1
        if not lines[at - 1].startswith("    $ "):
            continue
        command = lines[at - 1][6:]
        while is_open(command):
            command += "\n" + lines[at][4:]
            at += 1
        end = at
        while end < len(lines) and (not lines[end] or lines[end].startswith("    ")):
            if lines[end].startswith("    $ "):
                break
            end += 1
        output = [line[4:] for line in lines[at:end]]
        while output and not output[-1]:
            output.pop()
        yield Example(at, command, output)


def is_open(command: str) -> bool:
    """Whether a quotation, or a line that ends in a backslash, goes on in the next line."""
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return command.endswith("\\")


def shown(printed: list[str], page: list[str]) -> list[str]:
    """``printed`` as the page shows it: without `Date`, and without the headers it leaves out."""
    is_head = bool(printed) and printed[0].startswith("HTTP/")
    kept = {line.partition(":")[0] for line in page} if "..." in page else None
    result: list[str] = []
    for line in printed:
        is_head = is_head and line != ""
        if is_head and line.startswith("Date:"):
            continue
        if is_head and kept is not None and not is_kept(line, kept):
            if result[-1:] != ["..."]:
                result.append("...")
            continue
        result += wrapped(line) if line.startswith("{") else [line]
    return result


def is_kept(line: str, names: set[str]) -> bool:
    return line.startswith("HTTP/") or line.partition(":")[0] in names


def wrapped(line: str) -> list[str]:
    """A long line of JSON, broken between fields."""
    lines = [""]
    for piece in re.split(r'(?<=,)(?=["{])', line):
        if lines[-1].strip() and len(lines[-1] + piece) > _COLUMNS:
            lines.append(" ")
        lines[-1] += piece
    return lines


def masked(lines: list[str], command: str) -> list[str]:
    """What must be equal: JSON on one line again, without what differs from run to run."""
    if "-o table" in command:
        return [steady_row(line) for line in lines]
    joined = re.sub(r"(?m)(?<=,)\n (?=[\"{])", "", "\n".join(lines))
    result = []
    for line in joined.split("\n"):
        text = json.dumps(steady(json.loads(line))) if line.startswith("{") else line
        for pattern, name in VOLATILE_TEXTS:
            text = pattern.sub(name, text)
        result.append(text)
    return result


def steady_row(line: str) -> str:
    for pattern, name in VOLATILE_CELLS:
        line = pattern.sub(name, line)
    return line


def steady(value: Any) -> Any:
    if isinstance(value, list):
        return [steady(each) for each in value]
    if not isinstance(value, dict):
        return value
    for name in LISTS_OF_MEMBERS:
        if name in value:
            value[name].sort(key=lambda member: member["name"])
    return {
        name: "<volatile>" if name in VOLATILE_FIELDS else steady(each)
        for name, each in value.items()
    }


class Shell:
    """Runs commands of a page: its own directory, the page's ports replaced by free ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_ports(_OFFSETS)
        #: The processes of the nodes, by what the page calls them.
        self.processes: dict[str, str] = {}
        # What a terminal has and a pipe has not: no meter of the progress.
        (directory / ".curlrc").write_text("no-progress-meter\n")
        (directory / "bin").mkdir()
        command = directory / "bin" / "raftkv"
        command.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
        command.chmod(0o755)

    def run(self, examples: list[Example]) -> list[list[str]]:
        """The lines that each of them printed. Ends whatever they leave behind."""
        script = "trap 'kill -9 $(jobs -p) 2> /dev/null' EXIT\n"
        for example in examples:
            script += f"{self._runnable(example)}\nprintf '\\n%s\\n' '{_END}'\n"
        output = self.directory / "output"
        with output.open("wb") as file:
            shell = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.directory,
                env={
                    **os.environ,
                    "CURL_HOME": str(self.directory),
                    "RAFTKV_ENDPOINTS": ",".join(
                        f"http://127.0.0.1:{self.port + offset}" for offset in (0, 10, 20)
                    ),
                    "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
                },
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            shell.wait(_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
            pytest.fail(f"not within {_SECONDS_MAX} s; so far:\n{output.read_text()}")
        text = re.sub(r"127\.0\.0\.1:(\d{5})\b", self._ports_of_the_page, output.read_text())
        *printed, rest = text.replace("\r\n", "\n").split(f"\n{_END}\n")
        assert (len(printed), rest) == (len(examples), ""), text
        return [each.rstrip("\n").split("\n") if each.strip() else [] for each in printed]

    def _runnable(self, example: Example) -> str:
        command = re.sub(
            r"(127\.0\.0\.1|localhost):(74\d\d)\b",
            lambda found: f"{found[1]}:{int(found[2]) - _PAGE_PORT + self.port}",
            example.command,
        )
        command = re.sub(r"\d{4,}", lambda pid: self.processes.get(pid[0], pid[0]), command)
        if command.startswith("curl -N"):
            # A stream has no end: Ctrl-C, once all lines that the page shows are there.
            lines = len(example.output) + 1  # `Date`
            return f"exec 3< <(exec {command}\n)\nhead -n {lines} <&3; kill $!; exec 3<&-"
        return command

    def _ports_of_the_page(self, found: re.Match[str]) -> str:
        offset = int(found[1]) - self.port
        return f"127.0.0.1:{_PAGE_PORT + offset}" if offset in _OFFSETS else found[0]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """With `raftkv local` beside it."""
    made = Shell(tmp_path)
    with (tmp_path / "local.log").open("wb") as log:
        local = subprocess.Popen(
            # Long enough for a slow machine to elect and to be looked at before n1 is back.
            [*COMMAND, "local", "--port", str(made.port), "--restart-after", "4"],
            stdout=log,
            stderr=log,
        )
    yield made
    local.send_signal(signal.SIGINT)
    try:
        local.wait(15)
    finally:
        local.kill()
        sys.stdout.write((tmp_path / "local.log").read_text())  # shown with a failure


async def until_n1_leads(first_port: int) -> None:
    """The founder leads a new cluster, unless the machine was too slow for that. Here it must."""
    urls = [f"http://127.0.0.1:{first_port + offset}" for offset in (0, 10, 20)]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session:

        async def look() -> bool | None:
            try:
                for url in urls:
                    async with session.get(f"{url}/readyz") as ready:
                        if ready.status != 200:
                            return None
                async with session.get(f"{urls[0]}/v1/status") as answer:
                    status = await answer.json()
                if status["role"] != "leader":
                    wanted = {"target": status["member_id"]}
                    async with session.post(f"{urls[0]}/v1/cluster/leader", json=wanted):
                        return None
            except (aiohttp.ClientError, OSError, TimeoutError):
                return None
            return True

        await wait_until("all are ready, and n1 leads", look, 30)


async def until_it_told(log: Path) -> dict[str, str]:
    """The processes of the nodes, as soon as `raftkv local` has printed its table."""

    async def look() -> dict[str, str] | None:
        return told(log) or None

    return await wait_until("raftkv local prints its table", look, 30)


@pytest.mark.parametrize(("name", "examples_min"), PAGES)
async def test_the_examples_of_the_page_print_what_it_says(
    shell: Shell, name: str, examples_min: int
) -> None:
    await until_n1_leads(shell.port)
    path = ROOT / "docs" / name
    page = path.read_text()
    own = await until_it_told(shell.directory / "local.log")
    shell.processes = {pid: own[node] for node, pid in processes_in(page).items()}
    examples = list(examples_of(page))
    assert len(examples) >= examples_min
    pairs = [
        (example, shown(printed, example.output))
        for example, printed in zip(examples, shell.run(examples), strict=True)
    ]
    if os.environ.get("REWRITE_EXAMPLES"):
        path.write_text(rewritten(page, pairs))
    wrong = [
        f"$ {example.command}\n" + "\n".join(output)
        for example, output in pairs
        if masked(example.output, example.command) != masked(output, example.command)
    ]
    assert not wrong, "other than the page says:\n\n" + "\n\n".join(wrong)


def test_who_wins_an_election_does_not_change_a_table() -> None:
    page = [
        "127.0.0.1:7400 -    no answer ",
        "127.0.0.1:7410 n2   running   follower 3    n3     5      5 ",
        "127.0.0.1:7420 n3   running   leader   3    n3     5      5 ",
    ]
    other = [
        "127.0.0.1:7400 -    no answer ",
        "127.0.0.1:7410 n2   running   leader   4    n2     6      6 ",
        "127.0.0.1:7420 n3   running   follower 4    n2     6      6 ",
    ]
    lost = [other[0], other[1].replace("running", "stopped"), other[2]]
    command = "raftkv status -o table"
    assert masked(page, command) == masked(other, command) != masked(lost, command)


def told(log: Path) -> dict[str, str]:
    return processes_in(log.read_text())


def processes_in(text: str) -> dict[str, str]:
    """The process of each node, in the table that `raftkv local` prints."""
    return dict(re.findall(r"^ *(n\d) .*127\.0\.0\.1:\d+ +(\d+) *$", text, re.MULTILINE))


async def test_the_curl_lines_of_the_readme_work(shell: Shell) -> None:
    await until_n1_leads(shell.port)
    lines = re.findall(r"^    (curl .*)$", README.read_text(), re.MULTILINE)
    assert len(lines) >= 4
    printed = shell.run([Example(0, line, []) for line in lines])
    for line, output in zip(lines, printed, strict=True):
        if "-X PUT" in line:
            assert json.loads(output[0])["key"] == "greeting", line
        else:
            assert output == ["hello"], line


def rewritten(page: str, pairs: list[tuple[Example, list[str]]]) -> str:
    """The page with these outputs."""
    lines = page.splitlines()
    for example, output in reversed(pairs):
        indented = [f"    {line}" if line else "" for line in output]
        lines[example.line : example.line + len(example.output)] = indented
    return "\n".join(lines) + "\n"


#: Bytes that a shell, a URL or a line would change.
AWKWARD: Final = {
    b"plain": b"text",
    b"a/b c?d%": b"two\nlines\n",
    b"quote'\"$": b"",
    "\u00fcml\u00e4ut".encode(): b"\x00\xff\n",
}


async def test_the_lines_of_the_migration_page_carry_every_byte(shell: Shell) -> None:
    await until_n1_leads(shell.port)
    page = (ROOT / "docs" / "migration.md").read_text()
    blocks = [
        textwrap.dedent(block).lstrip("\n")
        for block in re.findall(r"(?:^    .*\n|^\n)+", page, re.MULTILINE)
    ]
    store = next(block for block in blocks if block.startswith("while"))
    for source, coded in (("etcdctl", etcd_export(AWKWARD)), ("consul", consul_export(AWKWARD))):
        (shell.directory / "answer").write_text(json.dumps(coded))
        stand_in = shell.directory / "bin" / source
        stand_in.write_text("#!/bin/sh\ncat answer\n")
        stand_in.chmod(0o755)
        export = next(block for block in blocks if block.startswith(source))
        shell.run([Example(0, export, []), Example(0, store, [])])
        async with aiohttp.ClientSession(f"http://127.0.0.1:{shell.port}") as session:
            for key, value in AWKWARD.items():
                path = "/v1/k/" + base64.urlsafe_b64encode(key).decode().rstrip("=")
                async with session.get(path) as answer:
                    assert (answer.status, await answer.read()) == (200, value), (source, key)
                async with session.delete(path) as answer:
                    assert answer.status == 200


def etcd_export(rows: dict[bytes, bytes]) -> Any:
    """As `etcdctl get -w json` prints it."""
    return {"kvs": [{"key": in_base64(key), "value": in_base64(rows[key])} for key in rows]}


def consul_export(rows: dict[bytes, bytes]) -> Any:
    """As `consul kv export` prints it."""
    return [{"key": key.decode(), "flags": 0, "value": in_base64(rows[key])} for key in rows]


def in_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
