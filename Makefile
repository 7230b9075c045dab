# Everyday commands; `make help` lists them. PYTHON chooses the interpreter for .venv (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NAME ?= quickstart
REAL ?= ../shared/data/sts7
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup simulate test test-all check compare real real-full federation bench docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(READY) ## create .venv and install the pinned packages

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("fedgraft needs Python 3.11 or newer; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[dev,docs]"
	touch $(READY)

simulate: $(READY) ## seven centers, one frozen model, five steps: the quickstart and its report
	$(BIN)/python -m simulations run curriculum=quickstart name=$(NAME)

compare: $(READY) ## the quickstart federated, centralized and local, with controls, in one report
	$(BIN)/python -m simulations compare curriculum=quickstart

real: $(READY) ## real CT + PET, three folds, one seed: federated, centralized, U-Net, random backbone, rules
	$(BIN)/python -m simulations compare curriculum=sts7_fair data.root=$(REAL) name=real

real-full: $(READY) ## the same with every arm and three seeds; a stopped one goes on where it was
	$(BIN)/python -m simulations compare curriculum=sts7_fair data.root=$(REAL) name=real-full compare.seeds=[1,2,3] compare.arms=[blurs,exact_random,left_out,rules,unet]

federation: $(READY) ## a coordinator and three hospitals as processes, over TLS, through two crashes
	$(BIN)/python -m simulations federation

bench: $(READY) ## round overhead and federated / centralized process time
	$(BIN)/python -m simulations bench

test: $(READY) ## the fast tests
	$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile

# Three at a time on two cores: a deployed federation waits for its polls half the time.
test-all: $(READY) ## the slow tests too (processes, Ray)
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m "slow or e2e"

check: $(READY) ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY) ## the documentation as a site in build/site; broken links and anchors are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

clean: ## remove caches and runs, keep .venv
	rm -rf runs .cache .pytest_cache .mypy_cache .ruff_cache
