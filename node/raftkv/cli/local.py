"""`raftkv local`: a cluster on this machine, for looking at and for trying things out.

Starts one `raftkv node` process per member, tells what happens to them, and stops them all at
the end. The nodes are ordinary processes; this one only watches. They end with it, also when it
is killed. A node that somebody killed is started again after a while, so that one can watch the
others go on without it, and it catch up; one that ended by itself has a reason, and stays down.
"""

import asyncio
import json
import shlex
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from raftkv.client import Client, ClientError
from raftkv.client.model import JsonObject

PORT_STEP: Final = 10
POLL_SECONDS: Final = 0.2
# A node that does not answer a look within this time is shown as silent.
LOOK_SECONDS: Final = 1.0
FORM_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 10.0
# In the directory of --data: which cluster its nodes know. They find each other by port.
SHAPE_FILE: Final = "local.json"


class LocalNode:
    """One member: its process, and what was last seen of it."""

    def __init__(
        self, name: str, port: int, directory: Path, peers: str, more: Sequence[str]
    ) -> None:
        self.name = name
        self.port = port
        self.log = directory / f"{name}.log"
        self.arguments = [
            "node", "--id", name, "--addr", f"127.0.0.1:{port}", "--peers", peers,
            "--data", str(directory / name), *more,
        ]  # fmt: skip
        self.process: asyncio.subprocess.Process | None = None
        self.seen_ended_at: float | None = None  # by time.monotonic; None while it runs
        self.status: JsonObject | None = None  # None: it does not answer

    @property
    def url(self) -> str:
        """Where it serves clients."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self.process is not None
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        """Whether its process ended, for whatever reason."""
        return self.process is not None and self.process.returncode is not None

    @property
    def was_killed(self) -> bool:
        """Whether its process ended because somebody wanted it to: a signal, or SIGTERM's drain."""
        return self.process is not None and (self.process.returncode or 0) <= 0 and self.has_ended

    async def start(self) -> None:
        """Start the process, also again; its log is appended to."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "raftkv",
                *self.arguments,
                # However this process ends, the pipe closes, and no node is left behind.
                "--stop-at-eof",
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A Ctrl-C at the terminal is for this process, which then stops the nodes.
                start_new_session=True,
            )
        self.seen_ended_at = None

    async def stop(self) -> None:
        """End the process in order, but without the drain that load balancers need."""
        if self.process is None or self.has_ended:
            return
        # The second signal says that nobody wants to wait (`raftkv.server.drain`).
        for number in (signal.SIGTERM, signal.SIGINT):
            self.process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    def last_words(self) -> str:
        """The end of its log, for when it ended without being asked to."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it logged nothing"

    def how_it_ended(self) -> str:
        """The signal, or the exit code and the last line of its log."""
        assert self.process is not None
        code = self.process.returncode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        if code == 0:
            return "stopped in order"
        return f"exit code {code}; its last words: {self.last_words()}"


@click.command("local")
@click.option(
    "--nodes",
    type=click.IntRange(1, 9),
    default=3,
    show_default=True,
    help="How many members.",
)
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the data here.  [default: a temporary directory, removed at the end]",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65000),
    default=7400,
    show_default=True,
    help="Client port of the first node; the others follow in steps of 10, peers one above.",
)
@click.option(
    "--restart-after",
    type=click.FloatRange(0, 86400),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="Start a node that was killed again after this time.",
)
@click.option(
    "--no-restart",
    is_flag=True,
    help="Leave killed nodes down; a line says how to start them by hand.",
)
def local_command(
    *, nodes: int, data: Path | None, port: int, restart_after: float, no_restart: bool
) -> None:
    """Run a cluster on this machine until Ctrl-C.

    Prints a curl command that works, and what happens to the nodes as it happens. Kill one and
    watch: it is started again after a while. One that ends by itself is not.
    """
    ports = [port + PORT_STEP * number for number in range(nodes)]
    for each in ports:
        _refuse_occupied(each)
        _refuse_occupied(each + 1)
    with ExitStack() as stack:
        more: tuple[str, ...] = ()
        if data is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raftkv-")))
            # What is to be removed at the end must not leave traces elsewhere.
            more = ("--runtime-dir", str(directory))
        else:
            directory = data
            try:
                directory.mkdir(parents=True, exist_ok=True)
                _refuse_another_shape(directory, nodes, port)
            except OSError as error:
                raise click.ClickException(f"cannot use {data}: {error.strerror}") from None
        peers = ",".join(f"n{i}=127.0.0.1:{each + 1}" for i, each in enumerate(ports, 1))
        members = [
            LocalNode(f"n{i}", each, directory, peers, more) for i, each in enumerate(ports, 1)
        ]
        asyncio.run(_run(members, directory, None if no_restart else restart_after))


