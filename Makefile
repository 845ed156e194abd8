# DMS: every habit of this repository behind one word. `make help` lists them.

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.installed
UV := $(shell command -v uv 2>/dev/null)
SOURCES := app cli task_state dms_scheduler
# Arguments for `make up` and `make bench`, for example: make up ARGS="--root /data"
ARGS ?=
# Arguments for pytest, for example: make test PYTEST_ARGS="-x tests/unit". Four processes even on two
# cores: many tests wait for real processes, so two would leave the cores idle.
PYTEST_ARGS ?= -n 4

# Some machines and images forbid Python to keep what it compiled. The tests start hundreds of
# processes, and each would compile all of DMS anew: half a second of CPU apiece.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install up test lint check format bench constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamp makes the second time quick: it is renewed when what we depend on changes.
$(STAMP): pyproject.toml constraints.txt
ifneq ($(UV),)
	@test -x $(BIN)/python || $(UV) venv --quiet $(VENV)
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'
else
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "DMS needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "This Python has no venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
endif
	@touch $@

install: $(STAMP) ## set up .venv with everything (uv when there is one, else venv and pip)

# exec: Ctrl-C must find the supervisor itself, which then stops its parts in their order.
up: $(STAMP) ## start everything on this machine; make up ARGS="--root /data"
	@exec $(BIN)/dms-frontend up $(ARGS)

test: $(STAMP) ## run all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP) ## all checks that run nothing: style, types, layers, security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml $(SOURCES)

check: lint test ## everything that must pass before a change lands

format: $(STAMP) ## put every file in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure; the tables of docs/benchmarks.md
	$(BIN)/python -m benchmarks $(ARGS)

# --universal: one file for every Python and platform. The line dropped is this project itself.
constraints: ## renew constraints.txt (needs uv)
	@test -n "$(UV)" || { echo "make constraints needs uv: pip install uv" >&2; exit 1; }
	@{ echo "# Exact versions of everything that DMS installs (ADR 0008). Renew with: make constraints"; \
	   $(UV) pip compile pyproject.toml --quiet --extra dev --universal --upgrade \
	     --no-header --no-annotate | grep -v '^-e ' ; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt

clean: ## remove what was built, the virtual environment too
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
