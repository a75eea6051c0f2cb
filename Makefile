# Three commands, each from nothing: `make demo`, `make check` (under a minute) and `make test`.
PYTHON ?= python3
VENV ?= .venv
# onnxruntime and onnxruntime-gpu own the same folder: exactly one is installed, the second only
# where an NVIDIA driver answers.
RUNTIME := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INSTALLED := $(VENV)/.installed-$(RUNTIME)
DEVELOPED := $(VENV)/.developed-$(RUNTIME)

.PHONY: demo check test quick format lint types unit schema clean

demo: $(INSTALLED)
	$(VENV)/bin/audit demo

# For every change: formatting, lint, types, and the tests that are not marked slow.
check: lint types quick

test: lint types unit

lint: $(DEVELOPED)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

types: $(DEVELOPED)
	$(VENV)/bin/mypy

# One thread per worker: two would only fight for the same cores.
unit: $(DEVELOPED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto

quick: $(DEVELOPED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 -m "not slow"

format: $(DEVELOPED)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

schema: $(INSTALLED)
	$(VENV)/bin/python scripts/write_schema.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[$(RUNTIME)]'
	touch $@

$(DEVELOPED): $(INSTALLED)
	$(PIP) --editable '.[$(RUNTIME),dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis audit-report