def _refuse_another_shape(directory: Path, nodes: int, port: int) -> None:
    """Refuse data of other nodes or ports: its members would look for each other in vain."""
    wanted = {"nodes": nodes, "port": port}
    file = directory / SHAPE_FILE
    if not file.exists():
        file.write_text(json.dumps(wanted) + "\n")
        return
    try:
        kept = json.loads(file.read_text())
        flags = f"--nodes {kept['nodes']:d} --port {kept['port']:d}"
    except (ValueError, TypeError, KeyError):
        raise click.ClickException(f"{file} is not what `raftkv local` wrote") from None
    if kept != wanted:
        raise click.ClickException(
            f"{directory} holds a cluster started with {flags}; start it so, or name another --data"
        )


def _refuse_occupied(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            # Binding alone succeeds beside a listener on all interfaces.
            probe.listen()
        except OSError as error:
            raise click.ClickException(
                f"port {port} of 127.0.0.1 is taken ({error.strerror}); "
                "choose others with --port, or stop what listens there"
            ) from None


async def _run(
    members: Sequence[LocalNode], directory: Path, restart_seconds: float | None
) -> None:
    told_to_end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
    try:
        click.echo(f"Starting {len(members)} nodes; data and logs in {directory}")
        await asyncio.gather(*(member.start() for member in members))
        endpoints = [member.url for member in members]
        async with Client(endpoints, timeout_seconds=LOOK_SECONDS) as client:
            await _until_any(told_to_end, _form_and_narrate(client, members, restart_seconds))
    finally:
        click.echo("Stopping all nodes")
        for member in members:
            if member.has_ended and member.status is not None:
                click.echo(f"{member.name} was started by hand; stop it where you started it")
        await asyncio.gather(*(member.stop() for member in members))


async def _until_any(told_to_end: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` until it ends or somebody says that it should."""
    working = asyncio.ensure_future(work)
    telling = asyncio.ensure_future(told_to_end.wait())
    try:
        await asyncio.wait((working, telling), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        working.cancel()
        telling.cancel()


async def _form_and_narrate(
    client: Client, members: Sequence[LocalNode], restart_seconds: float | None
) -> None:
    deadline = time.monotonic() + FORM_SECONDS_MAX
    while not any(_is_leading(member.status) for member in members):
        for member in members:
            if member.has_ended:
                raise click.ClickException(f"{member.name} ended: {member.how_it_ended()}")
        if time.monotonic() > deadline:
            words = "; ".join(f"{member.name}: {member.last_words()}" for member in members)
            raise click.ClickException(f"no leader after {FORM_SECONDS_MAX:g} s. {words}")
        await asyncio.sleep(POLL_SECONDS / 2)
        await _look(client, members)
    _introduce(members, restart_seconds)
    while not all(_is_over(member, restart_seconds) for member in members):
        before = {member.name: (member.has_ended, member.status) for member in members}
        await asyncio.sleep(POLL_SECONDS)
        await _look(client, members)
        for member in members:
            _narrate(member, *before[member.name], restart_seconds)
        if any(member.has_ended and not before[member.name][0] for member in members):
            _narrate_majority(members)
        for member in members:
            await _start_again(member, restart_seconds)
    raise click.ClickException("all nodes have ended")


def _is_over(member: LocalNode, restart_seconds: float | None) -> bool:
    """Whether ``member`` has ended for good."""
    return member.has_ended and (restart_seconds is None or not member.was_killed)


async def _start_again(member: LocalNode, restart_seconds: float | None) -> None:
    """Start ``member`` if it was killed long enough ago, and nobody else did."""
    if member.seen_ended_at is None or restart_seconds is None or not member.was_killed:
        return
    if member.status is None and time.monotonic() - member.seen_ended_at >= restart_seconds:
        await member.start()
        _tell(f"{member.name} is started again, process {member.pid}")


async def _look(client: Client, members: Sequence[LocalNode]) -> None:
    """Ask every node for its status."""

    async def ask(number: int, member: LocalNode) -> None:
        try:
            member.status = await client.status(client.endpoints[number])
        except ClientError:
            member.status = None

    await asyncio.gather(*(ask(number, member) for number, member in enumerate(members)))


def _is_leading(status: JsonObject | None) -> bool:
    return status is not None and status["role"] == "leader" and status["state"] == "running"


def _introduce(members: Sequence[LocalNode], restart_seconds: float | None) -> None:
    leader = next(member for member in members if _is_leading(member.status))
    reader = members[-1]
    table = Table("node", "role", "clients", "peers", "process", box=None, padding=(0, 2, 0, 0))
    for member in members:
        role = "-" if member.status is None else str(member.status["role"])
        peers = f"127.0.0.1:{member.port + 1}"
        table.add_row(member.name, role, member.url, peers, str(member.pid))
    console = Console(highlight=False)
    console.print()
    console.print(table)
    console.print()
    again = (
        "what is killed stays down"
        if restart_seconds is None
        else f"it is started again after {restart_seconds:g} s"
    )
    for line in (
        "Write and read a key, through any node:",
        f"  curl -X PUT -d hello {members[0].url}/v1/kv/greeting",
        f"  curl {reader.url}/v1/kv/greeting",
        f"Kill the leader and watch the others elect a new one; {again}:",
        f"  kill -9 {leader.pid}",
        "Ctrl-C stops everything.",
        "",
    ):
        console.print(line, soft_wrap=True)


def _narrate(
    member: LocalNode,
    had_ended: bool,
    before: JsonObject | None,
    restart_seconds: float | None,
) -> None:
    """Say what changed since the last look."""
    after = member.status
    if member.has_ended and not had_ended:
        member.seen_ended_at = time.monotonic()
        member.status = None  # if it answered still, then just before
        led = ", which led," if _is_leading(before) else ""
        _tell(f"{member.name}{led} has ended ({member.how_it_ended()})")
        if restart_seconds is not None and member.was_killed:
            _tell(f"  it is started again in {restart_seconds:g} s")
        else:
            _tell(f"  start it again with: {_own_command()} {shlex.join(member.arguments)}")
    elif after is None:
        if before is not None and not member.has_ended:
            _tell(f"{member.name} does not answer")
    elif before is None:
        _tell(f"{member.name} answers: it {_standing(after)}")
    elif _standing(before) != _standing(after):
        _tell(f"{member.name} {_standing(after)}")


def _narrate_majority(members: Sequence[LocalNode]) -> None:
    """Say so when too few nodes are left for anything to be decided."""
    up = sum(not member.has_ended or member.status is not None for member in members)
    if 0 < up <= len(members) // 2:
        _tell(
            f"{up} of {len(members)} nodes {'is' if up == 1 else 'are'} left: no majority,"
            " so nothing is written or read"
        )


def _own_command() -> str:
    """How this command was started: `raftkv` need not be on the PATH."""
    started_as = Path(sys.argv[0])
    return str(started_as) if started_as.name == "raftkv" else f"{sys.executable} -m raftkv"


def _standing(status: JsonObject) -> str:
    """Role, term and leader in words."""
    role, term, leader = status["role"], status["term"], status["leader_name"]
    if term == 0:
        return "is starting"
    if status["state"] == "draining":
        return f"drains before it stops, in term {term}"
    match role:
        case "leader":
            return f"leads in term {term}"
        case "follower" | "learner" if leader is not None:
            return f"follows {leader} in term {term}"
        case "follower" | "learner":
            return f"knows no leader in term {term}"
        case _:
            return f"is a {str(role).replace('_', '-')} in term {term}"


def _tell(sentence: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')}  {sentence}")
