"""Every fuzz target on its seeds and on some thousand inputs near them (`make fuzz`: far more)."""

from random import Random

import pytest

from tests.fuzz.seeds import changed, seeds_of
from tests.fuzz.targets import TARGETS

# Each within a quarter of a second on a quiet core.
INPUTS = {
    "wal_recovery": 150,
    "snapshot_header": 100,
    "http_head": 60,
    "peer_stream": 600,
}
INPUTS_DEFAULT = 1500
# Inputs that broke a promise once: each decoder met a text that is not UTF-8.
FOUND = {
    "identity": [b'\1{"member_id":7,"cluster_id":"c\xff","founding":null}'],
    "env_state": [b'{"record_format":1,"is_clean":true,"circumstances":{"boot_id":"\xff"}}'],
    "peer_message": [b"\x94\xa2\x94\xa2\x01\x02\x90", b"\x94\x01\xa2c\xff\x01\x02"],
    "peer_stream": [b"\3\xff\x94\xa2\x94\xa2\x01\x02\x90"],
    "configuration": [b"\x96\x91\x01\x90\x90\x90\xc2\x91\x94\x01\xa2n\xff\xa1h\xa1u"],
}


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_understood_or_refused(name: str) -> None:
    target, seeds = TARGETS[name], seeds_of(name)
    near = changed(seeds, INPUTS.get(name, INPUTS_DEFAULT), Random(name))
    for data in [b"", *FOUND.get(name, ()), *seeds, *near]:
        try:
            target(data)
        except Exception:
            print(f"the input was {data!r}")  # noqa: T201 pytest shows it with the failure
            raise
