# Each target builds .venv itself when it is missing. Python 3.11 or newer, pip and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

# One torch thread in tests: two are faster on a quiet machine and far slower on a busy one.
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

.PHONY: demo test check bench torture gpu clean

demo: $(READY)
	$(BIN)/ckptmerge demo $(ARGS)

test: check
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not gpu' $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m tests.benchmarks $(ARGS)

# Breaks what can be broken, for up to an hour: as root, with strace, nginx, aria2, wget and PostgreSQL.
torture: $(READY)
	$(TEST_ENV) $(BIN)/python -m tests.torture $(ARGS)

gpu: $(READY)
	$(TEST_ENV) $(BIN)/python -m pytest -m gpu $(ARGS)

# torch goes first and alone: its pin then takes the wheel at hand instead of the newest CUDA build.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $(READY)

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache
