"""`raftkv node`: flags, environment, and how a start that fails looks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raftkv.cli import node_command as module
from raftkv.cli.main import main
from raftkv.cli.node_command import node_command
from raftkv.server.addresses import Address
from raftkv.server.process import StartError
from raftkv.server.settings import Flags, ServerSettings


class Ran:
    """Stands in for `process.run`."""

    def __init__(self) -> None:
        self.settings: ServerSettings | None = None
        self.error: StartError | None = None

    def __call__(self, settings: ServerSettings) -> int:
        if self.error is not None:
            raise self.error
        self.settings = settings
        return 0


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    made = Ran()
    monkeypatch.setattr(module, "run", made)
    return made


def invoke(*arguments: str, **env: str) -> Result:
    # Through the group: click keeps the help option that it makes at a command's first use.
    return CliRunner().invoke(main, ("node", *arguments), env=env)


_SIGNAL_AT_THE_FIRST_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "raftkv.cli":
            assert not {"aiohttp", "click"} & sys.modules.keys()
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Finder())
sys.argv = ["raftkv", "node", "--help"]
from raftkv.__main__ import main
main()
"""


def test_operator_rule_15_a_signal_is_heard_before_anything_is_imported() -> None:
    """Else process 1 of a container, which has no default for it, would never end."""
    ended = subprocess.run(
        [sys.executable, "-c", _SIGNAL_AT_THE_FIRST_IMPORT],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_flags_reach_the_node(ran: Ran) -> None:
    result = invoke("--data", "d", "--id", "n1", "--addr", "10.0.0.1:80", "--rebuild")
    assert result.exit_code == 0, result.output
    assert ran.settings is not None
    assert ran.settings.name == "n1"
    assert ran.settings.data == Path("d")
    assert ran.settings.addr == Address("10.0.0.1", 80)
    assert ran.settings.rebuild


def test_each_flag_has_an_environment_variable(ran: Ran) -> None:
    variables = {option.envvar for option in node_command.params if isinstance(option.envvar, str)}
    settings = (*Flags.__slots__, "config")
    assert variables == {f"RAFTKV_{name.upper()}" for name in settings}
    result = invoke(
        RAFTKV_DATA="d",
        RAFTKV_ID="n7",
        RAFTKV_HEARTBEAT_MS="100",
        RAFTKV_ELECTION_MS="900",
        RAFTKV_REBUILD="true",
        RAFTKV_LOG_FORMAT="json",
    )
    assert result.exit_code == 0, result.output
    assert ran.settings is not None
    assert (ran.settings.name, ran.settings.heartbeat_ms, ran.settings.election_ms) == (
        "n7",
        100,
        900,
    )
    assert ran.settings.rebuild
    assert ran.settings.log_format == "json"


def test_a_flag_wins_over_its_variable(ran: Ran) -> None:
    assert invoke("--data", "d", "--id", "a", RAFTKV_ID="b").exit_code == 0
    assert ran.settings is not None
    assert ran.settings.name == "a"


def test_a_file_is_below_flags_and_variables(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        'data = "d"\nid = "from-file"\nlog_level = "debug"\nheartbeat-ms = 100\n'
        'election-ms = 1000\ndrain-seconds = 3\nrebuild = true\ntls-cert = "c"\ntls-key = "k"\n'
    )
    result = invoke("--config", str(file), "--heartbeat-ms", "50", RAFTKV_LOG_LEVEL="error")
    assert result.exit_code == 0, result.output
    made = ran.settings
    assert made is not None
    assert (made.data, made.name, made.rebuild) == (Path("d"), "from-file", True)
    assert (made.heartbeat_ms, made.election_ms, made.drain_seconds) == (50, 1000, 3.0)
    assert made.log_level == "error"
    assert made.tls is not None
    assert made.tls.cert == Path("c")
    assert invoke(RAFTKV_CONFIG=str(file)).exit_code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'adress = "a:1"\n', "node.toml: line 1: there is no setting 'adress'"),
        (b"\naddr = 7400\n", "node.toml: line 2: addr is a string, not a whole number"),
        (b"addr = \n", "node.toml: not TOML: "),
        (b"\xff\xfe", "node.toml: "),
        (b"#" * ((1 << 20) + 1), "node.toml: larger than"),
        (b'log-format = "xml"\n', "--log-format"),
        (b'addr = "here"\n', "--addr: 'here' is not HOST:PORT"),
        (b"", "Missing option '--data'"),
    ],
)
def test_a_file_that_makes_no_sense_exits_with_2(
    ran: Ran, tmp_path: Path, text: bytes, says: str
) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(text)
    result = invoke("--config", str(file), *(() if not text else ("--data", "d")))
    assert result.exit_code == 2
    assert says in result.output
    assert ran.settings is None
    assert invoke("--config", str(tmp_path / "none"), "--data", "d").exit_code == 2


def test_what_is_in_force_is_printed_with_where_it_came_from(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('\ndata = "d"\nquota_bytes = 2_000_000\n')
    arguments = ("--config", str(file), "--addr", "127.0.0.1:80", "--print-config")
    printed = invoke(*arguments, RAFTKV_ID="n7")
    assert printed.exit_code == 0
    assert ran.settings is None, "it prints and ends"
    lines = printed.output.splitlines()
    assert f'data = "d"  # {file}:2' in lines
    assert f"quota-bytes = 2000000  # {file}:3" in lines
    assert 'addr = "127.0.0.1:80"  # flag' in lines
    assert 'id = "n7"  # RAFTKV_ID' in lines
    assert 'peer-addr = "127.0.0.1:81"  # default' in lines
    assert "# auth-token-file is not set" in lines
    assert len(lines) == len(Flags.__slots__)

    file.write_text(printed.output)
    again = invoke("--config", str(file), "--print-config").output
    strip = [
        [line.partition("  # ")[0] for line in text.splitlines()]
        for text in (printed.output, again)
    ]
    assert strip[0] == strip[1]


def test_the_flags_that_the_page_on_security_names_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*[a-z])(?![a-z*-])", page))
    assert {"tls-cert", "peer-tls-ca", "auth-token-file", "config", "print-config"} <= named
    known = {name.replace("_", "-") for name in Flags.__slots__} | {"config", "print-config"}
    assert named <= known


def test_the_help_names_every_setting(ran: Ran) -> None:
    text = invoke("--help").output
    assert all(f"--{name.replace('_', '-')} " in text for name in Flags.__slots__)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing option '--data'"),
        (("--data", "d", "--no-such-flag"), "No such option"),
        (("--data", "d", "--addr", "here"), "--addr: 'here' is not HOST:PORT"),
        (("--data", "d", "--election-ms", "100"), "less than three heartbeats"),
        (("--data", "d", "--heartbeat-ms", "x"), "--heartbeat-ms"),
        (("--data", "d", "--log-format", "xml"), "--log-format"),
    ],
)
def test_wrong_usage_exits_with_2(ran: Ran, arguments: tuple[str, ...], says: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert ran.settings is None


def test_a_start_that_fails_is_one_sentence(ran: Ran) -> None:
    ran.error = StartError("cannot listen for clients at 127.0.0.1:7400: taken")
    result = invoke("--data", "d")
    assert result.exit_code == 1
    assert result.output == "Error: cannot listen for clients at 127.0.0.1:7400: taken\n"
