"""`put`, `get`, `del` and `append`: results, forms of output, exit codes, one clear sentence."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from raftkv.cli import common
from raftkv.cli.main import main
from raftkv.cli.printing import printable
from raftkv.kv.commands import Append, Condition, Delete, Once, Put, encode_command
from raftkv.node.events import Consistency
from raftkv.node.messages import Failure, FailureCode
from tests.server.http.fake_driver import FakeDriver

# Nothing listens on the discard port of a test machine.
NOBODY = "http://127.0.0.1:9"


def raftkv(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin, catch_exceptions=False)


def asked(driver: FakeDriver) -> list[object]:
    """The commands; each came under an idempotency key of its own."""
    once = [command for command in driver.commands if isinstance(command, Once)]
    assert len({command.key for command in once}) == len(driver.commands)
    return [command.command for command in once]


def test_put_and_get_through_pipes(driver: FakeDriver) -> None:
    stored = raftkv("put", "greeting", "hello")
    assert (stored.exit_code, stored.stdout) == (0, "101\n")
    got = raftkv("get", "greeting")
    assert (got.exit_code, got.stdout_bytes) == (0, b"hello")
    assert driver.reads[-1][1] is Consistency.LINEARIZABLE


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_values_from_standard_input_are_byte_exact(
    driver: FakeDriver, arguments: tuple[str, ...]
) -> None:
    value = bytes(range(256)) + b"\r\n\n"
    assert raftkv("put", "k", *arguments, stdin=value).exit_code == 0
    assert asked(driver) == [Put(b"k", value)]
    assert raftkv("get", "k").stdout_bytes == value


def test_append(driver: FakeDriver) -> None:
    raftkv("append", "k", "one")
    raftkv("append", "k", stdin=b"two")
    assert raftkv("get", "k").stdout == "onetwo"
    assert isinstance(asked(driver)[0], Append)


def test_del(driver: FakeDriver) -> None:
    raftkv("put", "k", "v")
    deleted = raftkv("del", "k")
    assert (deleted.exit_code, deleted.stdout) == (0, "1\n")
    again = raftkv("del", "k")
    assert (again.exit_code, again.stdout) == (3, "0\n")
    assert again.stderr == "Error: there is no key 'k'\n"


def test_an_absent_key_exits_with_3(driver: FakeDriver) -> None:
    got = raftkv("get", "k")
    assert (got.exit_code, got.stdout, got.stderr) == (3, "", "Error: there is no key 'k'\n")


def test_a_failed_condition_exits_with_4(driver: FakeDriver) -> None:
    assert raftkv("put", "k", "1", "--create-only").exit_code == 0
    for arguments in (
        ("put", "k", "2", "--create-only"),
        ("put", "k", "2", "--if-match", "7"),
        ("append", "k", "2", "--if-match", "7"),
        ("del", "k", "--if-match", "7"),
    ):
        failed = raftkv(*arguments)
        assert failed.exit_code == 4
        assert failed.stderr == "Error: the condition does not hold: the key is at revision 101\n"
    assert raftkv("put", "k", "2", "--if-match", "101").exit_code == 0
    assert raftkv("del", "k", "--if-match", "102").exit_code == 0
    assert asked(driver)[-1] == Delete(b"k", Condition(revisions=(102,)))


def test_get_local(driver: FakeDriver) -> None:
    raftkv("get", "k", "--consistency", "local")
    assert driver.reads[0][1] is Consistency.LOCAL


def test_get_as_of_a_revision(driver: FakeDriver) -> None:
    raftkv("put", "k", "one")
    raftkv("put", "k", "two")
    assert raftkv("get", "k", "--revision", "101").stdout == "one"
    assert raftkv("get", "k", "--revision", "100").exit_code == 3
    future = raftkv("get", "k", "--revision", "103")
    assert future.exit_code == 1
    assert "in the future" in future.stderr


def test_incr(driver: FakeDriver) -> None:
    assert raftkv("incr", "n").stdout == "1\n"
    assert raftkv("incr", "n", "--by", "-3").stdout == "-2\n"
    assert json.loads(raftkv("incr", "n", "-o", "json").stdout)["value"] == -1
    raftkv("put", "n", "text")
    refused = raftkv("incr", "n")
    assert (refused.exit_code, refused.stderr) == (1, "Error: the value is no number\n")


def test_ls(driver: FakeDriver) -> None:
    for key in ("a/1", "a/2", "b"):
        raftkv("put", key, "v")
    assert raftkv("ls").stdout == "a/1\na/2\nb\n"
    assert raftkv("ls", "a/", "--reverse").stdout == "a/2\na/1\n"
    assert raftkv("ls", "--delimiter", "/").stdout == "a/\nb\n"
    assert raftkv("ls", "--revision", "101").stdout == "a/1\n"
    shown = json.loads(raftkv("ls", "-o", "json").stdout)
    assert (shown["revision"], shown["items"][2]["value"]) == (103, "v")
    assert "value" not in json.loads(raftkv("ls", "-o", "json", "--keys-only").stdout)["items"][0]


def test_json_everywhere(driver: FakeDriver) -> None:
    stored = json.loads(raftkv("put", "k", "-", "-o", "json", stdin=b"\xff").stdout)
    assert stored == {"key": "k", "key_encoding": "utf-8", "revision": 101, "version": 1}
    assert json.loads(raftkv("get", "k", "-o", "json").stdout) == {
        "key": "k",
        "key_encoding": "utf-8",
        "value": "/w==",
        "value_encoding": "base64",
        "create_revision": 101,
        "mod_revision": 101,
        "version": 1,
        "revision": 101,
    }
    deleted = json.loads(raftkv("del", "k", "-o", "json").stdout)
    assert deleted == {"deleted": 1, "revision": 102}


@pytest.mark.usefixtures("terminal")
def test_people_get_sentences_and_tables(driver: FakeDriver) -> None:
    assert raftkv("put", "k", "v").stdout == "created 'k' at revision 101\n"
    assert raftkv("append", "k", "w").stdout == "stored 'k' at revision 102\n"
    table = raftkv("get", "k").stdout
    for cell in ("key", "value", "revision", "vw", "102"):
        assert cell in table
    assert raftkv("del", "k").stdout == "deleted 'k' at revision 103\n"


def test_a_value_cannot_steer_the_terminal() -> None:
    assert printable(b"a\x1b[31m\r[bold]\nb\xff").plain == "a\\x1b[31m\\r[bold]\nb\\xff"
    assert printable("é\u202e".encode()).plain == "é\\u202e"


@pytest.mark.usefixtures("terminal")
def test_markup_in_a_value_is_text(driver: FakeDriver) -> None:
    raftkv("put", "k", "[red]x[/red]")
    assert "[red]x[/red]" in raftkv("get", "k").stdout


def test_keys_that_are_not_text(driver: FakeDriver) -> None:
    key = os.fsdecode(b"a/../\xff//")
    assert raftkv("put", key, "v").exit_code == 0
    assert list(driver.items) == [b"a/../\xff//"]


def test_an_unknown_outcome_is_reported_as_unknown(driver: FakeDriver) -> None:
    driver.failure = Failure(FailureCode.UNKNOWN, "the leader went away")
    failed = raftkv("put", "k", "v", "--timeout", "0.3")
    assert failed.exit_code == 1
    assert failed.stderr == (
        "Error: the write may or may not have taken effect: the leader went away\n"
    )


@pytest.mark.usefixtures("driver")
def test_several_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = os.environ["RAFTKV_ENDPOINTS"]
    assert raftkv("put", "k", "v", "--endpoint", NOBODY, "--endpoint", endpoint).exit_code == 0
    monkeypatch.setenv("RAFTKV_ENDPOINTS", f"{NOBODY}, {endpoint}")
    assert raftkv("get", "k").stdout == "v"


def test_nothing_listens() -> None:
    failed = raftkv("get", "k", "--endpoint", NOBODY)
    assert failed.exit_code == 1
    assert failed.stderr == f"Error: cannot connect to {NOBODY}: connection refused\n"


@pytest.mark.parametrize("command", [("get", "k"), ("status",)])
def test_somebody_new_is_told_how_to_start(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.delenv("RAFTKV_ENDPOINTS", raising=False)
    monkeypatch.setattr(common, "_LOCAL_ENDPOINTS", (NOBODY,))
    failed = raftkv(*command)
    assert failed.exit_code == 1
    assert failed.stderr.splitlines()[1:] == [
        "Start a cluster here with `raftkv local`, or name a node with --endpoint."
    ]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("put",), "KEY"),
        (("get", "k", "--no-such-flag"), "--no-such-flag"),
        (("get", "k", "--endpoint", "ftp://x"), "ftp://x"),
        (("get", "k", "-o", "yaml"), "yaml"),
        (("get", "k", "--timeout", "0"), "--timeout"),
        (("get", "k", "--consistency", "strong"), "strong"),
        (("put", "k", "v", "--create-only", "--if-match", "7"), "contradict"),
        (("put", "k", "v", "--if-match", "x"), "--if-match"),
        (("no-such-command",), "no-such-command"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], named: str) -> None:
    failed = raftkv(*arguments)
    assert failed.exit_code == 2
    assert named in failed.stderr


def test_a_refused_key_is_one_sentence(driver: FakeDriver) -> None:
    failed = raftkv("get", "x" * 512)
    assert failed.exit_code == 1
    assert failed.stderr == "Error: the key has 512 bytes; a key has 1 to 511 bytes\n"
    assert raftkv("get", "").exit_code == 1


def test_help_and_version() -> None:
    text = raftkv("--help").stdout
    for word in ("raftkv local", "put", "get", "del", "append", "status", "node"):
        assert word in text
    assert raftkv("--version").stdout.startswith("raftkv, version ")


def test_as_a_process_its_output_is_the_value_alone(driver: FakeDriver) -> None:
    driver.apply(encode_command(Put(b"k", b"\x00\xff\n")))
    done = subprocess.run(
        [sys.executable, "-m", "raftkv", "get", "k"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\x00\xff\n", b"")
