"""Requests made up from the nodes' own OpenAPI document, by schemathesis, against real nodes.

Nothing may answer with a bug (500), or in a way that the document does not tell. The document that
schemathesis is given is narrowed, or most of the time would be spent waiting; what takes the node
out of service, or has no end, is left out.

    python -m tests.process.fuzz_http --seconds 600
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from tests.process.cluster import Cluster

_CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance",
)  # fmt: skip
_SHORT: dict[str, Any] = {"type": "string", "enum": ["1ms", "20ms", "0.05s"]}
_TAG: dict[str, Any] = {"type": "string", "enum": ["*", '"7"', '"7-j", "9"']}
# For parameters that would make most requests wait, or be refused for what is said elsewhere.
_NARROWED: dict[str, dict[str, Any]] = {
    "wait": _SHORT,
    "timeout": {"type": "string", "enum": ["5s", "1m", "10000ms"]},
    "If-Match": _TAG,
    "If-None-Match": {"type": "string", "enum": ["*"]},
}
# Mostly another cluster's name, and a revision that is never reached: 421 and 504, as they should.
_DROPPED = frozenset({"X-RaftKV-Cluster", "min_revision"})
# Ids are taken from earlier answers: a node that is removed on the way answers nothing more.
_LEFT_OUT = r"^/v1/(watch|maintenance/drain|cluster/members/\{id\}(/replace)?)$"


def narrowed(document: Any) -> Any:
    """The same document, with fewer values for some parameters."""
    for methods in document["paths"].values():
        for described in methods.values():
            described["parameters"] = [
                {**each, "schema": _NARROWED.get(each["name"], each["schema"])}
                for each in described["parameters"]
                if each["name"] not in _DROPPED
            ]
    acquire = document["components"]["schemas"]["AcquireBody"]["properties"]
    acquire["wait"] = _SHORT
    acquire_call = document["paths"]["/v1/locks/{name}"]["post"]
    acquire_call["requestBody"]["content"]["application/json"]["example"]["wait"] = "20ms"
    return document


async def fuzz(url: str, directory: Path, *options: str) -> tuple[int, str]:
    """Fuzz the node at ``url``: the exit code of schemathesis, and what it said."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/openapi.json") as answer:
        document = narrowed(await answer.json())
    path = directory / "openapi.json"
    path.write_text(json.dumps(document))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", str(path), "--url", url),
        *("--checks", ",".join(_CHECKS), "--exclude-path-regex", _LEFT_OUT),
        *("--request-timeout", "70", "--continue-on-failure", "--no-color", *options),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace")


async def _main(seconds: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        async with Cluster(Path(name)) as cluster:
            leader = await cluster.wait_leader()
            options = ("--max-time", str(seconds), "--max-examples", "200", "--seed", str(seed))
            code, said = await fuzz(leader.url, Path(name), *options)
            cluster.check_alive(cluster.nodes)
    print(said)  # noqa: T201 the report
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(_main(arguments.seconds, arguments.seed)))
