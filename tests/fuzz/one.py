"""One target under atheris; started by `python -m tests.fuzz`.

python -m tests.fuzz.one NAME [corpus or input] [libFuzzer's options]
"""

import sys

import atheris

with atheris.instrument_imports(include=["raftkv", "aiohttp"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
