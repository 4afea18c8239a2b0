# Two commands for newcomers: `make demo` and `make test`. Both create .venv on first use and reuse it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CORE := $(wildcard csrc/src/* csrc/include/glauber/*) csrc/CMakeLists.txt

.PHONY: demo test check bench clean

demo: $(VENV)/.ready
	$(BIN)/python -m examples.digits --out out/digits

test: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow" -n 2

# Style, types and import rules, as CI runs them.
check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks.job_overhead

# Everything is pinned in constraints.txt, so that what CI tested is what a newcomer gets.
$(VENV)/.ready: pyproject.toml constraints.txt $(CORE)
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or later is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist out
