# Everything sets itself up: `make demo` and `make test` work in a fresh clone with nothing but Python 3.10+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs setup page clean

demo: $(VENV)/.installed page
	$(BIN)/sampeft demo --out demo-out

test: $(VENV)/.installed page
	$(MAKE) lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --max-worker-restart 0

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# NiiVue for the 3-D view of `sampeft serve`; without npm the page says how to get it and shows the three planes.
page: $(if $(shell command -v npm),src/sampeft/viewer/static/vendor/niivue.js)

src/sampeft/viewer/static/vendor/niivue.js: page/package-lock.json page/build.js
	cd page && (npm ci --ignore-scripts --no-audit --no-fund && npm run --silent build) || echo "no 3-D view: npm did not work"

docs: $(VENV)/.installed
	$(BIN)/python docs/build_site.py

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-out build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
