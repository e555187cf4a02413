# genlab: `make help` lists the targets. Each does the set-up it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help setup demo test unit cluster-test lint lock cluster-up cluster-down clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/installed ## Install genlab and everything it needs into .venv

.venv/installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --editable .
	touch $@

demo: setup ## Train a CycleGAN on drawn scenes under Ray, write a report (KEEP=1 leaves the cluster and TensorBoard up)
	cluster/demo.sh

test: lint unit cluster-test ## Linters, types, unit tests, then tests on a real Ray cluster

unit: setup ## Unit tests
	pytest --quiet

cluster-test: setup ## Tests on real Ray clusters on loopback
	pytest --quiet -m cluster

lint: setup ## Style, types and the layers of the house
	ruff check .
	ruff format --check .
	mypy
	lint-imports

lock: ## Pin every dependency again, with hashes
	test -x $(BIN)/uv || ($(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --extra dev --upgrade --output-file requirements.lock pyproject.toml

cluster-up: setup ## Start a head and a worker on loopback, with token authentication
	cluster/up.sh

cluster-down: ## Stop what cluster-up started
	cluster/down.sh

clean: ## Remove the environment and the demo's files
	rm -rf .venv demo
