# `make run` and `make test` set up whatever they need; Python 3.11 or newer and make are enough.
.PHONY: help setup run worker test check bench soak screenshots lock clean

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Settings write a secret key where LABELHUB_HOME says; checks get a folder of their own.
CHECK_ENV := LABELHUB_HOME=.cache/check LABELHUB_DEBUG= DATABASE_URL= REDIS_URL=
PRODUCTION := LABELHUB_URL=https://labels.example.org
UV_COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header
# More threads than one per process make small matrices slower, not faster.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

help:
	@echo "make run      start LabelHub and print its address (ARGS='--port 8001')"
	@echo "make test     run all tests (ARGS='-k export')"
	@echo "make check    style, types, floors, migrations, production settings, vendored files"
	@echo "make worker   one more labeling worker"
	@echo "make bench    the figures of the README        make soak   the long run with faults"
	@echo "make screenshots   the pictures of the README"
	@echo "make lock     write requirements*.txt anew     make clean  remove what was set up, but no data"

# One stamp for running, one for developing; pip runs again only when a lock file is newer.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "LabelHub needs Python 3.11 or newer: make PYTHON=python3.12 run"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.running: requirements.txt | $(PY)
	@echo "Setting up, about a minute ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.developing: requirements.txt requirements-dev.txt | $(PY)
	@echo "Setting up, about a minute ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $(VENV)/.running $@

setup: $(VENV)/.developing

run: $(VENV)/.running
	@exec $(PY) manage.py up $(ARGS)

worker: $(VENV)/.running
	@exec $(PY) manage.py worker $(ARGS)

test: $(VENV)/.developing
	$(PY) -m pytest -q -n 2 $(ARGS)

check: $(VENV)/.developing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(CHECK_ENV) $(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(CHECK_ENV) $(PY) manage.py makemigrations --check --dry-run
	$(CHECK_ENV) $(PRODUCTION) $(PY) manage.py check --deploy --fail-level WARNING
	$(PY) -m pytest -q tests/test_house.py

bench: $(VENV)/.developing
	$(PY) -m benchmarks $(ARGS)

soak: $(VENV)/.developing
	$(PY) -m benchmarks.soak $(ARGS)

screenshots: $(VENV)/.developing
	$(PY) docs/screenshots.py

lock: $(VENV)/.developing
	$(UV_COMPILE) $(ARGS) -o requirements.txt requirements.in
	$(UV_COMPILE) $(ARGS) -o requirements-dev.txt requirements-dev.in

clean:
	rm -rf $(VENV) .cache .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
