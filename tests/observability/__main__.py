"""Provoke every alert on live clusters, under a real Prometheus: `make test-observability`.

1. Every query of every dashboard has data.
2. Each alert goes inactive -> firing -> inactive when its fault comes and goes, with thresholds and
   ranges of production (only `for` is shortened), and the fault shows on a panel.

Minutes, most of them the ten that RaftKVLeaderFlapping looks back.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import aiohttp

from tests.observability.clusters import FaultyCluster, Load, ask, job_of
from tests.observability.panels import empty_panels, panel_values
from tests.observability.prometheus import Job, Prometheus
from tests.observability.provocations import PROVOCATIONS, Lab, Provocation, Provoke, token_line
from tests.process.cluster import Cluster, ClusterError
from tests.process.ports import free_port

WARM_UP_SECONDS = 60.0
FIRING_SECONDS_MAX = 240.0
# Longer than the longest range of the rules.
INACTIVE_SECONDS_MAX = 900.0
_TOKEN = "observability-admin"


class OperatorProcess:
    """`tests.observability.operator_process`, which can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.faults = directory / "operator.faults"
        self._log = directory / "operator.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.observability.operator_process"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self.port), str(self.faults)], stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass
class Setting:
    lab: Lab
    prometheus: Prometheus


@asynccontextmanager
async def setting(directory: Path, wanted: Collection[str]) -> AsyncIterator[Setting]:
    """Clusters, operator, load, and a Prometheus that sees it all; the jobs that are ``wanted``."""
    for name in ("kills", "faults", "single"):
        (directory / name).mkdir()
    tokens = directory / "tokens"
    tokens.write_text(token_line(_TOKEN))
    options = ("--auth-token-file", str(tokens), "--quota-bytes", str(4 << 20))
    kills = Cluster(directory / "kills")
    faults = FaultyCluster(directory / "faults")
    single = Cluster(directory / "single", count=1, extra=options, token=_TOKEN)
    operator = OperatorProcess(directory)
    jobs = [
        job_of("kills", kills),
        job_of("faults", faults),
        job_of("single", single, _TOKEN),
        Job("operator", {"operator": operator.port}),
    ]
    try:
        if "operator" in wanted:
            operator.start()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(faults.proxy)
            for name, cluster in (("kills", kills), ("faults", faults), ("single", single)):
                if name in wanted:
                    await stack.enter_async_context(cluster)
            shown = [job for job in jobs if job.name in wanted]
            prometheus = await stack.enter_async_context(
                Prometheus(directory / "prometheus", shown)
            )
            session = await stack.enter_async_context(aiohttp.ClientSession())
            for cluster in (kills, faults):
                if cluster.running:
                    await stack.enter_async_context(Load(cluster.urls))
            lab = Lab(
                kills=kills,
                faults=faults,
                single=single,
                tokens=tokens,
                admin_token=_TOKEN,
                operator_faults=operator.faults,
                restart_operator=operator.start,
                kill_operator=operator.kill,
                session=session,
            )
            yield Setting(lab, prometheus)
    finally:
        operator.kill()


async def check_panels(at: Setting) -> list[str]:
    """What is wrong with the dashboards: panels without data."""
    for node in at.lab.kills.nodes:
        status, answer = await ask(at.lab.session, "POST", f"{node.url}/v1/maintenance/snapshot")
        assert status == 200, answer
    await asyncio.sleep(WARM_UP_SECONDS)
    found = []
    for dashboard in ("cluster", "latency", "storage", "watches"):
        found += await empty_panels(at.prometheus, dashboard, "kills")
    found += await empty_panels(at.prometheus, "operator", "operator")
    return [f"no data: {panel}" for panel in found]


async def check_alerts(at: Setting, names: Sequence[str]) -> list[str]:
    """What went wrong with the alerts; the jobs side by side."""
    by_job: dict[str, dict[Provoke, list[str]]] = {}
    for name, provocation in PROVOCATIONS.items():
        if name in names:
            groups = by_job.setdefault(provocation.job, {})
            groups.setdefault(provocation.provoke, []).append(name)
    tracks = [track(at, groups) for groups in by_job.values()]
    return [failure for found in await asyncio.gather(*tracks) for failure in found]


