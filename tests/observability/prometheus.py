"""A real Prometheus on loopback, which scrapes what it is told and evaluates the rules."""

import asyncio
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from observability.alerts import ALERTS, rules
from tests.process.cluster import ClusterError, wait_until
from tests.process.ports import free_port

SCRAPE_SECONDS = 2
#: In the place of the production durations. Nothing else of the rules is changed.
HOLD = "6s"


@dataclass(frozen=True)
class Job:
    """A job of Prometheus: one cluster, or the operator."""

    name: str
    targets: Mapping[str, int]  # name of the instance: its port on loopback
    token: str | None = None

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "job_name": self.name,
            "static_configs": [
                {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
                for name, port in self.targets.items()
            ],
        }
        if self.token is not None:
            found["authorization"] = {"credentials": self.token}
        return found


class Prometheus:
    """Use it with ``async with``."""

    def __init__(self, directory: Path, jobs: Sequence[Job]) -> None:
        self._directory = directory
        self._jobs = jobs
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None

    @staticmethod
    def is_installed() -> bool:
        return shutil.which("prometheus") is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        rules_path = self._directory / "alerts.yaml"
        rules_path.write_text(yaml.safe_dump(rules({alert.name: HOLD for alert in ALERTS})))
        config = {
            "global": {
                "scrape_interval": f"{SCRAPE_SECONDS}s",
                "scrape_timeout": f"{SCRAPE_SECONDS}s",
                "evaluation_interval": f"{SCRAPE_SECONDS}s",
            },
            "rule_files": [str(rules_path)],
            "scrape_configs": [job.config() for job in self._jobs],
        }
        config_path = self._directory / "prometheus.yaml"
        config_path.write_text(yaml.safe_dump(config))
        self._start(config_path)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20.0))
        await wait_until("Prometheus is ready", self._ready, 60.0)
        return self

    def _start(self, config_path: Path) -> None:
        with (self._directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config_path}",
                    f"--storage.tsdb.path={self._directory / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    async def _ready(self) -> bool | None:
        assert self._session is not None
        assert self._process is not None
        if self._process.poll() is not None:
            raise ClusterError((self._directory / "prometheus.log").read_text()[-2000:])
        try:
            async with self._session.get(f"{self.url}/-/ready") as response:
                return response.status == 200 or None
        except (aiohttp.ClientError, OSError):
            return None

    async def _ask(self, path: str, **parameters: str) -> Any:
        assert self._session is not None
        async with self._session.post(f"{self.url}/api/v1/{path}", data=parameters) as response:
            answer = await response.json()
        if answer["status"] != "success":
            raise ClusterError(f"{parameters}: {answer}")
        return answer["data"]

    async def query_range(
        self,
        expr: str,
        seconds: float,
        step_seconds: float = SCRAPE_SECONDS,
        end: float | None = None,
    ) -> list[dict[str, Any]]:
        """The series of ``seconds``: {"metric": labels, "values": [[time, text], ...]}.

        ``end`` is in seconds since 1970; default: now.
        """
        end = time() if end is None else end
        data = await self._ask(
            "query_range",
            query=expr,
            start=str(end - seconds),
            end=str(end),
            step=str(step_seconds),
        )
        return list(data["result"])

    async def state_of(self, alert: str, job: str) -> str:
        """inactive, pending or firing: the highest of the alert's instances in this job."""
        assert self._session is not None
        async with self._session.get(f"{self.url}/api/v1/alerts") as response:
            found = (await response.json())["data"]["alerts"]
        states = {
            item["state"]
            for item in found
            if item["labels"]["alertname"] == alert and item["labels"].get("job") == job
        }
        return next((state for state in ("firing", "pending") if state in states), "inactive")

    async def annotations_of(self, alert: str, job: str) -> dict[str, str]:
        """The texts of a firing alert, as they would be sent."""
        assert self._session is not None
        async with self._session.get(f"{self.url}/api/v1/alerts") as response:
            found = (await response.json())["data"]["alerts"]
        texts = [
            item["annotations"]
            for item in found
            if item["labels"]["alertname"] == alert and item["labels"].get("job") == job
        ]
        return dict(texts[0]) if texts else {}

    async def wait_state(self, alert: str, job: str, state: str, seconds: float) -> None:
        """Until the alert is in this state. Raises ClusterError after ``seconds``."""

        async def look() -> bool | None:
            return (await self.state_of(alert, job)) == state or None

        # Seldom: what changes comes with a scrape.
        deadline = asyncio.get_running_loop().time() + seconds
        while await look() is None:
            if asyncio.get_running_loop().time() > deadline:
                now = await self.state_of(alert, job)
                raise ClusterError(f"{alert} of {job} is {now}, not {state}, after {seconds} s")
            await asyncio.sleep(1.0)
