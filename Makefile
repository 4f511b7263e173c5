# Every target sets up what it needs: `make demo` on a fresh machine is one command.
#
#   PYTHON     the Python that makes the environment, 3.11 or newer    make PYTHON=python3.12 test
#   PIP_ARGS   more arguments for pip, such as an index of CPU wheels
#   WORKERS    processes that share the tests
#   ARGS       more arguments for the demo, the tests or the benchmarks

PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
WORKERS  ?= 2
ARGS     ?=

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PIP    := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format bench setup setup-all clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.core  ## GPT-2 from bytes to stories, offline, a few minutes
	@$(BIN)/python -m cleangpt2 demo $(ARGS)

test: $(VENV)/.dev  ## the tests: no network, no GPU, a few minutes
	@$(PYTEST) $(ARGS)

test-all: $(VENV)/.oracle  ## the slow tests too, beside transformers and peft
	@$(PYTEST) -m '' $(ARGS)

check: $(VENV)/.dev  ## format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check --python $(VENV)
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.oracle  ## the measuring scripts, one after the other
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script $(ARGS) || exit 1; done

setup: $(VENV)/.dev  ## only the environment that `make test` uses

setup-all: $(VENV)/.oracle  ## only the environment that `make test-all` uses

clean:  ## remove the environment and everything the tools made
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment grows by need: the demo does without the tools, the tests without the oracles.
$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "cleangpt2 needs Python 3.11 or newer and '$(PYTHON)' is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV): PyTorch is a large download, this takes minutes the first time."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "Adding the tools of the tests and checks to $(VENV)."
	@$(PIP) -e '.[dev,fast]'
	@touch $@

$(VENV)/.oracle: $(VENV)/.dev
	@echo "Adding to $(VENV) what the tests and benchmarks compare with."
	@$(PIP) -e '.[dev,fast,oracle,peers]'
	@touch $@
