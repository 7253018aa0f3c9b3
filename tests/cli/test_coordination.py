"""`watch`, `txn`, `lease`, `lock`, and the flags that need a whole server."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raftkv.cli.main import main
from tests.client.contract_server import ContractServer, Fault

RAFTKV = (sys.executable, "-m", "raftkv")


def raftkv(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin, catch_exceptions=False)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for another thread or process; fails after 20 s."""
    ends_at = time.monotonic() + 20
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < ends_at
        pause.wait(0.01)


# ---- flags of writes ------------------------------------------------------------------------


def test_flags_become_what_the_api_calls_them(server: ContractServer) -> None:
    raftkv("put", "k", "v", "--ttl", "1m30s", "--prev")
    assert "ttl=90000ms" in server.requests[-1].raw_path
    raftkv(
        "put",
        "k",
        "v",
        "--lease",
        "00000000000000aa",
        "--idempotency-key",
        "job 7".replace(" ", "-"),
    )
    assert "lease=00000000000000aa" in server.requests[-1].raw_path
    assert server.requests[-1].headers["Idempotency-Key"] == "job-7"
    raftkv("put", "k", "v", "--fence", "a b:42")
    assert server.requests[-1].headers["X-RaftKV-Fence"] == "a%20b:42"
    raftkv("put", "k", "v", "--if-match", "*")
    assert server.requests[-1].headers["If-Match"] == "*"
    raftkv("put", "k", "v", "--if-none-match")
    assert server.requests[-1].headers["If-None-Match"] == "*"
    raftkv("get", "k", "--consistency", "bounded", "--max-stale", "5s", "--min-revision", "3")
    path = server.requests[-1].raw_path
    assert "consistency=bounded&max_stale=5000ms&min_revision=3" in path


def test_the_value_before(server: ContractServer) -> None:
    assert raftkv("put", "k", "one", "--prev").stdout == ""
    assert raftkv("put", "k", "two", "--prev").stdout == "one"
    assert json.loads(raftkv("del", "k", "--prev", "-o", "json").stdout)["prev"]["value"] == "two"
    assert server.revision == 103


def test_a_lost_fence_exits_with_4(server: ContractServer) -> None:
    failed = raftkv("put", "k", "v", "--fence", "jobs:42")
    assert (failed.exit_code, failed.stderr) == (4, "Error: because lock_lost\n")
    assert not server.items


def test_the_same_idempotency_key_does_it_once(server: ContractServer) -> None:
    for _ in range(2):
        assert raftkv("incr", "n", "--idempotency-key", "job-7").stdout == "1\n"
    assert len(server.executed) == 1


# ---- access ---------------------------------------------------------------------------------


def test_tokens(server: ContractServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sent() -> str | None:
        return server.requests[-1].headers.get("Authorization")

    raftkv("get", "k")
    assert sent() is None
    raftkv("get", "k", "--token", "a")
    assert sent() == "Bearer a"
    monkeypatch.setenv("RAFTKV_TOKEN", "b")
    raftkv("get", "k")
    assert sent() == "Bearer b"
    file = tmp_path / "token"
    file.write_text("c\nanother line\n")
    raftkv("get", "k", "--token-file", str(file))
    assert sent() == "Bearer c"


def test_a_missing_token_is_said_with_what_to_do(server: ContractServer) -> None:
    server.faults = lambda _: Fault(status=401, code="unauthorised", retryable=False)
    failed = raftkv("get", "k")
    assert failed.exit_code == 1
    assert failed.stderr.splitlines() == [
        "Error: because unauthorised",
        "Give a token with --token-file or RAFTKV_TOKEN.",
    ]


# ---- txn ------------------------------------------------------------------------------------

SALE = """
    # one left, and nobody has it
    if value stock = 1
    if absent sold
    then delete stock
    then put sold 'ann and bob'
    then increment count 2
    else get sold
"""


def test_txn(server: ContractServer) -> None:
    raftkv("put", "stock", "1")
    done = raftkv("txn", "-o", "json", stdin=SALE)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "succeeded": True,
        "revision": 102,
        "replayed": False,
        "results": [{"deleted": 1}, {"version": 1}, {"value": 2, "version": 1}],
    }
    again = raftkv("txn", stdin=SALE)
    assert (again.exit_code, again.stdout) == (4, "ann and bob\n")
    assert "a compare does not hold" in again.stderr


@pytest.mark.usefixtures("terminal")
def test_txn_for_people(server: ContractServer) -> None:
    shown = raftkv("txn", stdin="then put k v\nthen get k\nthen incr n\nthen del k").stdout
    assert shown.splitlines()[0] == "done, at revision 101"
    assert "the sum is 1" in shown
    assert len(server.executed) == 1


def test_txn_from_json(server: ContractServer) -> None:
    asked = {"compare": [], "success": [{"op": "put", "key": "k", "value": "v"}]}
    assert raftkv("txn", stdin=json.dumps(asked)).exit_code == 0
    assert list(server.items) == [b"k"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("when x", "line 1: 'when' is neither if, then nor else"),
        ("then put k v\n\nthen put k", "line 3: 'put k' is not an operation"),
        ("if value k ~ 1", "line 1: '~' is none of"),
        ("if version k = many", "line 1: 'many' is not a whole number"),
        ("then put k 'v", "line 1: No closing quotation"),
        ("# nothing", "there is nothing to do"),
        ("then", "line 1: '' is not an operation"),
    ],
)
def test_a_transaction_that_cannot_be_understood_is_not_sent(
    server: ContractServer, text: str, complaint: str
) -> None:
    failed = raftkv("txn", stdin=text)
    assert failed.exit_code == 2
    assert complaint in failed.stderr
    assert not server.requests


