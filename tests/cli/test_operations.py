"""`members`, `transfer`, `backup`, `snapshot`, `compact`, `bench`, `completion` and `--help`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from raftkv.cli.main import main
from tests.client.contract_server import ContractServer, Fault

ID = "00000000000000b2"
OTHER = "00000000000000c3"


def raftkv(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.fixture
def members(server: ContractServer) -> ContractServer:
    fields = {"peer_url": "h:1", "client_url": "http://h:2", "role": "follower", "voter": True}
    server.members = [
        {"id": ID, "name": "n2", "match_index": 9, "healthy": True, **fields},
        {"id": OTHER, "name": "n4", **fields, "voter": False},
    ]
    return server


@pytest.mark.usefixtures("members")
def test_members_list() -> None:
    assert raftkv("members", "list").stdout.splitlines() == [
        f"n2\t{ID}\tfollower\t9\t-\tyes\thttp://h:2\th:1",
        f"n4\t{OTHER}\tlearner\t-\t-\t-\thttp://h:2\th:1",
    ]
    assert json.loads(raftkv("members", "list", "-o", "json").stdout)["config_index"] == 7


@pytest.mark.usefixtures("members", "terminal")
def test_members_list_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    header, *rows = raftkv("members", "list").stdout.splitlines()
    assert header.split()[:3] == ["name", "id", "role"]
    assert [row.split()[0] for row in rows] == ["n2", "n4"]


def test_members_are_changed_by_name_or_id(members: ContractServer) -> None:
    added = raftkv(
        *("members", "add", ID, "--name", "n5", "--peer-url", "h:3"),
        *("--client-url", "http://h:4", "--promote", "--if-config", "7", "-o", "json"),
    )
    assert json.loads(added.stdout)["if_match"] == '"7"'
    for arguments in (
        ("members", "promote", "n4"),
        ("members", "replace", "n2", "--by", "n4"),
        ("members", "remove", ID),
        ("transfer", "n2"),
        ("transfer",),
        ("compact", "42"),
    ):
        done = raftkv(*arguments)
        assert (done.exit_code, done.stdout) == (0, "")
    path = "/v1/cluster/members"
    assert [(method, asked.partition("?")[0]) for method, asked in members.executed] == [
        ("POST", path),
        ("POST", f"{path}/{OTHER}/promote"),
        ("POST", f"{path}/{ID}/replace"),
        ("DELETE", f"{path}/{ID}"),
        ("POST", "/v1/cluster/leader"),
        ("POST", "/v1/cluster/leader"),
        ("POST", "/v1/maintenance/compact"),
    ]


def test_a_member_that_is_none_or_not_one(members: ContractServer) -> None:
    missing = raftkv("members", "remove", "n9")
    assert missing.exit_code == 3
    assert missing.stderr == "Error: there is no member 'n9'; see `raftkv members list`\n"
    members.members[1]["name"] = "n2"
    assert "give one of the ids" in raftkv("members", "remove", "n2").stderr
    assert not members.executed


def test_a_refused_change_says_why(members: ContractServer) -> None:
    members.faults = lambda request: (
        Fault(status=409, code="would_lose_quorum", retryable=False)
        if request.method == "DELETE"
        else None
    )
    failed = raftkv("members", "remove", "n2")
    assert (failed.exit_code, failed.stderr) == (1, "Error: because would_lose_quorum\n")


def test_backup(server: ContractServer, tmp_path: Path) -> None:
    file = tmp_path / "store.backup"
    done = raftkv("backup", str(file), "-o", "json")
    assert json.loads(done.stdout)["size_bytes"] == len(server.backup)
    assert file.read_bytes() == server.backup
    assert raftkv("backup", str(file)).exit_code == 2
    assert raftkv("backup", str(file), "--force").exit_code == 0
    assert raftkv("backup", "-").stdout_bytes == server.backup
    assert [path.name for path in tmp_path.iterdir()] == ["store.backup"]


def test_a_backup_that_fails_leaves_nothing_behind(server: ContractServer, tmp_path: Path) -> None:
    server.faults = lambda _: Fault(status=500, code="internal", retryable=False)
    assert raftkv("backup", str(tmp_path / "b")).exit_code == 1
    assert raftkv("backup", str(tmp_path / "no" / "b")).exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_snapshot(server: ContractServer) -> None:
    (answer,) = json.loads(raftkv("snapshot", "-o", "json").stdout)
    assert answer["endpoint"] == server.url
    server.faults = lambda _: Fault(status=503, code="stopping")
    assert raftkv("snapshot").exit_code == 1


def test_bench(server: ContractServer) -> None:
    done = raftkv("bench", "--connections", "2", "--seconds", "200ms", "--keys", "5", "-o", "json")
    result = json.loads(done.stdout)
    assert {each["operation"] for each in result["results"]} == {"put", "get"}
    assert all(each["count"] > 0 for each in result["results"])
    assert all(each["p50_ms"] <= each["max_ms"] for each in result["results"])
    assert server.executed[-1][0] == "DELETE"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_RAFTKV_COMPLETE" in raftkv("completion", shell).stdout


def commands(
    command: click.Command = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=[" ".join(path) for path, _ in commands()]
)
def test_every_command_explains_itself(path: tuple[str, ...], command: click.Command) -> None:
    for flag in ("--help", "-h"):
        shown = raftkv(*path, flag)
        assert shown.exit_code == 0
        assert shown.stdout.startswith(f"Usage: {' '.join(('main', *path))}")
    assert command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help, parameter.name


def test_json_is_offered_by_every_client_command() -> None:
    for _, command in commands():
        names = {parameter.name for parameter in command.params}
        assert ("endpoints" in names) <= ("form" in names)


def test_a_client_command_does_not_wait_for_the_imports_of_a_node() -> None:
    script = "import sys, raftkv.cli.main as m; m.main(['get', '--help'], standalone_mode=False)"
    script += "; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    modules = done.stderr.split()
    assert "raftkv.client.client" in modules
    assert not [name for name in modules if name.startswith(("raftkv.server", "raftkv.raft"))]
