# Every target installs what it needs into .venv from a hash-pinned lock. `make help` lists them.
# The newest that runs: a version manager's stub on the PATH is not a Python.
PYTHON ?= $(or $(shell for python in python3.13 python3.12 python3.11; do \
  $$python --version >/dev/null 2>&1 && echo $$python && break; done), python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IMAGE ?= raftkv:dev
NODES ?= 3
SEEDS ?= 200
SIMULATE_ARGS ?=
FUZZ_SECONDS ?= 600
CHAOS_SECONDS ?= 300
CHAOS_SEED ?= 1
RUN_ARGS ?=
# One more than there are cores: tests of real processes wait.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')

# Without it every node that a test starts would compile all its modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-long test-operator test-disk chaos test-stable lint format e2e e2e-long bench-reconcile image bench bench-quick fuzz fuzz-http simulate mutants manifests docs lock clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## /  make \1\t/' | expand -t 20

$(STAMP): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "RaftKV needs Python 3.11 or later; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(STAMP) ## a three-node cluster on loopback; Ctrl-C stops it
	@$(BIN)/raftkv local --nodes $(NODES) $(RUN_ARGS)

test: lint ## everything that needs no cluster
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not e2e and not browser and not slow and not long" tests

test-long: $(STAMP) ## more of what `make test` samples: kills, pauses, cut links, crash points; three minutes
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m long tests

.PHONY: test-console screenshots
test-console: $(STAMP) ## the web console in a headless Chromium
	$(BIN)/python -m pytest -m browser tests/console

screenshots: $(STAMP) ## pictures of the console and raftkv top for docs/, from a live cluster
	$(BIN)/python -m tests.console.screenshots

.PHONY: test-observability dashboards
test-observability: $(STAMP) ## provoke every alert on live clusters, under a real Prometheus
	$(BIN)/python -m tests.observability

.PHONY: screenshots-dashboards
screenshots-dashboards: $(STAMP) ## pictures of the dashboards for docs/, from a live cluster
	$(BIN)/python -m tests.observability.screenshots

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2
	$(BIN)/lint-imports --no-cache

format: $(STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Mounts in a namespace of their own go with the last process in it, whatever happens.
test-disk: APART = $(shell unshare --mount true 2>/dev/null && echo unshare --mount)
test-disk: $(STAMP) ## full, hanging and failing disks (root, loop devices); three minutes
	$(APART) $(BIN)/python -m pytest --some-must-run -m slow tests/process/test_disk.py

test-stable: APART = $(shell unshare --mount true 2>/dev/null && echo unshare --mount)
test-stable: $(STAMP) ## nobody is elected in ten minutes of full cores and stalled disks (root): STABLE_SECONDS=600
	$(APART) $(BIN)/python -m pytest --some-must-run -m slow tests/process/test_stable.py

test-operator: $(STAMP) ## the operator killed before and after every action of every change; minutes
	$(BIN)/python -m pytest -n auto -m slow tests/operator

chaos: $(STAMP) ## any harm to real nodes for five minutes, all histories judged: CHAOS_SECONDS=300
	$(BIN)/python -m pytest -m slow tests/process/test_leader_kills.py tests/process/test_crash_loops.py tests/process/test_old_copy.py tests/process/test_overload.py
	$(BIN)/python -m tests.process.chaos --seconds $(CHAOS_SECONDS) --seed $(CHAOS_SEED)

simulate: $(STAMP) ## the long simulation: SEEDS=200 seeds of 60 virtual seconds or more
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(SIMULATE_ARGS)

mutants: $(STAMP) ## seeded bugs that the simulation must find
	$(BIN)/python -m tests.simulation.mutants

fuzz-http: $(STAMP) ## made-up requests against three nodes for ten minutes: FUZZ_SECONDS=600
	$(BIN)/python -m tests.process.fuzz_http --seconds $(FUZZ_SECONDS)

# Coverage-guided; its wheels are for Linux on x86-64 alone, so it is not among dev's packages.
fuzz: $(STAMP) ## any bytes for the decoders of log, snapshots, peers and HTTP: FUZZ_SECONDS=600
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/fuzz.lock
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

e2e: $(STAMP) ## every behaviour on a real Kubernetes: KUBECONFIG's, or a kind cluster of its own
	$(BIN)/python -m tests.e2e --report build/e2e.md

e2e-long: $(STAMP) ## the operator killed at every point, and 1 -> 3 -> 7 -> 3 -> 1 five times: hours
	$(BIN)/python -m tests.e2e --long --report build/e2e-long.md

bench-reconcile: $(STAMP) ## what 50 idle clusters cost the operator and the API server: 20 minutes
	$(BIN)/python -m tests.e2e.bench_reconcile
	$(BIN)/python -m tests.e2e.bench_reconcile --hibernated

image: ## build the container image
	docker build -t $(IMAGE) .

bench: $(STAMP) ## side by side with etcd: 25 minutes; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks

bench-quick: $(STAMP) ## its bars alone: 5 minutes; writes nothing
	$(BIN)/python -m benchmarks --quick --no-write

docs: $(VENV)-docs/.installed ## build the documentation as a site: build/site/index.html
	$(VENV)-docs/bin/sphinx-build -q -n -W --keep-going -c docs/site -b html . build/site
	@echo "open build/site/index.html"

$(VENV)-docs/.installed: requirements/docs.lock
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

manifests: $(STAMP) ## render manifests/install.yaml from the chart
	$(BIN)/python -m tests.operator.render_manifests --write

dashboards: $(STAMP) ## write the chart's dashboards and alerts from observability/
	$(BIN)/python -m observability --write

lock: ## resolve requirements/*.in anew (needs uv)
	cd requirements && for name in runtime dev docs fuzz; do \
	  uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11 --no-emit-index-url $$name.in -o $$name.lock; done

clean: ## remove what make made
	rm -rf $(VENV) $(VENV)-docs .mypy_cache .ruff_cache .pytest_cache .hypothesis build node/*.egg-info
