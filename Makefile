# `make` alone lists the targets. Everything is kept inside the checkout (.venv, .tools, .dcp)
# and the user's cache; after the first time no target needs the network.
SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
UV_VERSION := 0.13.9
UV = $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
BIN := .venv/bin
DATA ?= .dcp


.PHONY: help setup run test test-fast check format docs lock lock-peers bench bench-landing bench-query bench-flood bench-freshness bench-commits test-faults test-ledger test-lakehouse test-union soak test-crash clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: .venv/.ready  ## create .venv with exactly the locked packages

.venv/.ready: requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed: install it (for example 'apt install python3.11 python3.11-venv') and run make again."; exit 1; fi
	@if ! command -v uv >/dev/null 2>&1 && [ ! -x .tools/bin/uv ]; then \
		echo "uv is missing: installing uv $(UV_VERSION) into .tools"; \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools uv==$(UV_VERSION) 2>/dev/null \
		|| { $(PYTHON) -m venv .tools && .tools/bin/pip install --quiet uv==$(UV_VERSION); } \
		|| { echo "Neither pip nor venv works with $(PYTHON): install them (for example 'apt install python3-pip python3-venv') and run make again."; exit 1; }; fi
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@$(UV) pip sync --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

run: setup  ## start the whole stack, bring real events through it, stay up until Ctrl-C
	@exec $(BIN)/dcp demo --data-dir $(DATA)

test: setup  ## all tests, on real Kafka, Dagster, DuckDB and Trino
	$(BIN)/dcp stack fetch --with trino
	$(BIN)/python -m dc_platform_tests.helpers.browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=60

test-crash: setup  ## SIGKILL at every point, 3 seeds each, and 2,000 simulated schedules
	$(BIN)/dcp stack fetch
	$(BIN)/python -m pytest -s -m crash

test-fast: setup  ## the tests that start no process
	$(BIN)/python -m pytest -m "not kafka and not stack and not trino and not slow and not crash and not faults and not lakehouse and not fire"

test-faults: setup  ## the faults that take long to happen: docs/faults.md
	$(BIN)/python -m pytest dc_platform_tests/faults -m "faults or not faults"

test-ledger: setup  ## the ledger's tests among a million events, on real Kafka
	LEDGER_EVENTS=1000000 LEDGER_EXAMPLES=300 $(BIN)/python -m pytest --timeout=1800 dc_platform_tests/e2e/test_ledger.py dc_platform_tests/landing/test_ledger.py

test-lakehouse: setup  ## schemas, gold, replay, tiers and restore at their full size
	$(BIN)/dcp stack fetch --with trino
	$(BIN)/python -m pytest -s --timeout=1800 -m lakehouse

test-union: setup  ## 20,000 events/s while landing is killed: no count falls, doubles or lags (FIRE_SECONDS=N FIRE_RATE=N)
	$(BIN)/dcp stack fetch --with trino
	$(BIN)/python -m pytest -s -m fire dc_platform_tests/e2e/test_union_under_fire.py

check: setup  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## write the reference pages that follow from the code
	$(BIN)/python -m dc_platform.reference

lock:  ## resolve the dependencies anew into requirements.lock (hashes, every platform)
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --group dev --upgrade --quiet pyproject.toml --output-file requirements.lock

lock-peers:  ## the same for the peers of the benchmarks
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --upgrade --quiet benchmarks/requirements.in --output-file benchmarks/requirements.lock

bench: setup  ## every benchmark of `dcp bench`
	$(BIN)/dcp bench all

bench-landing: setup benchmarks/.venv/.ready  ## landing beside a plain loop, Spark and dlt (ARGS="--events N …")
	$(BIN)/python -m benchmarks.landing $(ARGS)

bench-query: setup benchmarks/.venv/.ready  ## queries over 30 days beside DuckDB and ClickHouse (ARGS="--events N …")
	$(BIN)/dcp bench query $(ARGS)

benchmarks/.venv/.ready: benchmarks/requirements.lock | setup
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) benchmarks/.venv
	@$(UV) pip sync --require-hashes --python benchmarks/.venv/bin/python benchmarks/requirements.lock
	@touch $@

bench-flood: setup  ## 50,000 events/s for five minutes, then more than the machine holds (ARGS="--rate N …")
	$(BIN)/dcp bench flood --overload $(ARGS)

soak: setup  ## 20,000 commits with everything at work beside them; plot in docs/pictures
	$(BIN)/dcp bench soak --commits 20000 --out docs/pictures

bench-freshness: setup  ## from the ack to the query
	$(BIN)/dcp bench freshness

bench-commits: setup benchmarks/.venv/.ready  ## commits a second of 1, 2, 4 and 8 writers, on disk and S3 (ARGS="--seconds N …")
	$(BIN)/python -m benchmarks.commits $(ARGS)
	$(BIN)/python -m benchmarks.store_commits $(ARGS)

clean:  ## remove what setup made (keeps .dcp, the data)
	rm -rf .venv benchmarks/.venv .tools .mypy_cache .ruff_cache .pytest_cache
