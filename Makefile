# Everything a developer or CI does; `make` alone lists it. Nothing has to be installed by hand but Python 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
INPUTS := pyproject.toml $(CONSTRAINTS)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS :=
SEEDS := 10000

.PHONY: help serve check test lint test-fast test-slow simulate bench bench-quick protos models format constraints clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

serve: $(VENV)/local.stamp ## start all services; flags: make serve ARGS="--http-port 9000"
	@$(BIN)/heddle serve $(ARGS)

check: lint test-fast ## format, lint, types, fresh stubs, fast tests

test: test-fast test-slow ## all tests

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python protos/generate.py --check

test-fast: $(VENV)/dev.stamp
	$(BIN)/pytest -m "not slow"

test-slow: $(VENV)/dev.stamp
	$(BIN)/pytest -m slow

format: $(VENV)/dev.stamp ## format, and repair what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

simulate: $(VENV)/dev.stamp ## the services in virtual time, each seed a case: make simulate SEEDS=100000
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS)

bench: $(VENV)/bench.stamp ## Heddle beside other servers and engines, 25 minutes; flags: make bench ARGS="--only engine"
	@$(BIN)/python -m tests.bench --peers $(VENV)/peers $(ARGS)

bench-quick: $(VENV)/bench.stamp ## the same in 4 minutes, with fewer loads and peers
	@$(BIN)/python -m tests.bench --quick --peers $(VENV)/peers $(ARGS)

protos: $(VENV)/dev.stamp ## generate the stubs of the contracts in protos
	$(BIN)/python protos/generate.py

models: $(VENV)/dev.stamp ## make the table of models of the parity cases
	$(BIN)/python -m tests.engine_svc.models.overview

# All versions but torch's are the newest: torch is pinned by hand in the file, as its size and its numbers deserve.
constraints: ## pin the newest versions of all that CI installs
	$(PYTHON) -m venv --clear $(VENV)/constraints
	grep '^torch==' $(CONSTRAINTS) > $(VENV)/torch.txt
	$(VENV)/constraints/bin/python -m pip --quiet install --constraint $(VENV)/torch.txt '.[local,dev]'
	$(VENV)/constraints/bin/python -m pip freeze | sed -n 's/^\([^ @]*==[^+]*\).*/\1/p' | grep -v '^heddle==' > $(VENV)/pinned.txt
	mv $(VENV)/pinned.txt $(CONSTRAINTS)
	rm -r $(VENV)/constraints $(VENV)/torch.txt

clean: ## remove the environment and all caches
	rm -rf $(VENV) build heddle.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/local.stamp: $(INPUTS)
	@echo "installing Heddle into $(VENV) (once; torch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint $(CONSTRAINTS) --editable '.[local]'
	@touch $@

$(VENV)/dev.stamp: $(INPUTS)
	@echo "installing Heddle and its development tools into $(VENV) (once; torch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint $(CONSTRAINTS) --editable '.[local,dev]'
	@touch $@ $(VENV)/local.stamp

$(VENV)/bench.stamp: $(VENV)/dev.stamp
	@$(PIP) install --constraint $(CONSTRAINTS) --editable '.[bench]'
	@touch $@
