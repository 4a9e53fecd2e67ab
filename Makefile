# The whole toolchain. `make` lists the targets.

# A distribution's Python first: containers and other users can reach it, and it is the faster build
PYTHON ?= $(shell for p in /usr/bin/python3.11 python3.11 python3; do \
	$$p -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install start demo test test-all crash simulate check gate bench bench-compare format launchers lock clean

help: ## lists the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed ## makes .venv with visp in it, and brings what it needs of the system

$(VENV)/.installed: pyproject.toml requirements-dev.txt scripts/system
	@scripts/system
	@test -n "$(PYTHON)" || { echo "visp needs Python 3.11 or newer with venv: apt-get install python3.11-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

%/node_modules/.installed: %/package.json %/package-lock.json
	@npm ci --prefix $* --silent --no-audit --no-fund
	@touch $@

start: install ## everything installed, the platform up in the foreground, a hello shown
	@$(BIN)/python demo/hello.py & exec $(BIN)/visp start

demo: install demo/node_modules/.installed ## the real story from end to end, on a free port, with data that is thrown away
	@$(BIN)/python demo/run.py

# a test starts hundreds of Pythons: none compiles what another has compiled, wherever this is set
test test-all crash: export PYTHONDONTWRITEBYTECODE =

test: install demo/node_modules/.installed tests/clients/node_modules/.installed tests/sources/node_modules/.installed ## every test
	@scripts/system tests
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -q

test-all: install demo/node_modules/.installed tests/clients/node_modules/.installed tests/sources/node_modules/.installed ## every test, and those that install toolchains and need engines
	@scripts/system tests kinds
	@$(BIN)/python -m tests.equip
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -q -m "all or not all"

crash: install ## real servers killed by SIGKILL under load, the clients' log as judge: KILLS=500, SEED=n repeats one
	@$(BIN)/python -m tests.crash $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

simulate: install ## the whole platform in one process, over simulated time, disk and containers: SEEDS=10000, SEED=n repeats one
	@$(BIN)/python -m tests.simulation $(if $(SEED),$(SEED) --trace,$(if $(SEEDS),--seeds $(SEEDS)) --jobs $(WORKERS))

check: install ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

gate: install ## holds own Python of a warm invocation to its record (a test too); GATE=--record takes it anew
	@$(BIN)/python -m bench gate $(GATE)

bench: install bench/node_modules/.installed ## promises as numbers, beside their floors: one JSON and one page
	@scripts/system tools
	@$(BIN)/python -m bench $(BENCH)

# `make bench-compare A B`: words after the target are the two commits, not targets
ifeq (bench-compare,$(firstword $(MAKECMDGOALS)))
  COMPARED := $(wordlist 2,3,$(MAKECMDGOALS))
  A ?= $(word 1,$(COMPARED))
  B ?= $(word 2,$(COMPARED))
  $(foreach revision,$(COMPARED),$(eval $(revision): ; @:))
endif

bench-compare: install ## two commits side by side: make bench-compare HEAD~1 HEAD, and BENCH=names, ROUNDS=n
	@scripts/system tools
	@test -n "$(A)" && test -n "$(B)" || { echo "which two? make bench-compare HEAD~1 HEAD" >&2; exit 2; }
	@$(BIN)/python -m bench compare $(A) $(B) $(BENCH) $(if $(ROUNDS),--rounds $(ROUNDS))

launchers: ## compiles the launchers that are kept compiled
	@scripts/launchers

format: install ## formats the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

lock: install ## pins the dependencies anew, by hash
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--upgrade pyproject.toml -o requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--upgrade pyproject.toml --group dev --group demo -c requirements.txt -o requirements-dev.txt

clean: ## removes what was made
	@rm -rf $(VENV) demo/node_modules bench/node_modules tests/clients/node_modules tests/sources/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
