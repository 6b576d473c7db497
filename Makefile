# The two commands most people need are `make demo` and `make test`; both install into .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MINOR := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
CONSTRAINTS := $(wildcard constraints/python-$(MINOR).txt)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.PHONY: help install demo demo-clean demo-models test lint docs clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## Create .venv with everything that the demo needs

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP_INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

demo: install  ## Run the whole pipeline on the bundled data and models
	$(BIN)/foldcast demo

demo-clean:  ## Remove everything that the demo wrote
	rm -rf demo-output

demo-models: install  ## Make the bundled models again from nothing (hours)
	$(PIP_INSTALL) -e '.[nature-run,train]'
	$(BIN)/python -m flows.demo_models

test: $(VENV)/.installed-test  ## Run the whole test suite, offline
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## Write the generated pages of docs/ again
	$(BIN)/python -m infra.settings_reference docs/configuration.md

clean: demo-clean  ## Remove the environment and the demo
	rm -rf $(VENV)
