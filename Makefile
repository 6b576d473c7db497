# The two commands most people need are `make demo` and `make test`; `make install` brings what both of them need
# into .venv, after which neither needs a network. An environment of another Python than PYTHON names is made anew.

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(or $(wildcard $(BIN)/python),python3)
SAY_MINOR := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
MINOR := $(shell $(PYTHON) $(SAY_MINOR))
CONSTRAINTS := $(wildcard constraints/python-$(MINOR).txt)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
INSTALLED := $(VENV)/.installed-$(MINOR)

.PHONY: help install demo demo-clean demo-models test lint docs clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED)  ## Create .venv with everything that the demo and the tests need

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@if [ -x $(BIN)/python ] && [ "$$($(BIN)/python $(SAY_MINOR))" != "$(MINOR)" ]; then \
		echo "$(VENV) is of another Python than $(MINOR): it is made anew"; rm -rf $(VENV); fi
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e '.[test]'
	@touch $@

$(INSTALLED)-dev: $(INSTALLED)
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

demo: install  ## Run the whole pipeline on the bundled data and models
	$(BIN)/foldcast demo

demo-clean:  ## Remove everything that the demo wrote
	rm -rf demo-output

demo-models: install  ## Make the bundled models again from nothing (hours)
	$(PIP_INSTALL) -e '.[nature-run,train]'
	$(BIN)/python -m flows.demo_models

test: install  ## Run the whole test suite, offline
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(INSTALLED)-dev  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## Write the generated pages of docs/ again
	$(BIN)/python -m infra.settings_reference docs/configuration.md

clean: demo-clean  ## Remove the environment and the demo
	rm -rf $(VENV)
