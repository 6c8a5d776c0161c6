# `make demo` runs the main job, `make test` all checks and tests, `make bench` the benchmarks. Each installs its packages.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: help demo page cluster test lint types check bench bench-check clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed as '$(PYTHON)'; name it with make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(DEV_STAMP): $(STAMP) requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

cluster: $(STAMP) ## Start a Ray head and an MLflow server on this machine, for submitted jobs; ARGS="--port 8300 …"
	$(BIN)/python -m cluster.local $(ARGS)

demo: $(STAMP) ## Run the main job on the sample world; results in $(OUT)
	$(BIN)/python -m jobs.pipeline --config jobs/pipeline.yaml --out $(OUT)

page: $(STAMP) ## Serve a page to try the demo's models, on http://127.0.0.1:7860
	@ls -d $(OUT)/compare-* >/dev/null 2>&1 || { echo "$(OUT) has no finished demo; run make demo first"; exit 1; }
	$(BIN)/python -m jobs.demo_page --config jobs/demo_page.yaml --examples $$(ls -d $(OUT)/sample_world-*/images | head -1) --out $(OUT)

test: $(DEV_STAMP) ## Check formatting and types, then run all tests
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest $(ARGS)

check: lint types

lint: $(DEV_STAMP) ## Run ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_STAMP) ## Run mypy
	$(BIN)/mypy models pipelines jobs cluster tests

bench: $(DEV_STAMP) ## Measure speed and memory as ratios; results in runs/bench (24 minutes; ARGS="--only NAME")
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-check: $(DEV_STAMP) ## Fail if a ratio is below its floor (minutes; ARGS="--table runs/bench/table.json" checks an old table)
	$(BIN)/python -m tests.benchmarks --check --quick --out runs/bench-check $(ARGS)

clean: ## Delete results and caches, but not the environment
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache
