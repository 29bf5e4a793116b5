# Every target creates what it needs from nothing; the stamps keep a second call from reinstalling.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
INSTALLED_DEV := .venv/installed-dev
INSTALLED_DOCS := .venv/installed-docs
# Bytecode is kept, also where images of containers forbid it: tests start hundreds of processes that would each compile
RUN := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)
PIP := $(BIN)/python -m pip --disable-pip-version-check

demo: $(INSTALLED)
	$(BIN)/tilespin study demo

# In three processes even on two cores, since many tests wait for others to start; a file's go to the same one, for what
# they share takes long to make. The longest files come first (tests/conftest.py).
ALL := -n 3 --dist loadfile --no-loadscope-reorder
test: $(INSTALLED_DEV)
	$(RUN)/python -m pytest $(ALL)

# The same, and which lines were run, for a fifth more of the processors' time
coverage: $(INSTALLED_DEV)
	$(RUN)/python -m pytest $(ALL) --cov --cov-report=term

# What takes less than a second each, after a change; two processes, for two cores
test-fast: $(INSTALLED_DEV)
	$(RUN)/python -m pytest -n 2 --dist worksteal -m "not (ray or network or slow or gpu or faults or encoders)"

# About an hour of faults; FAULTS_SEED=2 makes it others
faults: $(INSTALLED_DEV)
	$(RUN)/python -m pytest -m faults -s

# Ten families of timm's encoders at two sizes, through every task, their probes and back into plain timm
encoders: $(INSTALLED_DEV)
	$(RUN)/python -m pytest -m encoders

# As root: a study on two machines, network namespaces of this one, of which one loses its power
two-machines: $(INSTALLED_DEV)
	PYTHONPATH=.:tests $(RUN)/python -m support.two_machines

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --project pyproject.toml

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.kernels

# The documentation as a site in site/; a link that leads nowhere fails
docs: $(INSTALLED_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The page of the command line, after a change of options; a test says when it is old
reference: $(INSTALLED)
	$(RUN)/python docs/command_line.py

# After a change of dependencies: one set of versions, for every Python from 3.11 on
lock: $(INSTALLED_DEV)
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate --no-header \
		--no-emit-index-url --constraints constraints.txt pyproject.toml --output-file .venv/lock.txt
	(head -1 constraints.txt; cat .venv/lock.txt) > .venv/constraints.txt && mv .venv/constraints.txt constraints.txt

# $(1): what to install; $(2): what that downloads and takes, measured on Python 3.11
define install
@echo "Installing $(1): $(2)."
@start=$$(date +%s); $(PIP) install --constraint constraints.txt --editable '$(1)' && \
	echo "Installed $(1) in $$(( $$(date +%s) - start )) seconds."
@touch $@
endef

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(call install,.,downloads 3.6 GB and takes 7 GB on disk; most of it is PyTorch with CUDA)

$(INSTALLED_DEV): $(INSTALLED)
	$(call install,.[dev],downloads another 0.14 GB: what tests and lint need)

$(INSTALLED_DOCS): $(INSTALLED)
	$(call install,.[docs],downloads at most another 0.04 GB: what builds the site)

.PHONY: demo test coverage test-fast faults encoders two-machines lint bench docs reference lock
