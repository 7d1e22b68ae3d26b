# One command a job; CI calls the same ones. On a fresh machine each installs what it needs (.ci/bootstrap).
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml setup.py $(wildcard _ext/*)
NATIVE := tests/unit/codec tests/unit/http tests/unit/client tests/integration/http

.PHONY: demo test build debug lint docs feast-conformance loadtest bench bench-smoke clean serve-dev

demo: .venv/.example  ## the flights example, end to end, on embedded stores
	$(BIN)/python examples/flights/demo.py

test: .venv/.test  ## all tests, against a real redis-server, PostgreSQL and HTTP/2 clients
	$(BIN)/python -m pytest $(ARGS)

build: .venv/.dev  ## natives in place
	$(BIN)/python setup.py -q build_ext --inplace

debug: .venv/.dev  ## natives with -O0 -g, line tracing and FS_DEBUG checks, and the tests that exercise them
	$(MAKE) -s clean-native
	FASTSERVE_DEBUG=1 $(BIN)/python setup.py -q build_ext --inplace
	$(BIN)/python -m pytest $(NATIVE) $(ARGS); status=$$?; $(MAKE) -s clean-native build; exit $$status

lint: .venv/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" cython-lint _ext/*.pyx
	$(BIN)/lint-imports

docs: .venv/.dev  ## build/site; warnings are errors
	$(BIN)/python deploy/render_cli.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q -f deploy/mkdocs.yml

FASTSERVE_FEAST_VENV ?= .venv-feast
feast-conformance: .venv/.test $(FASTSERVE_FEAST_VENV)/.feast  ## the real Feast, its SDK and its quick start, beside ours
	FASTSERVE_FEAST_VENV=$(FASTSERVE_FEAST_VENV) $(BIN)/python -m pytest -m feast tests/feast $(ARGS)

$(FASTSERVE_FEAST_VENV)/.feast:  # some 600 MB
	$(PYTHON) -m venv $(FASTSERVE_FEAST_VENV)
	$(FASTSERVE_FEAST_VENV)/bin/python -m pip install -q --disable-pip-version-check 'feast==0.67.*'
	@touch $@

RATE ?= 300
loadtest: .venv/.loadtest  ## its own data, Redis and server; fails unless p99 < 10 ms and 0 errors at RATE requests/s
	$(BIN)/python -m loadtest --rate $(RATE) $(ARGS)

bench: .venv/.bench  ## every bench (bench/README.md), half an hour; ARGS="zipf soak" for some
	$(BIN)/python -m bench $(ARGS)

bench-smoke: .venv/.bench  ## that every bench still runs and its answers are right; measures nothing
	$(BIN)/python -m bench --smoke $(ARGS)

serve-dev: .venv/.example  ## the flights example's server, as of the end of 2013
	$(BIN)/fastserve serve --repo examples/flights --clock 2013-12-31T23:00:00Z

.venv/.%: $(SOURCES) .ci/bootstrap
	PYTHON=$(PYTHON) .ci/bootstrap $*
	@touch $@

.PHONY: clean-native
clean-native:
	rm -f fastserve/_native/*.so _ext/*.c _ext/*.html && rm -rf build

clean: clean-native
	rm -rf .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache examples/*/.fastserve examples/*/data
