# Two commands: `make demo` and `make test`. Python 3.11+, git and make are all that is needed.
.DEFAULT_GOAL := help
PYTHON ?= python3
TRITON_PYTHON ?= $(PYTHON)
DEMO := .venv
DEV := .venv-dev
TRITON := .venv-triton
GPU := .venv-gpu
CLIENTS := .venv-clients
RUN := $(DEV)/bin

# Every environment comes from a file in locks/: exact versions, hashes checked, wheels only, so nothing is ever compiled.
INSTALL := -m pip install --disable-pip-version-check --only-binary :all:
LOCKED = $(INSTALL) --require-hashes --no-deps -r
PROJECT = $(INSTALL) --no-deps --no-build-isolation -e .
# Test processes share two cores, the others work while some wait: threads would only wait for each other.
# Processes that tests start find compiled code.
# A test process that dies ends the run: with another one in its place, pytest-xdist waits without end for the tests it had.
WORKERS ?= 4
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(RUN)/pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder --max-worker-restart 0
TORCH = $(shell grep -oE '^torch(vision)?==[0-9.]+' locks/torch.txt)

.PHONY: help demo shop test test-all stack check test-pythons test-latest install install-triton install-clients install-browser fix lint types unit lock gpu-check \
	bench engines torture clients quickstart-model clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## */  make \1\t/' | expand -t 26

demo: $(DEMO)/.ready ## entities CLIP never saw, before and after they join the memory (extras: demo, serve)
	@$(DEMO)/bin/reco demo

shop: $(DEV)/.ready ## a shop's whole way on PostgreSQL: build, compare, judge, search, sync, take out again
	@$(RUN)/python -m examples.shop

test: lint ## lint, strict types, every behaviour: before you push
	@$(MAKE) --no-print-directory -j 2 types unit

test-all: export MARKS = not docker
test-all: $(DEV)/.all test ## and the tests of what is large to fetch, such as torch and Ray: what CI runs

stack: $(DEV)/.ready ## docker-compose.yml in a docker engine: outages, refined answers, read-only roots; three minutes
	$(RUN)/pytest tests/stack

check: lint types ## lint, strict types, the fast tests: for daily work
	$(PYTEST) -q -m "not (slow or triton or browser or torch or fetched or ray or jvm or docker)"

test-pythons: $(DEV)/.ready ## types with the locked packages of every other Python, and a small set of tests on each that is here
	$(RUN)/python locks/pythons.py

test-latest: ## all tests with the newest packages that pyproject.toml allows, instead of the locked ones
	@rm -f .venv-latest/.ready
	@$(MAKE) --no-print-directory test DEV=.venv-latest LATEST=1 MARKS="not (ray or jvm or docker)"

install: $(DEV)/.ready install-triton ## the environment of the developers

install-triton: ## a Triton server for the tests; where there is no wheel for this Python, they skip
	@if $(TRITON_PYTHON) -c 'import sys; sys.exit(sys.platform != "linux" or sys.version_info >= (3, 13))'; \
	then $(MAKE) --no-print-directory $(TRITON)/.ready || echo "no Triton server here: its tests skip" >&2; \
	else echo "no Triton server for $$($(TRITON_PYTHON) -V) here (its wheel is for Linux and Python 3.11 or 3.12): its tests" \
	"skip; TRITON_PYTHON=python3.12 names another Python" >&2; fi

install-clients: $(CLIENTS)/.ready ## the official clients of other embedding APIs; without them, tests/clients skip

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
	$(RUN)/mypy -n 2

MARKS ?= not (browser or torch or fetched or ray or jvm or docker)
unit: $(DEV)/.ready install-triton install-browser
	$(PYTEST) -m "$(MARKS)"

gpu-check: ## export, parity and throughput on CUDA; where there is no GPU, it says so and passes
	@if nvidia-smi -L >/dev/null 2>&1; \
	then $(MAKE) --no-print-directory $(GPU)/.ready && $(GPU)/bin/python -m benchmarks.gpu_check --require; \
	else echo "gpu-check skipped: no NVIDIA driver here"; fi

bench: $(DEV)/.all ## speed beside other packages, refined beside plain: writes docs/measurements.md; 20 minutes
	$(RUN)/python -m benchmarks.speed --write

