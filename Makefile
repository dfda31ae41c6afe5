# Everything one does with Weir. `make help` lists it.
HOST ?= 127.0.0.1
PORT ?= 8000
URL ?= http://$(HOST):$(PORT)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps

.DEFAULT_GOAL := help
.PHONY: help install run chat check test test-clients lint format types chaos sabotage bench bench-plot soak lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Each stamp is made anew when its lock changes; otherwise nothing is asked of pip.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo "Weir needs Python 3.11 to 3.14; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
$(VENV)/.run: requirements/run.lock requirements/local.lock | $(VENV)/.made
	$(PIP) -r requirements/run.lock -r requirements/local.lock
	@touch $@
$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	$(PIP) -r requirements/dev.lock
	@touch $@
$(VENV)-clients/.done: requirements/clients.lock
	$(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@
$(VENV)-agno/.done: requirements/dev.lock requirements/agno.lock
	$(PYTHON) -m venv $(VENV)-agno
	$(VENV)-agno/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		-r requirements/dev.lock -r requirements/agno.lock
	@touch $@
$(VENV)-litellm/.done: requirements/bench-litellm.lock
	$(PYTHON) -m venv $(VENV)-litellm
	$(VENV)-litellm/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@
$(VENV)-bench/.done: requirements/bench.lock
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@
# Its lock is made with `npm install --before=DAY`, where DAY is a week ago (COOLDOWN, below).
tests/clients/node_modules/.done: tests/clients/package.json tests/clients/package-lock.json
	cd tests/clients && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

install: $(VENV)/.run ## make .venv with everything `make run` needs, hash-pinned

run: $(VENV)/.run ## start Weir with providers.yaml (HOST, PORT)
	@exec $(BIN)/python -m proxy serve --config providers.yaml --host $(HOST) --port $(PORT)

chat: $(VENV)/.run ## talk to a running Weir (URL, MODEL)
	@exec $(BIN)/python -m proxy chat --url $(URL) $(if $(MODEL),--model $(MODEL))

check: $(VENV)/.run ## say everything wrong with providers.yaml
	@$(BIN)/python -m proxy check providers.yaml

# In two processes; with ARGS="-n 0" in one, as a debugger needs it.
test: $(VENV)/.dev $(VENV)-clients/.done $(VENV)-agno/.done ## run all tests (ARGS="-k name")
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-clients: $(VENV)/.dev tests/clients/node_modules/.done ## the AI SDK and openai-node against what we write (needs npm)
	@$(BIN)/python -m pytest tests/clients $(ARGS)

lint: $(VENV)/.dev ## ruff: rules, banned imports, format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/.dev ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

types: $(VENV)/.dev ## mypy, strict
	@$(BIN)/mypy

chaos: $(VENV)/.dev ## kill replicas under durable streams (ROUNDS, SEED; needs redis-server)
	@WEIR_CHAOS_ROUNDS=$(ROUNDS) WEIR_CHAOS_SEED=$(SEED) $(BIN)/python -m pytest -s tests/scenarios/test_durable.py -k killed

sabotage: $(VENV)/.dev ## take away each protection of a durable stream: its test must fail
	@$(BIN)/python -m tests.sabotage

# With BENCH_LITELLM=1 beside LiteLLM's proxy too, which is 750 MB to install.
bench: $(VENV)/.dev $(if $(BENCH_LITELLM),$(VENV)-litellm/.done) ## what a request and a token cost, beside nginx (bench/README.md)
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m bench $(ARGS)

bench-plot: $(VENV)-bench/.done ## draw bench/figures.json, which `make bench ARGS="--write bench/figures.json"` writes
	@$(VENV)-bench/bin/python -m bench.plot

soak: $(VENV)/.dev ## everything at once, for MINUTES: memory, files and tasks must come back to where they were
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

# A release younger than COOLDOWN days is not taken: bad ones are usually found within that time.
COOLDOWN ?= 7
UV = $(VENV)-lock/bin/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet \
	--python-version 3.11 --exclude-newer $$(date -u -d '-$(COOLDOWN) days' +%Y-%m-%dT00:00:00Z)
lock: ## resolve pyproject.toml into requirements/*.lock
	test -x $(VENV)-lock/bin/uv || { $(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv; }
	$(UV) pyproject.toml -o requirements/run.lock
	$(UV) pyproject.toml --extra dev -o requirements/dev.lock
	$(UV) --no-deps requirements/local.in -o requirements/local.lock
	$(UV) requirements/clients.in -o requirements/clients.lock
	$(UV) requirements/agno.in -o requirements/agno.lock
	$(UV) requirements/bench.in -o requirements/bench.lock
	sed -n 's/^\(litellm==[^ ]*\).*/\1/p' requirements/run.lock | \
		$(UV) --constraint - requirements/bench-litellm.in -o requirements/bench-litellm.lock

clean: ## remove the environments and caches
	rm -rf $(VENV) $(VENV)-clients $(VENV)-agno $(VENV)-litellm $(VENV)-bench $(VENV)-lock \
		tests/clients/node_modules .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
