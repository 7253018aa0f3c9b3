"""How much a store may hold without filling the volume under it.

Log, history and a snapshot beside the one that it replaces need room too: at the worst moment four
times the state and 200 MiB in all (docs/backup.md, node design, rule 11). All replicas fill at the
same time, so a quota that the volume does not bear would stop the whole cluster.
"""

import os
from pathlib import Path
from typing import Final

#: Where the volume bears it: what suits the memory and the restart of a node of ordinary size.
QUOTA_BYTES_DEFAULT: Final = 2 << 30
QUOTA_BYTES_MIN: Final = 1 << 20
_TIMES_STATE: Final = 4
_SPARE_BYTES: Final = 200 << 20


def default_quota_bytes(data: Path) -> int:
    """The quota for a store in ``data``, which need not exist yet. Raises OSError."""
    existing = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    volume = os.statvfs(existing)
    return bearable_quota_bytes(volume.f_blocks * volume.f_frsize)


def bearable_quota_bytes(volume_bytes: int) -> int:
    """What a volume of this size bears, at most the default."""
    bearable = (volume_bytes - _SPARE_BYTES) // _TIMES_STATE
    return max(QUOTA_BYTES_MIN, min(QUOTA_BYTES_DEFAULT, bearable))
