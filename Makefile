SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

VENV ?= .venv
PYTHON ?= python3.11
PY := $(VENV)/bin/python
LOCK := conf/requirements.lock
STAMP := $(VENV)/.installed
SIZE ?= 1000000
WAREHOUSE ?= warehouse
PORT ?= 5000
WORKERS ?= 2
PYTEST := $(PY) -m pytest -q -p no:randomly
export PYTHONHASHSEED := 0
export CAUSALAKE_PYTHON := $(abspath $(PY))

##@ Two commands
.PHONY: demo test
demo: setup ## Generate a million subscribers, run every analysis, print effects beside truth
	./spark-submit.sh --driver-memory 6g pipeline --env local --size $(SIZE) --warehouse $(WAREHOUSE)

test: setup check-format lint types arch ## Everything that must pass (about half an hour on 2 cores)
	$(PYTEST) --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder tests

##@ Set-up
.PHONY: setup java bench-setup lock
setup: $(STAMP) ## Virtual environment from the lock file, Java check, Delta jars (re-used the second time)
	@$(PY) -m jobs.runtime.ready

$(STAMP): $(LOCK)
	@if [ -f $@ ] && [ "$$(cat $@)" = "$$(cksum < $(LOCK))" ]; then touch $@; exit 0; fi
	python="$$(command -v $(PYTHON) || command -v python3)"
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || { echo "causalake needs Python 3.11 or 3.12 (make PYTHON=... says which)"; exit 1; }
	"$$python" -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(LOCK)
	cksum < $(LOCK) > $@

java: $(STAMP) ## A Java inside the virtual environment, for machines without one
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r conf/requirements-java.lock
	@$(PY) -m jobs.runtime.ready

bench-setup: $(STAMP)
	@$(PY) -c 'import polars, duckdb, pysyncon, lightgbm' 2> /dev/null || $(PY) -m pip install --quiet \
	  --disable-pip-version-check --require-hashes --no-deps -r conf/requirements-bench.lock

lock: ## Resolve setup.py again into the lock files (needs uv)
	bash conf/lock.sh

##@ Tests by tier
.PHONY: test-unit test-spark test-contracts test-golden test-statistical test-e2e coverage validate
test-unit: $(STAMP) ## No Spark, seconds
	$(PYTEST) tests/unit
test-spark: $(STAMP) ## Transforms and tables on a local session
	$(PYTEST) tests/spark
test-contracts: $(STAMP) ## What holds for every method, job and table
	$(PYTEST) tests/contracts tests/test_architecture.py
test-golden: $(STAMP) ## Published figures
	$(PYTEST) tests/golden
test-statistical: $(STAMP) ## Coverage and size by simulation
	$(PYTEST) tests/statistical
test-e2e: $(STAMP) ## Through spark-submit.sh
	$(PYTEST) tests/e2e
validate: setup ## Long studies: kill -9 in every job, many simulated trials; docs/validation.md
	$(PYTEST) -m validation --timeout 3600 tests
	./spark-submit.sh validate
coverage: $(STAMP) ## Branch coverage of everything but e2e
	$(PYTEST) --cov --cov-report=term-missing tests --ignore tests/e2e

##@ Checks
.PHONY: check check-format lint fmt types arch
check: check-format lint types arch ## All static checks
check-format: $(STAMP)
	$(PY) -m ruff format --check .
lint: $(STAMP) ## ruff
	$(PY) -m ruff check .
fmt: $(STAMP) ## Format and sort imports
	$(PY) -m ruff check --select I --fix .
	$(PY) -m ruff format .
types: $(STAMP) ## mypy --strict
	$(PY) -m mypy
arch: $(STAMP) ## Which package may import which
	$(VENV)/bin/lint-imports --no-cache

##@ More
.PHONY: ui bench notebooks zip wheel clean help
ui: $(STAMP) ## MLflow on the results, http://127.0.0.1:5000
	@echo "open http://127.0.0.1:$(PORT)/#/experiments?workflowType=machine_learning"
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(VENV)/bin/mlflow ui --host 127.0.0.1 --port $(PORT) \
	  --backend-store-uri "sqlite:///$(abspath $(WAREHOUSE))/mlflow/mlflow.db"
bench: bench-setup ## Side by side with peers on the same data; results in bench/results
	$(PY) -m bench
notebooks: setup ## Run every notebook
	$(PYTEST) tests/e2e/test_notebooks.py
zip: $(STAMP) ## The zip for --py-files
	@$(PY) -m jobs.runtime.zip_package
wheel: $(STAMP) ## The wheel, in dist
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
clean: ## Remove what was built (not the warehouse, not the environment)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info spark-warehouse
	find jobs transforms causal tests -name __pycache__ -type d -prune -exec rm -rf {} +
help: ## This help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
