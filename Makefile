# Everything from a bare machine with Python 3.11 or newer, make and a package index. Neither uv nor git is needed.
#   make PYTHON=python3.12 test     with another Python
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
FAST := -m "not slow and not broker"
SOURCES := microbatch sources sinks checkpoint tests benchmarks .ci

.DEFAULT_GOAL := help
.PHONY: help demo test check lint format fast slow bench size clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp  ## install into .venv, run the flights demo
	$(VENV)/bin/microbatch demo

test: demo $(VENV)/dev.stamp  ## demo, then install the tools and run the fast tests
	$(PY) -m pytest $(FAST)

check: lint fast  ## format, ruff, mypy, pyright, sizes and the fast tests: before each commit

lint: $(VENV)/dev.stamp  ## the part of check that only reads the code
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pyright
	$(PY) .ci/size.py $(SOURCES)

fast: $(VENV)/dev.stamp  ## the fast tests alone
	$(PY) -m pytest -q $(FAST)

format: $(VENV)/dev.stamp  ## format and sort imports in place
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix --select I .

slow: $(VENV)/dev.stamp  ## the slow tests: minutes
	$(PY) -m pytest -q -m "slow and not broker"

bench: $(VENV)/dev.stamp  ## benchmarks beside hand-written Polars
	$(PY) -m benchmarks

size: $(VENV)/made.stamp  ## files over 400 lines listed, over 600 refused, functions over 50 lines refused
	$(PY) .ci/size.py $(SOURCES)

clean:  ## remove what was built, .venv included
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache demo-output

# A stamp is written when its step is done; it is done again only after a change of pyproject.toml.
$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"microbatch needs Python 3.11 or newer, $(PYTHON) is {sys.version}; make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/demo.stamp: pyproject.toml $(VENV)/made.stamp
	$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml $(VENV)/demo.stamp
	$(PIP) install --editable '.[dev]'
	@touch $@
