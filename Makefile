# Every target creates what it needs from nothing; the stamp keeps a second call from reinstalling.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
RUN := OMP_NUM_THREADS=1 $(BIN)

demo: $(STAMP)
	$(BIN)/tilespin study demo

# In three processes even on two cores, since many tests wait for others to start; a file's go to the same one, for what
# they share takes long to make. The longest files come first (tests/conftest.py).
test: $(STAMP)
	$(RUN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

# About an hour of faults; FAULTS_SEED=2 makes it others
faults: $(STAMP)
	$(RUN)/python -m pytest -m faults -s

# As root: a study on two machines, network namespaces of this one, of which one loses its power
two-machines: $(STAMP)
	PYTHONPATH=.:tests $(RUN)/python -m support.two_machines

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python -m benchmarks.kernels

# The constraints are the set that the tests passed with on Python 3.11; other versions resolve within pyproject's ranges.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check \
		$$($(BIN)/python -c 'import sys; print("-c constraints.txt" if sys.version_info[:2] == (3, 11) else "")') -e '.[dev]'
	touch $@

.PHONY: demo test faults two-machines lint bench
