# `make run` and `make test` need Python 3.11 or later and nothing else; see README.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ALONE := $(PYTHON) tools/one_at_a_time.py .make.lock

.DEFAULT_GOAL := help
.PHONY: help run test test-citus test-next coverage check audit lock fuzz bench schema sessions clean

help:
	@echo "make run     serve the API on SQLite at 127.0.0.1:8000"
	@echo "make test    the whole suite, on SQLite and on a temporary PostgreSQL"
	@echo "make test-citus  the suite on a Citus cluster, if PostgreSQL has the extension"
	@echo "make test-next  the suite on the next versions of Python and Django"
	@echo "make check   lint, format, types, Django's checks, migrations, OpenAPI, documents, samples"
	@echo "make coverage  the branch coverage of todo_project and tasks; slower than make test"
	@echo "make audit   known vulnerabilities in the locked packages; part of make check"
	@echo "make lock    write requirements*.txt from requirements*.in; UPGRADE=--upgrade takes new versions"
	@echo "make fuzz    generated requests against a live server, for a quarter of an hour"
	@echo "make bench   the benchmarks, side by side with FastAPI + SQLModel and default DRF"
	@echo "make schema  write openapi.yaml"
	@echo "make sessions  write the output shown in README.md and docs/api.md"

$(VENV)/runtime: requirements.txt requirements-fast.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	$(ALONE) sh -c 'test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)'
	$(ALONE) $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(ALONE) $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-fast.txt \
		2>/dev/null || echo "gunicorn_h1c needs a C compiler: without it HTTP is parsed in Python, more slowly"
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/bench: benchmarks/requirements.txt $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

# To run with production's settings from .env: DEBUG=false make run.
run: export DEBUG ?= true
run: $(VENV)/runtime
	$(ALONE) $(BIN)/python manage.py migrate --verbosity 0
	$(BIN)/python -m todo_project

# The tests that boot servers wait more than they work. A file is run by one process.
PARALLEL := --dist loadfile --no-loadscope-reorder --numprocesses

test: $(VENV)/dev
	TEST_DATABASE=sqlite $(BIN)/python -m pytest $(PARALLEL) 2 -m 'not live'
	TEST_DATABASE=postgresql $(BIN)/python -m pytest $(PARALLEL) 4

test-citus: $(VENV)/dev
	TEST_DATABASE=citus $(BIN)/python -m pytest -m 'not live'
	TEST_DATABASE=citus $(BIN)/python -m pytest -q tests/test_distribute.py tests/test_citus.py

# The next versions of Python and Django, without the tests that start servers.
NEXT_PYTHON ?= python3.13
NEXT_DJANGO := 6.1.3
NEXT_DATABASES ?= sqlite postgresql
NEXT := .venv-next/bin/python

test-next:
	test -x $(NEXT) || $(NEXT_PYTHON) -m venv .venv-next
	$(NEXT) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(NEXT) -m pip install --quiet --disable-pip-version-check Django==$(NEXT_DJANGO)
	for database in $(NEXT_DATABASES); do \
		TEST_DATABASE=$$database $(NEXT) -m pytest $(PARALLEL) 2 -m 'not live' || exit 1; done

coverage: $(VENV)/dev
	$(BIN)/coverage erase
	TEST_DATABASE=sqlite $(BIN)/coverage run -m pytest $(PARALLEL) 2 -m 'not live'
	TEST_DATABASE=postgresql $(BIN)/coverage run -m pytest $(PARALLEL) 4
	TEST_DATABASE=citus $(BIN)/coverage run -m pytest tests/test_distribute.py
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: export DEBUG = false
check: export SECRET_KEY = not-a-secret-but-as-long-and-as-varied-as-a-key-has-to-be-0123456789
check: export ALLOWED_HOSTS = tasks.example.com
check: export DATABASE_URL = sqlite:///db.sqlite3
check: export DATABASE_URL_UNPOOLED =
check: export AUTH_MODE = jwt
check: export JWT_SECRET = not-a-secret-but-long-enough-to-be-one
check: export JWT_JWKS_URL =
check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python manage.py check --deploy --fail-level WARNING
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python -m tools.migration_lint
	$(BIN)/python -m tools.openapi_check
	$(BIN)/python -m tools.docs_check
	$(BIN)/python -m tools.samples_check
	$(BIN)/python -m tools.audit

audit: $(VENV)/dev
	$(BIN)/python -m tools.audit

# Keeps the locked versions unless a .in file or UPGRADE asks for others, such as
# UPGRADE="--upgrade-package django". For every platform and every Python from 3.11 on.
LOCK := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --system-certs \
	--custom-compile-command "make lock"

lock: $(VENV)/dev
	$(LOCK) $(UPGRADE) --output-file requirements.txt requirements.in
	$(LOCK) $(UPGRADE) --output-file requirements-fast.txt requirements-fast.in
	$(LOCK) $(UPGRADE) --output-file requirements-dev.txt requirements-dev.in
	$(LOCK) $(UPGRADE) --output-file benchmarks/requirements.txt benchmarks/requirements.in

# The document of AUTH_MODE=jwt; no database or token is touched.
schema: $(VENV)/dev
	$(BIN)/python -m tools.openapi_check --write

sessions: $(VENV)/dev
	WRITE_SESSIONS=1 TEST_DATABASE=sqlite $(BIN)/python -m pytest -q tests/test_readme.py

fuzz: $(VENV)/dev
	FUZZ_SECONDS=$${FUZZ_SECONDS:-900} TEST_DATABASE=postgresql $(BIN)/python -m pytest -q --timeout 0 -o faulthandler_timeout=0 \
		tests/test_schemathesis.py

bench: $(VENV)/bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venv-next .make.lock db.sqlite3*
