# Everything sets itself up: `make demo` and `make test` work in a fresh clone with nothing but Python 3.10+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint setup clean

demo: $(VENV)/.installed
	$(BIN)/sampeft demo --out demo-out

test: $(VENV)/.installed
	$(MAKE) lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadgroup

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-out build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
