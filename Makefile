# `make run` and `make test` install what they need into .venv first, and only when it has changed.
.PHONY: run test test-long test-trackers setup lint types docs clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# One job: `make run ARGS="num_steps=10 seed=1"` passes settings on.
run: $(VENV)/.installed
	$(BIN)/python -m jobs.train moving_shapes $(ARGS)

# All tests, or pytest with ARGS.
test: lint types
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m tests.everything
endif

# What is left out of `make test`, on request.
test-long: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m long $(or $(ARGS),tests)

# Trackio and MLflow need older versions of two packages than constraints.txt pins: beside it.
BESIDE := build/trackers
test-trackers: $(VENV)/.installed-dev
	@mkdir -p $(BESIDE)
	grep -vE '^(pillow|importlib-metadata)==' constraints.txt > $(BESIDE)/constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(BESIDE)/constraints.txt \
		--upgrade --target $(BESIDE) alembic mlflow-skinny sqlalchemy trackio
	PYTHONPATH=$(BESIDE) $(BIN)/python -m pytest tests/unit/trackers $(ARGS)

setup: $(VENV)/.installed-dev

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-dev
	$(BIN)/pyright

# The documentation as a site that opens from its folder: build/site/index.html.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and deepspeed is built against it, so build isolation is off for all the rest.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the build tools and PyTorch (the largest download) ..."
	$(PIP) setuptools wheel packaging ninja py-cpuinfo
	$(PIP) torch
	@echo "Installing everything else ..."
	$(PIP) --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the development tools ..."
	$(PIP) --no-build-isolation -e ".[dev]"
	@touch $@
