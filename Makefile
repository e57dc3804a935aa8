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

.PHONY: help demo test test-beam lint format docs docs-serve fuzz bench wheel web demo-web test-web firmware clean

help:
	@echo "make demo      train a small network, quantize it, compare, write out/digits.tflite"
	@echo "make test      run the tests"
	@echo "make test-beam test tfptq.distributed with Apache Beam, which takes .venv's protobuf back to 6"
	@echo "make lint      check style, types, and which room imports which"
	@echo "make format    fix style where a program can"
	@echo "make fuzz      feed the readers of Python and C++ with changed files; needs g++ and clang++"
	@echo "make docs      build the documentation site into build/site; docs-serve shows it while you write"
	@echo "make bench     run the benchmarks and write their tables and plots into docs"
	@echo "make wheel     build the source archive and the wheel into dist"
	@echo "make demo-web  a page that classifies what you draw (needs npm)"
	@echo "make test-web  test that page (needs npm and Chromium)"
	@echo "make firmware  golden test on an emulated microcontroller (examples/microcontroller)"
	@echo "make clean     remove .venv, out, what the page needs, and caches"

demo: $(VENV)/.test-ready
	@$(PYTHON) examples/digits.py --output out/digits.tflite

test: $(VENV)/.test-ready
	@$(PYTHON) -m pytest -n $(JOBS) -q

# Beam wants an older protobuf than TensorFlow would take, so that it is not part of what all tests need.
test-beam: $(VENV)/.test-ready $(VENV)/.beam-ready
	@$(PYTHON) -m pytest -n 0 -q tests/distributed/test_beam.py

lint: $(VENV)/.test-ready
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(VENV)/bin/lint-imports --no-logo

format: $(VENV)/.test-ready
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

# A warning, such as a broken link, fails the build. MkDocs' notice on its version 2 is none of ours: 1 is pinned.
docs docs-serve: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/.docs-ready
	@$(PYTHON) -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

docs-serve: $(VENV)/.docs-ready
	@$(PYTHON) -m mkdocs serve

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
	@$(PYTHON) -m benchmarks.conclusions

wheel: $(VENV)/.build-ready
	@rm -rf build dist
	@$(PYTHON) -m build

# LiteRT.js for the browser: examples/web/package.json names its version.
web: examples/web/node_modules

examples/web/node_modules: examples/web/package.json
	@cd examples/web && npm install --no-package-lock --no-fund --no-audit --silent
	@touch $@

WEB_MODELS := examples/web/models/models.json
# WEB_HOST=0.0.0.0 shows the page to a phone in the same network.
WEB_HOST   ?= 127.0.0.1
WEB_PORT   ?= 8000

$(WEB_MODELS): examples/digits.py examples/web/build.py examples/web/shapes.py | $(VENV)/.web-ready
	@$(PYTHON) -m examples.web.build

demo-web: web $(WEB_MODELS)
	@echo "open http://localhost:$(WEB_PORT) in a browser; Ctrl-C ends it"
	@$(PYTHON) -m http.server --bind $(WEB_HOST) --directory examples/web $(WEB_PORT)

test-web: web $(WEB_MODELS)
	@$(PYTHON) -m pytest -q examples/web

# Golden test on an emulated microcontroller: make firmware TFLM=<checkout of TFLite Micro, its library built>
FIRMWARE_PRESET ?= w8a8_shift

firmware: $(VENV)/.test-ready
	@test -n "$(TFLM)" || { echo "name a checkout of TFLite Micro: make firmware TFLM=..."; exit 1; }
	@$(PYTHON) examples/digits.py --target micro --preset $(FIRMWARE_PRESET) --output out/digits_micro.tflite
	@$(PYTHON) -m tfptq to-c out/digits_micro.tflite --name=model --output_dir=out/firmware
	@$(MAKE) --no-print-directory -C examples/microcontroller TFLM=$(abspath $(TFLM)) MODEL=$(abspath out/firmware)

clean:
	rm -rf $(VENV) examples/web/node_modules examples/web/models out .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis build dist *.egg-info

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
