# Every target makes its own surroundings: a fresh clone needs nothing but Python 3.10+ with venv, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests run side by side, one process a core.
ONE_THREAD := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo test quick lint format docs bench clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# Two stamps: what a user needs (demo) and what a developer needs (everything else).
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/developing: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/installed ## explain a photograph of a cat with the built-in model; writes build/chelsea.why.png
	@mkdir -p build
	@$(BIN)/python -c "from skimage import data, io; io.imsave('build/chelsea.png', data.chelsea())"
	$(BIN)/seewhy explain build/chelsea.png --out build

test: lint ## everything CI runs: lint, types and all tests
	$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8

quick: $(VENV)/developing ## the tests without the slow ones
	$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 -m "not slow"

lint: $(VENV)/developing ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/developing ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/developing ## write the pages of methods and metrics from the registries; the pictures take some minutes
	$(BIN)/python docs/cards.py --pictures
	$(BIN)/python docs/metrics.py

bench: $(VENV)/developing ## seewhy against its peers, alternating in one process; writes docs/benchmarks.md
	$(BIN)/python -m bench

clean: ## remove what these targets made
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
