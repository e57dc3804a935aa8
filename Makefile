# Two commands for newcomers: `make demo` and `make test`. Both make .venv when it is missing or out of date.
#
# PYTHON3 chooses the Python that .venv is made with:  make test PYTHON3=python3.12

PYTHON3 ?= python3
VENV    := .venv
PYTHON  := $(VENV)/bin/python
PIP     := $(PYTHON) -m pip --disable-pip-version-check --quiet
JOBS    ?= 2
# Of make fuzz: the compiler with libFuzzer, the inputs for the readers of C++ and Python, and the seed of the latter.
CLANG      ?= clang++
CPP_INPUTS ?= 1000000
INPUTS     ?= 100000
SEED       ?= 0
CPPFLAGS_FUZZ := -std=c++17 -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION

.PHONY: help demo test lint format fuzz bench wheel web clean

help:
	@echo "make demo    train a small network, quantize it, compare, write out/digits.tflite"
	@echo "make test    run the tests"
	@echo "make lint    check style, types, and which room imports which"
	@echo "make format  fix style where a program can"
	@echo "make fuzz    feed the readers of Python and C++ with changed files, for some minutes; needs g++ and clang++"
	@echo "make bench   run the benchmarks and write docs/benchmarks.md"
	@echo "make wheel   build the source archive and the wheel into dist"
	@echo "make web     install LiteRT.js for the browser (needs npm)"
	@echo "make clean   remove .venv, out and caches"

demo: $(VENV)/.test-ready
	@$(PYTHON) examples/digits.py --output out/digits.tflite

test: $(VENV)/.test-ready
	@$(PYTHON) -m pytest -n $(JOBS) -q

lint: $(VENV)/.test-ready
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(VENV)/bin/lint-imports --no-logo

format: $(VENV)/.test-ready
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

fuzz: $(VENV)/.test-ready
	@mkdir -p out/fuzz/cpp
	@$(CXX) $(CPPFLAGS_FUZZ) -O2 -o out/fuzz/accept_files cpp/accept_files.cc
	@$(CLANG) $(CPPFLAGS_FUZZ) -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
		-o out/fuzz/fuzz_reader cpp/fuzz_reader.cc
	@out/fuzz/fuzz_reader -runs=$(CPP_INPUTS) -max_len=4096 -print_final_stats=1 -verbosity=0 \
		-artifact_prefix=out/fuzz/ out/fuzz/cpp tests/conformance tests/conformance/refused tests/conformance/unverified
	@$(PYTHON) -m fuzz --inputs $(INPUTS) --seed $(SEED) --accept out/fuzz/accept_files

# The peers and the converter are as talkative as they are.
bench: export TF_CPP_MIN_LOG_LEVEL ?= 3
bench: $(VENV)/.bench-ready
	@$(PYTHON) -m benchmarks

wheel: $(VENV)/.build-ready
	@rm -rf build dist
	@$(PYTHON) -m build
# LiteRT.js for the browser: examples/web/package.json names its version.
web: examples/web/node_modules

examples/web/node_modules: examples/web/package.json
	@cd examples/web && npm install --no-package-lock --no-fund --no-audit --silent
	@touch $@

clean:
	rm -rf $(VENV) examples/web/node_modules out .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis build dist *.egg-info

# A stamp file for each set of dependencies: pip runs again only when they change.
$(VENV)/.%-ready: setup.py pyproject.toml | $(PYTHON)
	@echo "installing tfptq and what '$*' needs into $(VENV), which takes a few minutes the first time ..."
	@$(PIP) install --editable ".[$*]"
	@touch $@

$(VENV)/.build-ready: | $(PYTHON)
	@$(PIP) install build
	@touch $@

$(PYTHON):
	@$(PYTHON3) -c "import sys; sys.exit(sys.version_info < (3, 10))" \
		|| { echo "Python 3.10 or newer is needed; name one: make PYTHON3=python3.12 ..."; exit 1; }
	@$(PYTHON3) -m venv $(VENV)
