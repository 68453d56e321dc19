# Everything that a developer or CI does. `make` alone lists it. Only Python 3.11 and make must be installed by hand.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
INPUTS := pyproject.toml $(CONSTRAINTS)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS :=
SEEDS := 10000

.PHONY: help serve check test lint test-fast test-slow simulate soak bench bench-quick protos models format constraints clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

serve: $(VENV)/local.stamp ## start all services; pass flags with make serve ARGS="--http-port 9000"
	@$(BIN)/heddle serve $(ARGS)

check: lint test-fast ## check format, lint, types and stubs, and run the fast tests

test: test-fast test-slow ## run all tests

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python protos/generate.py --check

test-fast: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal -m "not slow"

test-slow: $(VENV)/dev.stamp
	$(BIN)/pytest -m slow

format: $(VENV)/dev.stamp ## format the code, and fix what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(VENV)/dev.stamp ## run all services under every abuse for ten minutes: make soak ARGS="--minutes 3"
	@$(BIN)/python -m tests.soak $(ARGS)

simulate: $(VENV)/dev.stamp ## run the services in virtual time with random faults: make simulate SEEDS=100000
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS)

bench: $(VENV)/bench.stamp ## compare Heddle with other servers and engines, 22 minutes; flags: make bench ARGS="--only engine"
	@$(BIN)/python -m tests.bench --peers $(VENV)/peers $(ARGS)

bench-quick: $(VENV)/bench.stamp ## the same in 4 minutes, with fewer loads and servers
	@$(BIN)/python -m tests.bench --quick --peers $(VENV)/peers $(ARGS)

protos: $(VENV)/dev.stamp ## generate the gRPC stubs from the .proto files
	$(BIN)/python protos/generate.py

models: $(VENV)/dev.stamp ## make the table of models from the parity cases
	$(BIN)/python -m tests.engine_svc.models.overview

# torch is pinned by hand in the file, because it is large and its version changes vectors slightly. The others are newest.
constraints: ## pin the newest version of everything that CI installs
	$(PYTHON) -m venv --clear $(VENV)/constraints
	grep '^torch==' $(CONSTRAINTS) > $(VENV)/torch.txt
	$(VENV)/constraints/bin/python -m pip --quiet install --constraint $(VENV)/torch.txt '.[local,dev]'
	$(VENV)/constraints/bin/python -m pip freeze | sed -n 's/^\([^ @]*==[^+]*\).*/\1/p' | grep -v '^heddle==' > $(VENV)/pinned.txt
	mv $(VENV)/pinned.txt $(CONSTRAINTS)
	rm -r $(VENV)/constraints $(VENV)/torch.txt

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) build heddle.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/local.stamp: $(INPUTS)
	@echo "installing Heddle into $(VENV) (once; torch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint $(CONSTRAINTS) --editable '.[local]'
	@touch $@

# A server that speaks Azure's blob storage. Without it, the tests that need it are skipped.
AZURITE := azurite@3.35.0

$(VENV)/dev.stamp: $(INPUTS)
	@echo "installing Heddle and its development tools into $(VENV) (once; torch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint $(CONSTRAINTS) --editable '.[local,dev]'
	@! command -v npm > /dev/null || npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite $(AZURITE) \
		|| echo "Azurite is not installed, and the tests that need it are skipped"
	@touch $@ $(VENV)/local.stamp

$(VENV)/bench.stamp: $(VENV)/dev.stamp
	@$(PIP) install --constraint $(CONSTRAINTS) --editable '.[bench]'
	@touch $@
