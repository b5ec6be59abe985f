# Every target sets itself up: only python3 (>= 3.10), its venv module and pip are needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUNS   ?= runs
DATA   ?= data

.PHONY: quickstart test lint check docs bench bench-acac bench-speed bench-snap clean

# The environment, rebuilt when a dependency changes. torch first and alone, at the tested version: whichever build
# of it pip is set up to find (only a CPU is needed), and nothing that comes after can pull another one.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

quickstart: $(VENV)/.ready
	$(BIN)/python examples/quickstart.py --output $(RUNS)/quickstart

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One process a core, one thread a process; a file stays together.
check: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test: lint check

# What is made of the settings: docs/CONFIG.md and the schema for editors.
docs: $(VENV)/.ready
	$(BIN)/python -m train.manual

# Slow science: the numbers of README.md and docs/. On a quiet machine: 25 minutes on 2 cores.
bench: bench-acac

bench-acac: $(VENV)/.ready
	$(BIN)/python -m bench.acac

# Others beside ours: examples/compare/README.md.
bench-speed: $(VENV)/.ready
	$(BIN)/potential-bench --preset small medium --output docs/results

# SNAP beside published ones: docs/LOG.md, 2026-11-27. data/ has silicon only; DATA: the folder with mlearn/, nbmotaw/.
bench-snap: $(VENV)/.ready
	$(BIN)/python -m bench.snap --data $(DATA)

# Learning curves, hours each, of the studies that `python -m bench.studies.run --list` names; DATA holds their sets.
# Quick: make study-acac STUDY=--quick
study-%: $(VENV)/.ready
	$(BIN)/python -m bench.studies.run $* --data $(DATA) --engine process --workers 2 $(STUDY)

clean:
	rm -rf $(VENV) $(RUNS)
