# Two commands need nothing but Python 3.11, make and a C linker: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

FUZZED := $(VENV)/.fuzzing
RUNS ?= 10000000
SEEDS ?= 1000
FIRST ?= 1
JOBS ?= 1
MINUTES ?= 30

.PHONY: demo test check simulate bench soak fuzz lock schemas clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: $(STAMP)  ## tune a real model on this machine, end to end
	$(BIN)/resonator demo

test: $(STAMP)  ## the whole suite
	$(BIN)/pytest

check: $(STAMP)  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

simulate: $(STAMP)  ## SEEDS simulated fleets from FIRST on, in JOBS processes; SEED=123 replays one
	cd tests && ../$(BIN)/python -m simulation.world $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --first $(FIRST) --jobs $(JOBS))

bench: $(STAMP)  ## measurements, one script each, into benchmarks/RESULTS.md; QUICK=1 for short ones
	$(BIN)/python benchmarks/run_all.py

soak: $(STAMP)  ## MINUTES of random faults on real processes at three sites; SEED=N for the same ones again (root)
	PYTHONPATH=tests $(BIN)/python -m soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(OUT),--out $(OUT))

$(FUZZED): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[fuzz]"
	touch $@

fuzz: $(FUZZED)  ## RUNS inputs to the codec, from where the last run ended
	$(BIN)/python tests/fuzz/fuzz_codec.py -runs=$(RUNS) .fuzz/codec

schemas: $(STAMP)  ## regenerate what deploy/ derives from the code
	$(BIN)/python -m resonator.jobspec > deploy/job.schema.json
	$(BIN)/python -m resonator.asyncapi > deploy/asyncapi.yaml

lock:  ## refresh the tested versions (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	    --extra dev --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
