# Two commands for newcomers: `make demo` and `make test`. Both create .venv on first use and reuse it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-bench
CORE := $(wildcard csrc/src/* csrc/include/glauber/* firmware_stubs/*.[ch] firmware_stubs/ports/host/*) csrc/CMakeLists.txt

.PHONY: demo test check mnist firmware fuzz bench bench-solve bench-scaling bench-instructions clean

demo: $(VENV)/.ready
	$(BIN)/python -m examples.digits --out out/digits

# A file's tests go to one worker, so that the servers and clusters that they share are started once.
test: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

# Energy models of MNIST, hours; `.venv/bin/python -m examples.mnist_ebm --smoke` takes a minute.
mnist: $(VENV)/.ready
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[torch,examples,thrml]'
	$(BIN)/python -m examples.mnist_ebm --out out/mnist_ebm

# Style, types and import rules, as CI runs them.
check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

# The controller firmware for this computer and for a Cortex-M3, with warnings as errors, and its size.
firmware:
	$(MAKE) -C firmware_stubs OUT=$(abspath build/firmware)

# The corpus under gcc's sanitizers, then a minute of libFuzzer on decoder and dispatcher, and the planted overflow.
fuzz:
	$(MAKE) -C firmware_stubs OUT=$(abspath build/firmware) replay fuzz

# Each writes JSON, a table and a plot to benchmarks/results; benchmarks/README.md says what they measure.
bench: $(PEERS)/.ready
	$(PEERS)/bin/python -m benchmarks.samplers

bench-solve: $(PEERS)/.ready
	$(PEERS)/bin/python -m benchmarks.solvers

bench-scaling: $(PEERS)/.ready
	$(PEERS)/bin/python -m benchmarks.scaling

bench-instructions: $(PEERS)/.ready
	$(PEERS)/bin/python -m benchmarks.instructions

# Everything is pinned in constraints.txt, so that what CI tested is what a newcomer gets.
$(VENV)/.ready: pyproject.toml constraints.txt $(CORE)
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or later is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# The peers have an environment of their own. One that cannot be installed is named here and reported as missing.
$(PEERS)/.ready: pyproject.toml constraints.txt benchmarks/constraints-peers.txt $(CORE)
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(PEERS)/bin/python -m pip install --quiet -c constraints.txt \
	  -C install.strip=false -e . matplotlib  # names of functions are for bench-instructions
	for peer in dwave-samplers numba openjij ferrotherm thrml torch; do \
	  PIP_DISABLE_PIP_VERSION_CHECK=1 $(PEERS)/bin/python -m pip install --quiet \
	    -c constraints.txt -c benchmarks/constraints-peers.txt $$peer || echo "MISSING: $$peer could not be installed"; \
	done
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist out
