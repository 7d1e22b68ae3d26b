# One command a job; CI calls the same ones. On a fresh machine each installs what it needs (.ci/bootstrap).
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml setup.py $(filter-out %.c %.html,$(wildcard _ext/*))
NATIVE := $(addprefix tests/unit/,aggregations api/test_hits.py api/test_native_answers.py api/test_shapes.py batch cache client codec \
	http online/test_fetcher.py online/test_resp_write.py pit windows)
SANITIZED := tests/fuzz $(NATIVE) $(addprefix tests/integration/http/test_,abuse.py clients.py h1.py lifecycle.py) \
	$(addprefix tests/integration/online/test_,redis.py redis_writes.py)
# A sanitizer's own library comes before all others; it must find the one of C++ exceptions, which pyarrow throws.
ASAN = FASTSERVE_SANITIZED=1 PYTHONMALLOC=malloc PYTHONPATH=$(CURDIR) \
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1:malloc_context_size=8:quarantine_size_mb=64 \
	UBSAN_OPTIONS=print_stacktrace=1

.PHONY: demo demo-live demo-fraud test build debug sanitize fuzz lint docs feast-conformance spark loadtest bench bench-smoke clean serve-dev

demo: .venv/.example  ## the flights example, end to end, on embedded stores
	$(BIN)/python examples/flights/demo.py

demo-live: .venv/.example  ## delays of 2013 replayed through a stream, at any speed: ARGS="--speed 3600 --hours 12"
	$(BIN)/python examples/flights/live/demo.py $(ARGS)

demo-fraud: .venv/.example  ## payments from a stream, decided on while they come, on embedded stores
	$(BIN)/python examples/fraud/demo.py

JOBS ?= 2
# In their order: first whole files of seconds, last tests/unit, so that neither process waits long for the other.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
test: .venv/.test  ## all tests, against a real redis-server, PostgreSQL and HTTP/2 clients; JOBS=0: in one process
	$(PYTEST) $(ARGS)

build: .venv/.dev  ## natives in place
	$(BIN)/python setup.py -q build_ext --inplace

IN_PLACE := fastserve/_native/*.so tests/fuzz/*.so
BUILD_AGAIN = rm -f $(IN_PLACE); $(MAKE) -s build  # from build/: nothing is compiled

debug: .venv/.dev  ## natives with -O0 -g and line tracing, and the unit tests of them
	rm -f $(IN_PLACE)
	FASTSERVE_DEBUG=1 $(BIN)/python setup.py -q build_ext --inplace
	FASTSERVE_NATIVES_ONLY=1 $(PYTEST) $(NATIVE) $(ARGS); status=$$?; $(BUILD_AGAIN); exit $$status

sanitize: .venv/.dev  ## natives with AddressSanitizer and UBSan, and the tests that exercise them
	rm -f $(IN_PLACE)
	FASTSERVE_SANITIZE=1 $(BIN)/python setup.py -q build_ext --inplace
	$(ASAN) $(PYTEST) -p no:cacheprovider --capture=sys $(SANITIZED) $(ARGS); status=$$?; $(BUILD_AGAIN); exit $$status

FUZZ_SECONDS ?= 20
fuzz: .venv/.fuzz build/fuzz/driver  ## libFuzzer, FUZZ_SECONDS for each target from the kept corpus; see tests/fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

build/fuzz/driver: tests/fuzz/driver.c tests/fuzz/tokens.pyx $(wildcard _ext/*) setup.py
	CC=clang LDSHARED="clang -shared" FASTSERVE_SANITIZE=fuzzer $(BIN)/python setup.py -q build_ext \
		--build-lib build/fuzz/natives --build-temp build/fuzz/temp
	clang -O1 -g -fsanitize=fuzzer,address,undefined -rdynamic tests/fuzz/driver.c -o $@ \
		$$($(BIN)/python -m tests.fuzz.embed)

lint: .venv/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" cython-lint _ext/*.pyx tests/fuzz/*.pyx
	$(BIN)/lint-imports

docs: .venv/.dev  ## build/site; warnings are errors
	$(BIN)/python deploy/render_cli.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q -f deploy/mkdocs.yml

FASTSERVE_FEAST_VENV ?= .venv-feast
feast-conformance: .venv/.test $(FASTSERVE_FEAST_VENV)/.feast  ## the real Feast, its SDK and its quick start, beside ours
	FASTSERVE_FEAST_VENV=$(FASTSERVE_FEAST_VENV) $(BIN)/python -m pytest -m feast tests/feast $(ARGS)

$(FASTSERVE_FEAST_VENV)/.feast:  # some 600 MB; redis: for bench.vs_feast
	$(PYTHON) -m venv $(FASTSERVE_FEAST_VENV)
	$(FASTSERVE_FEAST_VENV)/bin/python -m pip install -q --disable-pip-version-check 'feast[redis]==0.67.*'
	@touch $@

spark: .venv/.test .venv/.spark  ## --engine spark on a cluster of two executors, one of them killed
	$(BIN)/python -m pytest -m spark tests/spark $(ARGS)

RATE ?= 300
loadtest: .venv/.loadtest  ## its own data, Redis and server; fails unless p99 < 10 ms and 0 errors at RATE requests/s
	$(BIN)/python -m loadtest --rate $(RATE) $(ARGS)

bench: .venv/.bench  ## every bench (bench/README.md), about an hour; ARGS="zipf soak" for some
	$(BIN)/python -m bench $(ARGS)

bench-smoke: .venv/.bench  ## that every bench still runs and its answers are right; measures nothing
	$(BIN)/python -m bench --smoke $(ARGS)

serve-dev: .venv/.example  ## the flights example's server, as of the end of 2013
	$(BIN)/fastserve serve --repo examples/flights --clock 2013-12-31T23:00:00Z

.venv/.%: $(SOURCES) .ci/bootstrap  # dev has what the others have
	PYTHON=$(PYTHON) .ci/bootstrap $*
	@touch $@ $(if $(filter dev,$*),$(addprefix .venv/.,example loadtest bench test))

.PHONY: clean-native
clean-native:
	rm -f $(IN_PLACE) _ext/*.c tests/fuzz/tokens.c _ext/*.html && rm -rf build

clean: clean-native
	rm -rf .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache examples/*/.fastserve examples/*/data examples/flights/live/.fastserve examples/flights/live/data
