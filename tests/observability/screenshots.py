"""Pictures of the dashboards for docs/images, from a live cluster whose leader is killed.

`make screenshots-dashboards`. Needs Prometheus and Chromium. There is no Grafana in it: the pages
are drawn by observability/draw.py from the dashboards' own queries, and say so.
"""

import asyncio
import json
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from time import time
from typing import Any

import aiohttp

from observability.__main__ import DASHBOARDS
from observability.draw import Series, Span, page, page_size_px
from tests.observability.__main__ import OperatorProcess, say, until_told_to_end
from tests.observability.clusters import Load, ask, job_of
from tests.observability.panels import RATE_INTERVAL
from tests.observability.prometheus import Job, Prometheus
from tests.process.cluster import Cluster

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SHOWN_SECONDS = 240.0
STEP_SECONDS = 4.0
IMAGE_BYTES_MAX = 200_000
NOTE = (
    "Drawn from the dashboard's own queries, not by Grafana. Three nodes on one machine; the leader"
    " is killed and comes back."
)
NOTE_OPERATOR = (
    "Drawn from the dashboard's own queries, not by Grafana. The operator's loop on a Kubernetes of"
    " the tests; for a while it may not repair a Service."
)
_CHROMIUM_SECONDS_MAX = 120.0


async def series_of(
    prometheus: Prometheus, panel: dict[str, Any], job: str, end: float
) -> list[Series]:
    """What Grafana would draw in the panel."""
    found = []
    for target in panel["targets"]:
        expr = target["expr"].replace("$job", job).replace("$__rate_interval", RATE_INTERVAL)
        for item in await prometheus.query_range(expr, SHOWN_SECONDS, STEP_SECONDS, end):
            labels = item["metric"]
            name = legend(target["legendFormat"], labels) or panel["title"]
            points = [(float(at), float(text)) for at, text in item["values"] if text != "NaN"]
            if points:
                found.append(Series(name, points))
    return sorted(found, key=lambda item: item.name)


def legend(template: str, labels: dict[str, str]) -> str:
    if template == "__auto":
        return " ".join(value for name, value in labels.items() if name != "__name__")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found.group(1), ""), template)


async def draw(prometheus: Prometheus, name: str, job: str, directory: Path, *, end: float) -> Path:
    """The picture of a dashboard."""
    dashboard = json.loads((DASHBOARDS / f"{name}.json").read_text())
    drawn = {
        panel["id"]: await series_of(prometheus, panel, job, end)
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    }
    note = NOTE_OPERATOR if job == "operator" else NOTE
    html = directory / f"{name}.html"
    html.write_text(page(dashboard, drawn, Span(end - SHOWN_SECONDS, end, STEP_SECONDS), note))
    image = IMAGES / f"dashboard-{name}.png"
    width, height = page_size_px(dashboard)
    chromium = await asyncio.create_subprocess_exec(
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={directory / 'chromium'}",
        f"--window-size={width},{height}",
        f"--screenshot={image}",
        html.as_uri(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(_CHROMIUM_SECONDS_MAX):
        await chromium.wait()
    return image


async def run(directory: Path) -> int:
    cluster = Cluster(directory)
    operator = OperatorProcess(directory)
    operator.start()
    jobs = [job_of("demo", cluster), Job("operator", {"raftkv-operator": operator.port})]
    try:
        async with (
            cluster,
            Prometheus(directory / "prometheus", jobs) as prometheus,
            Load(cluster.urls, pause_seconds=0.03),
        ):
            await asyncio.sleep(SHOWN_SECONDS * 0.25)
            async with aiohttp.ClientSession() as session:
                for node in cluster.nodes:
                    await ask(session, "POST", f"{node.url}/v1/maintenance/snapshot")
            await asyncio.sleep(SHOWN_SECONDS * 0.25)
            leader = await cluster.wait_leader()
            leader.send_signal(signal.SIGKILL)
            await cluster.wait_exit(leader, 10.0)
            operator.faults.write_text('{"is_refusing": true}')
            say(f"killed {leader.name}, the leader")
            await asyncio.sleep(SHOWN_SECONDS * 0.2)
            leader.start()
            operator.faults.write_text("{}")
            await cluster.wait_ready()
            say("it is back")
            await asyncio.sleep(SHOWN_SECONDS * 0.3)
            IMAGES.mkdir(exist_ok=True)
            end = time()  # of all pictures, however long they take
            for name in ("cluster", "latency", "storage", "watches", "operator"):
                job = "operator" if name == "operator" else "demo"
                image = await draw(prometheus, name, job, directory, end=end)
                size = image.stat().st_size
                say(f"{image.name}: {size} bytes")
                assert size < IMAGE_BYTES_MAX, f"{image.name} has {size} bytes"
    finally:
        operator.kill()
    return 0


def main() -> int:
    for program in ("prometheus", "chromium"):
        if shutil.which(program) is None:
            say(f"{program} is not installed")
            return 1
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(until_told_to_end(run(Path(directory))))


if __name__ == "__main__":
    sys.exit(main())
