# `make demo` runs the main job, `make test` passes the tests, `make bench` measures. All do the set-up that they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
STAMP := $(VENV)/.installed

.PHONY: help demo page cluster test lint types check bench bench-check clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed as '$(PYTHON)'; name it with make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

cluster: $(STAMP) ## A Ray head and an MLflow server on this machine, to submit jobs to; ARGS="--port 8300 …"
	$(BIN)/python -m cluster.local $(ARGS)

demo: $(STAMP) ## The whole main job on the sample world, to $(OUT)
	$(BIN)/python -m jobs.pipeline --config jobs/pipeline.yaml --out $(OUT)

page: $(STAMP) ## A page to ask the demo's models, on http://127.0.0.1:7860
	@ls -d $(OUT)/compare-* >/dev/null 2>&1 || { echo "$(OUT) holds no finished demo; make demo first"; exit 1; }
	$(BIN)/python -m jobs.demo_page --config jobs/demo_page.yaml --examples $$(ls -d $(OUT)/sample_world-*/images | head -1) --out $(OUT)

test: $(STAMP) ## Formatting, types and all tests
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest $(ARGS)

check: lint types

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy
	$(BIN)/mypy models pipelines jobs cluster tests

bench: $(STAMP) ## Every figure of speed and memory as a ratio, to runs/bench (24 minutes; ARGS="--only NAME")
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-check: $(STAMP) ## Fails where a ratio is under its floor (minutes; ARGS="--table runs/bench/table.json" measures nothing)
	$(BIN)/python -m tests.benchmarks --check --quick --out runs/bench-check $(ARGS)

clean: ## Removes what runs left, not the environment
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache
