# genlab: `make help` lists the targets. Each does the set-up it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
SEED ?= 1
BIN := .venv/bin
BENCH_LOCK := --quiet --upgrade --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
  --no-emit-index-url --no-header --no-annotate
export PATH := $(CURDIR)/$(BIN):$(PATH)
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help setup demo test without-cluster unit slow-test cluster-test reliability chaos chaos-long lint docs \
  docs-options lock bench-setup bench-ffcv bench-lock cluster-up cluster-down clean

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

# All else yields to the tests on a cluster, which wait more than they compute and whose workers Ray would put behind it.
test: lint ## Linters and types; then unit tests and those marked slow and, beside both, those marked cluster
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target \
	  RAY_worker_niceness=0 NICE="nice -n 10" without-cluster cluster-test

without-cluster:
	$(MAKE) --no-print-directory unit
	$(MAKE) --no-print-directory slow-test

unit: setup ## Unit tests, in an order drawn from SEED (default 1)
	OMP_NUM_THREADS=1 $(NICE) pytest --quiet --numprocesses auto --dist loadscope --randomly-seed=$(SEED)

slow-test: setup ## Slower tests that run beside each other: exports, evaluations, torch.compile, several workers
	OMP_NUM_THREADS=1 $(NICE) pytest --quiet -m 'slow and not reliability' --numprocesses auto --dist worksteal \
	  -p no:randomly

cluster-test: setup ## Slower tests one after the other: real Ray clusters on loopback
	pytest --quiet -m 'cluster and not reliability' -p no:randomly

reliability: setup ## Kill and damage runs over and over with 1, 2, 3 and 5 workers (hours); prints the table of docs/reproducibility.md
	GENLAB_CPUS=4 python benchmarks/reliability.py

chaos: setup ## Kill workers, nodes, drivers and heads, cut networks, fill disks, once each (40 minutes); the table of docs/reliability.md
	python benchmarks/chaos.py --page docs/reliability.md

chaos-long: setup ## The same five times each, at other steps (hours)
	python benchmarks/chaos.py --times 5 --page docs/reliability.md

lint: setup ## Style, types and the layers of the house
	ruff check .
	ruff format --check .
	mypy
	lint-imports

docs: setup ## Make the site of docs/ in site/; a broken link fails
	mkdocs build --strict

docs-options: setup ## Write docs/options/, the tables of all options
	python docs/options.py

lock: ## Pin every dependency again, with hashes
	test -x $(BIN)/uv || ($(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --extra dev --upgrade --output-file requirements.lock pyproject.toml

bench-setup: .venv-bench/installed ## Install genlab, other loaders and the fastest decoders into .venv-bench

# Without dependencies: the lock is whole, and some peers cap versions that they work with (see bench-lock).
.venv-bench/installed: benchmarks/requirements.lock pyproject.toml
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-bench/bin/uv pip install --quiet --python .venv-bench --no-deps --require-hashes -r benchmarks/requirements.lock
	.venv-bench/bin/uv pip install --quiet --python .venv-bench --no-deps --editable .
	touch $@

bench-ffcv: bench-setup ## Add ffcv to .venv-bench; it compiles, with g++, pkg-config, libopencv-dev and libturbojpeg0-dev
	.venv-bench/bin/uv pip install --quiet --python .venv-bench --no-deps --require-hashes -r benchmarks/ffcv.lock

bench-lock: bench-setup ## Pin the benchmarks' environment again, on the builds of requirements.lock
	grep -E '^(fsspec|numpy|pillow|pyarrow|ray|s3fs|torch|torchvision|xxhash)==' requirements.lock | sed 's/ \\$$//' \
	  > .venv-bench/overrides.txt
	echo "opencv-python ; python_version < '3'" >> .venv-bench/overrides.txt
	.venv-bench/bin/uv pip compile $(BENCH_LOCK) --override .venv-bench/overrides.txt \
	  --output-file benchmarks/requirements.lock benchmarks/requirements.in pyproject.toml
	.venv-bench/bin/uv pip compile $(BENCH_LOCK) --override .venv-bench/overrides.txt \
	  --constraint benchmarks/requirements.lock --output-file benchmarks/ffcv.lock benchmarks/ffcv.in

cluster-up: setup ## Start a head and a worker on loopback, with token authentication
	cluster/up.sh

cluster-down: ## Stop what cluster-up started
	cluster/down.sh

clean: ## Remove the environment and the demo's files
	rm -rf .venv .venv-bench demo
