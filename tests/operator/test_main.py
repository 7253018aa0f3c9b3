"""The command: clear refusals, and crash points that exist and kill."""

import os
import signal
import subprocess
import sys
from typing import Any, get_args

import pytest
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner

from raftkv_operator.actions import (
    Action,
    AddLearner,
    Apply,
    Bootstrap,
    Call,
    Delete,
    DeleteClaim,
    DiscardPod,
    GrowClaim,
    OrphanStatefulSet,
    OwnClaim,
    PostEvent,
    PromoteLearner,
    RecordBootstrap,
    RecordHibernation,
    RecordReplacement,
    RemoveMember,
    ReplaceMember,
    ReplacePod,
    SetDrain,
    StopPod,
    TransferLeader,
    WriteStatus,
    action_points,
    describe,
)
from raftkv_operator.api import ReplacementRecord, Status
from raftkv_operator.failpoints import Failpoints, crash_points
from raftkv_operator.main import main
from raftkv_operator.metrics import Metrics, build_app
from tests.operator.examples import record

CALL = Call(ip="10.0.0.1", cluster_id="c", config_index=1)
EXAMPLES: tuple[Action, ...] = (
    RecordHibernation(record().members),
    RecordReplacement((ReplacementRecord(pod="demo-0", member_id="a", at="2026-11-21T10:00:00Z"),)),
    AddLearner(call=CALL, pod="demo-3", member_id="a"),
    PromoteLearner(call=CALL, pod="demo-3", member_id="a"),
    ReplaceMember(call=CALL, pod="demo-0", member_id="a", by="b"),
    RemoveMember(call=CALL, pod="demo-3", member_id="a"),
    TransferLeader(ip="10.0.0.1", cluster_id="c", pod="demo-1", member_id="b"),
    SetDrain(ip="10.0.0.1", cluster_id="c", pod="demo-1", member_id="b", is_draining=True),
    SetDrain(ip="10.0.0.1", cluster_id="c", pod="demo-1", member_id="b", is_draining=False),
    StopPod(name="demo-0", uid="uid"),
    DiscardPod(name="demo-0", uid="uid"),
    DeleteClaim(name="data-demo-3", uid="uid", why="its member was scaled away"),
    GrowClaim(name="data-demo-0", uid="uid", size="2Gi"),
    OwnClaim(name="data-demo-0", uid="uid", owners=()),
    OrphanStatefulSet(name="demo", uid="uid"),
    Apply({"kind": "StatefulSet", "metadata": {"name": "demo"}}, None),
    Delete("NetworkPolicy", "demo", "uid"),
    ReplacePod("demo-0", "uid"),
    RecordBootstrap(record()),
    RecordBootstrap(record(adopted=True)),
    Bootstrap(record(), "demo-0", "10.0.0.1"),
    PostEvent("n", "Normal", "Serving", "text"),
    WriteStatus(Status()),
)


def test_every_action_has_a_crash_point_and_a_description() -> None:
    assert {type(example) for example in EXAMPLES} == set(get_args(Action))
    for example in EXAMPLES:
        assert example.point in action_points()
        assert describe(example)
    assert len(crash_points()) == 2 * len(set(action_points()))


def test_unknown_crash_point_is_refused() -> None:
    with pytest.raises(ValueError, match="no crash point 'before:typo'"):
        Failpoints("before:typo")


def test_unarmed_points_do_nothing() -> None:
    for point in crash_points():
        Failpoints().reach(point)
    Failpoints("before:bootstrap").reach("after:bootstrap")


def test_armed_point_kills_the_process() -> None:
    code = (
        "from raftkv_operator.failpoints import Failpoints\n"
        "Failpoints('before:bootstrap').reach('before:bootstrap')\n"
        "print('survived')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--metrics-addr", "8080x"], "must be HOST:PORT"),
        (["--crash-at", "nowhere"], "no crash point 'nowhere'"),
        (["--resync-seconds", "0"], "0.0 is not in the range"),
        (["--no-such-flag"], "No such option"),
    ],
)
def test_wrong_option_is_refused_in_one_sentence(options: list[str], sentence: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(main, options)
    signal.signal(signal.SIGTERM, before)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output


def run_operator(**environment: str) -> "subprocess.CompletedProcess[str]":
    keep = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-m", "raftkv_operator"],
        env={**keep, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_no_access_to_kubernetes_is_one_sentence() -> None:
    result = run_operator(KUBECONFIG="/nonexistent/config")
    assert result.returncode == 1
    assert "Error: no access to Kubernetes is configured" in result.stderr
    assert "Traceback" not in result.stderr


async def test_metrics_and_liveness_are_served() -> None:
    app: Any = build_app(Metrics())
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/livez")).status == 200
        text = await (await client.get("/metrics")).text()
    for name in (
        "raftkv_operator_reconcile_total",
        "raftkv_operator_reconcile_seconds_count",
        "raftkv_operator_reconcile_errors_total",
        "raftkv_operator_cluster_ready",
        "raftkv_operator_cluster_members",
        "raftkv_operator_cluster_fault_tolerance",
    ):
        assert name in text