# ---- watch ----------------------------------------------------------------------------------


def test_watch(server: ContractServer) -> None:
    raftkv("put", "a/1", "one\ntwo")
    raftkv("put", "b", "other")
    raftkv("put", "a/1", "three")
    raftkv("del", "a/1")
    watched = ("watch", "--prefix", "a/", "--from", "100", "--count", "3")
    assert raftkv(*watched).stdout.splitlines() == [
        "101 put a/1 = one\\ntwo",
        "103 put a/1 = three",
        "104 delete a/1",
    ]
    lines = raftkv(*watched, "--prev", "-o", "json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["put", "put", "delete"]
    assert events[1]["value"] == "three"
    assert events[2]["prev"]["value"] == "three"
    assert raftkv("watch", "b", "--from", "100", "--count", "1").stdout == "102 put b = other\n"
    assert server.watch_ids == [None] * 3


def test_watch_ends_with_ctrl_c(server: ContractServer) -> None:
    with subprocess.Popen(
        [*RAFTKV, "watch", "--prefix", ""],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Tests that run in the background of a shell inherit that it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        wait_until(lambda: server.watch_ids)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


def test_watch_of_lost_history_is_one_sentence(server: ContractServer) -> None:
    server.oldest_revision = 99
    failed = raftkv("watch", "k", "--from", "5")
    assert (failed.exit_code, failed.stderr) == (1, "Error: because compacted\n")


@pytest.mark.parametrize("arguments", [("watch",), ("watch", "k", "--prefix", "p")])
def test_watch_needs_one_of_key_and_prefix(arguments: tuple[str, ...]) -> None:
    failed = raftkv(*arguments)
    assert failed.exit_code == 2
    assert "either KEY or --prefix" in failed.stderr


# ---- lease ----------------------------------------------------------------------------------


def test_leases(server: ContractServer) -> None:
    lease = raftkv("lease", "grant", "30s").stdout.strip()
    raftkv("put", "k", "v", "--lease", lease)
    assert raftkv("lease", "list").stdout == f"{lease}\t30\t30\n"
    assert raftkv("lease", "show", lease).stdout == "k\n"
    shown = json.loads(raftkv("lease", "show", lease, "-o", "json").stdout)
    assert shown["keys"] == [{"key": "k", "key_encoding": "utf-8"}]
    assert raftkv("lease", "keepalive", lease).stdout == "30\n"
    assert raftkv("lease", "revoke", lease).exit_code == 0
    assert not server.items
    for command in ("show", "keepalive", "revoke"):
        assert raftkv("lease", command, lease).exit_code == 3
    assert raftkv("lease", "grant", "soon").exit_code == 2


# ---- lock -----------------------------------------------------------------------------------


def test_lock_by_hand(server: ContractServer) -> None:
    token = raftkv("lock", "acquire", "jobs", "--owner", "me").stdout.strip()
    assert raftkv("lock", "acquire", "jobs", "--owner", "me").stdout.strip() == token
    assert raftkv("lock", "acquire", "jobs").exit_code == 4
    assert raftkv("lock", "list").stdout.startswith(f"jobs\t{token}\tme\t")
    assert json.loads(raftkv("lock", "show", "jobs", "-o", "json").stdout)["token"] == int(token)
    assert raftkv("put", "k", "v", "--fence", f"jobs:{token}").exit_code == 0
    assert raftkv("lock", "keepalive", "jobs", token).stdout == "10\n"
    assert raftkv("lock", "release", "jobs", "1").exit_code == 4
    assert raftkv("lock", "release", "jobs", token).exit_code == 0
    assert raftkv("lock", "show", "jobs").exit_code == 3
    assert raftkv("put", "k", "v", "--fence", f"jobs:{token}").exit_code == 4
    assert not server.locks


def lock(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RAFTKV, "lock", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("form", [(), ("run",)])
def test_lock_runs_a_command_and_passes_its_exit_code_on(
    server: ContractServer, form: tuple[str, ...]
) -> None:
    script = 'echo "$RAFTKV_LOCK_NAME $RAFTKV_LOCK_TOKEN $RAFTKV_FENCE"; exit 7'
    done = lock(*form, "jobs", "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == "jobs 101 jobs:101\n"
    assert not server.locks


def test_what_a_locked_command_writes_is_fenced(server: ContractServer) -> None:
    assert lock("jobs", "--", *RAFTKV, "put", "k", "v").returncode == 0
    assert any("X-RaftKV-Fence" in request.headers for request in server.requests)
    assert list(server.items) == [b"k"]


def test_a_command_that_dies_of_a_signal(server: ContractServer) -> None:
    assert lock("jobs", "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert not server.locks


def test_a_command_that_cannot_be_run(server: ContractServer) -> None:
    done = raftkv("lock", "jobs", "--", "/no/such/command")
    assert done.exit_code == 1
    assert done.stderr == "Error: cannot run '/no/such/command': no such file or directory\n"
    assert not server.locks


def test_a_lost_lock_ends_the_command(server: ContractServer) -> None:
    with subprocess.Popen(
        [*RAFTKV, "lock", "jobs", "--ttl", "300ms", "--", "sleep", "60"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: server.locks)
        server.locks.clear()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1
    assert "the lock 'jobs' was lost, and the command was stopped" in said


def test_a_lock_that_is_held_exits_with_4(server: ContractServer) -> None:
    raftkv("lock", "acquire", "jobs")
    done = raftkv("lock", "jobs", "--wait", "100ms", "--", "true")
    assert (done.exit_code, done.stderr) == (4, "Error: because lock_held\n")


def test_sigterm_reaches_the_command(server: ContractServer) -> None:
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(
        [*RAFTKV, "lock", "jobs", "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 5
    assert not server.locks
