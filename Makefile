# Everything a checkout needs is made here: a Python ≥ 3.11 is looked for, .venv is created, pinned packages installed.

.PHONY: help demo test test-slow lint bench clean
.DEFAULT_GOAL := help

# The first of these that is recent enough and can make virtual environments; `make PYTHON=/path/to/python` overrides.
# 3.11 is what is tested; 3.13 comes late, because chgnet 0.4.2, which the tests compare with, has no wheel for it.
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet

help:
	@echo "make demo       molecular dynamics with the released model, a minute or so"
	@echo "make test       the test suite"
	@echo "make test-slow  the tests that take minutes"
	@echo "make lint       ruff and mypy"
	@echo "make bench      speed, memory and agreement with stock chgnet, written to benchmarks/results"
	@echo "make clean      remove .venv and everything generated"

demo: .venv/demo.stamp
	$(BIN)/python examples/02_md.py

# Two processes of one thread each: most tests are too small for a second thread to help.
test: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: .venv/dev.stamp
	$(BIN)/python -m pytest -m slow

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks.md
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.graph
	$(BIN)/python -m benchmarks.parity
	$(BIN)/python -m benchmarks.relax
	$(BIN)/python -m benchmarks.phonons
	$(BIN)/python -m benchmarks.screening
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.direct
	$(BIN)/python -m benchmarks.mts
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.balance
	$(BIN)/python -m benchmarks.finetune
	$(BIN)/python -m benchmarks.report

clean:
	rm -rf .venv build dist demo_out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first and alone, so that no later step can choose another version for it.
.venv/torch.stamp: constraints.txt
	@for python in $(PYTHONS); do \
	  if "$$python" -c "$(SUITABLE)" >/dev/null 2>&1; then exec "$$python" -m venv .venv; fi; \
	done; \
	echo "No Python >= 3.11 with the venv module among: $(PYTHONS)." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python" >&2; \
	exit 1
	@echo "Installing torch (a few minutes the first time) ..."
	$(PIP) --constraint constraints.txt torch==2.13.0
	@touch $@

.venv/demo.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) --constraint constraints.txt --editable '.[plot]'
	@touch $@

.venv/dev.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) --constraint constraints.txt --editable '.[dev,cluster,parquet,phonons,plot,pymatgen,train]'
	@touch $@ .venv/demo.stamp