WRITE ?= --write
engines: $(DEV)/.all ## the commands of docs/engines.md in real engines that can run here: writes docs/measurements.md; ten minutes
	$(RUN)/python -m benchmarks.engines.run $(WRITE)

torture: $(DEV)/.ready ## kills, callers that leave, overload: what was lost, refused or late; five minutes
	$(RUN)/python -m benchmarks.torture --seconds 20

quickstart-model: $(DEV)/.all ## retrain the shipped model from nothing, 2 cores, under an hour
	@command -v npm >/dev/null || $(RUN)/python $(LOCKED) locks/npm.txt
	$(RUN)/python -m benchmarks.quickstart_model

clean: ## remove environments, caches and what the demo wrote
	rm -rf $(DEMO) $(DEV) .venv-latest .venv-pythons $(TRITON) $(GPU) $(CLIENTS) .cache demo build dist *.egg-info

clients: $(DEV)/.ready $(CLIENTS)/.ready ## ask the service with official clients, and write what they got into docs/serve.md
	RENEW=1 $(RUN)/pytest -q tests/clients

lock: $(DEV)/.ready ## renew locks/: the newest versions that fit, one solution for all environments and platforms
	$(RUN)/python locks/renew.py

$(DEMO)/.ready: locks/demo.txt pyproject.toml
	@echo "setting up $(DEMO) from locks/demo.txt, without torch (about 150 MB to fetch)"
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(LOCKED) locks/demo.txt
	$(DEMO)/bin/python $(PROJECT)
	@touch $@

# pip compiles one file after the other, for more than a minute; a few are templates, which do not compile.
$(DEV)/.ready $(TRITON)/.ready: INSTALL += --no-compile
COMPILE = -m compileall -qq -j 0

$(DEV)/.ready: locks/dev.txt pyproject.toml
	$(PYTHON) -m venv $(DEV)
ifdef LATEST
	@echo "setting up $(DEV): the newest packages that pyproject.toml allows (several GB to fetch)"
	$(DEV)/bin/python $(INSTALL) --upgrade --upgrade-strategy eager -e '.[dev-all]'
else
	@echo "setting up $(DEV) from locks/dev.txt (about 400 MB to fetch)"
	$(DEV)/bin/python $(LOCKED) locks/dev.txt
	$(DEV)/bin/python $(PROJECT)
endif
	$(DEV)/bin/python $(COMPILE) $(DEV)/lib || true
	@touch $@

# What only the tests of `make test-all` need, and what trains. On Linux, PyPI's torch brings 4 GB of CUDA, without which it
# cannot be imported. Where pip is set up to find a CPU build of that release (find-links), that is taken.
$(DEV)/.all: INSTALL += --no-compile
$(DEV)/.all: locks/dev-all.txt locks/torch.txt $(DEV)/.ready
	@echo "adding to $(DEV) what locks/dev-all.txt holds, and locks/torch.txt (3 GB to fetch with CUDA, on Linux)"
	$(DEV)/bin/python $(LOCKED) locks/dev-all.txt
	@$(DEV)/bin/python $(INSTALL) -q --no-index --no-deps $(TORCH) 2>/dev/null || (set -x; $(DEV)/bin/python $(LOCKED) locks/torch.txt)
	$(DEV)/bin/python $(COMPILE) $(DEV)/lib || true
	@touch $@

$(TRITON)/.ready: locks/triton.txt
	@echo "setting up $(TRITON) from locks/triton.txt"
	$(TRITON_PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/python $(LOCKED) locks/triton.txt
	$(TRITON)/bin/python $(COMPILE) $(TRITON)/lib || true
	@touch $@

$(CLIENTS)/.ready: locks/clients.txt tests/clients/package.json
	@echo "setting up $(CLIENTS) from locks/clients.txt (300 MB to fetch, 1.4 GB)"
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python $(LOCKED) locks/clients.txt
	mkdir -p $(CLIENTS)/npm && cp tests/clients/package.json $(CLIENTS)/npm
	-npm install --prefix $(CLIENTS)/npm --no-audit --no-fund --ignore-scripts
	@touch $@

$(GPU)/.ready: locks/gpu.txt pyproject.toml
	@echo "setting up $(GPU) from locks/gpu.txt: torch and ONNX Runtime with CUDA"
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python $(LOCKED) locks/gpu.txt
	$(GPU)/bin/python $(PROJECT)
	@touch $@