async def track(at: Setting, groups: dict[Provoke, list[str]]) -> list[str]:
    """The provocations of one job, one after the other."""
    failures: list[str] = []
    waiting: list[asyncio.Task[list[str]]] = []
    for provoke, names in groups.items():
        try:
            healed = await provoked(at, provoke, names)
        except Exception as error:  # noqa: BLE001 - the other alerts are still to be seen
            say(f"FAILED {provoke.__name__}: {type(error).__name__}: {error}")
            failures.append(f"{provoke.__name__} ({', '.join(names)}): {error}")
            continue
        ending = asyncio.create_task(ended(at, names, healed))
        waiting.append(ending)
        if PROVOCATIONS[names[0]].job != "faults":  # there, no fault is the next one's, too
            await ending
    for ending in waiting:
        failures += await ending
    return failures


async def provoked(at: Setting, provoke: Provoke, names: Sequence[str]) -> float:
    """Let the fault come and go; returns when it was gone."""
    for name in names:
        await at.prometheus.wait_state(name, PROVOCATIONS[name].job, "inactive", 120.0)
    began_at = monotonic()
    failed: Exception | None = None
    async with provoke(at.lab):
        try:
            await fire(at, names, began_at)
        except Exception as error:  # noqa: BLE001 - the fault must go also then
            failed = error
    if failed is not None:
        raise failed
    return monotonic()


async def fire(at: Setting, names: Sequence[str], began_at: float) -> None:
    """Wait until the alerts fire, are worded well, and show."""
    for name in names:
        job = PROVOCATIONS[name].job
        await at.prometheus.wait_state(name, job, "firing", FIRING_SECONDS_MAX)
        summary = (await at.prometheus.annotations_of(name, job))["summary"]
        assert "<no value>" not in summary
        assert "error" not in summary
        say(f"{name}: firing after {monotonic() - began_at:.0f} s: {summary}")
        await check_shown(at.prometheus, name, PROVOCATIONS[name])


async def check_shown(prometheus: Prometheus, name: str, provocation: Provocation) -> None:
    """The panel shows it; a graph that is drawn from rates may need some more scrapes."""
    for _ in range(20):
        shown = await panel_values(
            prometheus, provocation.dashboard, provocation.panel, provocation.job, 60.0
        )
        if any(provocation.shows(value) for value in shown):
            return
        await asyncio.sleep(2.0)
    raise ClusterError(f"{provocation.dashboard} / {provocation.panel} does not show {name}")


async def ended(at: Setting, names: Sequence[str], healed_at: float) -> list[str]:
    failures = []
    for name in names:
        job = PROVOCATIONS[name].job
        try:
            await at.prometheus.wait_state(name, job, "inactive", INACTIVE_SECONDS_MAX)
        except ClusterError as error:
            failures.append(str(error))
            say(f"FAILED {error}")
        else:
            say(f"{name}: inactive {monotonic() - healed_at:.0f} s after its cause had gone")
    return failures


async def until_told_to_end(work: Coroutine[None, None, int]) -> int:
    """Do the work; SIGTERM and SIGINT end it in order, with every process that it started."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 1


_BEGAN_AT = monotonic()


def say(text: str) -> None:
    sys.stdout.write(f"{monotonic() - _BEGAN_AT:5.0f} s  {text}\n")
    sys.stdout.flush()


async def run(directory: Path, names: Sequence[str], *, with_panels: bool) -> int:
    wanted = {PROVOCATIONS[name].job for name in names}
    async with setting(directory, wanted) as at:
        failures = await check_panels(at) if with_panels else []
        for failure in failures:
            say(f"FAILED {failure}")
        if with_panels and not failures:
            say("every query of every dashboard has data")
        failures += await check_alerts(at, names)
    say(f"{len(names)} alerts, {len(failures)} failures")
    for failure in failures:
        say(f"  {failure}")
    return int(bool(failures))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", metavar="ALERT", help="these alerts, and no panels")
    parser.add_argument("--directory", type=Path, help="keep logs and data here")
    options = parser.parse_args()
    if not Prometheus.is_installed():
        say("skipped: prometheus is not installed (Debian: apt-get install prometheus)")
        return 0
    names = list(PROVOCATIONS) if options.only is None else options.only
    if unknown := set(names) - set(PROVOCATIONS):
        parser.error(f"no such alert: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        work = run(directory, names, with_panels=options.only is None)
        return asyncio.run(until_told_to_end(work))


if __name__ == "__main__":
    sys.exit(main())
