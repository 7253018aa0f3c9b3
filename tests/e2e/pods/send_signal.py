"""Send a signal to the main process of a container of this machine, given the container's id.

Runs in a pod that shares the machine's process ids (`tests.e2e.node_agent`). The process that is
number 1 in its own namespace cannot be killed from inside that namespace, only from outside.
"""

import os
import signal
import sys
from pathlib import Path


def main_process(container_id: str) -> int:
    """The id, here, of the container's process 1; its cgroup names the container."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if container_id not in (process / "cgroup").read_text():
                continue
            status = (process / "status").read_text()
        except OSError:
            continue  # it ended meanwhile
        namespace_ids = next(line for line in status.splitlines() if line.startswith("NSpid:"))
        if namespace_ids.split()[-1] == "1":
            return int(process.name)
    sys.exit(f"no process of container {container_id} runs here")


if __name__ == "__main__":
    os.kill(main_process(sys.argv[1]), signal.Signals[sys.argv[2]])
