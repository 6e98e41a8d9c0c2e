# Everything runs in .venv inside the checkout; every target builds it first, and does so only once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.demo-installed

SECONDS ?= 600
# The choice of `make bench`: names, or beginnings of names, that `python benchmarks/run.py --list` shows; all by default.
ONLY ?=
export NO_MKDOCS_2_WARNING := 1
SOURCES := src tests benchmarks examples docs
# Folders of tests that need no compiled kernels, or few; the others are for `make test`.
QUICK := tests/ground tests/networks tests/quantization tests/program tests/data tests/compiled tests/test_imports.py \
         tests/test_public_names.py tests/test_former_names.py tests/test_memory.py tests/test_benchmarks.py
# Files of tests in as many processes as there are cores, up to four: each takes about 1 GiB.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: help install demo test quick check lint docs docs-look docs-serve figures soak wheel bench bench-table gpu peers interop interop-test clean

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: $(STAMP)  ## Build .venv with the package and everything its tests need.

INTO_VENV = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")' \
	&& $(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(INTO_VENV) -e '.[dev]'
	touch $(STAMP) $(DEMO_STAMP)

# Without torch, which the demonstration does not need and which is most of what `install` downloads.
$(DEMO_STAMP): pyproject.toml constraints.txt
	$(INTO_VENV) -e .
	touch $(DEMO_STAMP)

demo: $(DEMO_STAMP)  ## The whole job on the built-in digits, without torch: search, best integer model, report.
	$(BIN)/qspinn explore digits_stdp --out runs/demo

test: install  ## All tests.
	$(PYTEST)

quick: install  ## The fast tests: within a minute on 2 cores once kernels are compiled.
	$(PYTEST) -m 'not slow and not soak' $(QUICK)

lint: install  ## Style, layout of the sources, types.
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

docs: install  ## Build the documentation into build/site; a warning or a broken link is an error.
	$(BIN)/python docs/measured.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-serve: docs  ## The documentation at http://localhost:8000.
	$(BIN)/python -m http.server --directory build/site --bind localhost 8000

docs-look: docs  ## Pictures of every page in light and dark, wide and as on a telephone, in build/look (Node, Chromium).
	node --experimental-websocket docs/look.mjs build/site build/look

figures: install  ## Renew the measured figures in README and documentation from benchmarks/results.
	$(BIN)/python docs/measured.py

check: lint docs test  ## All that a change must pass: style, types, documentation, tests.

wheel: install  ## Build a wheel, install it where nothing else is, and run the command line and the digits from it.
	bash benchmarks/wheel.sh $(PYTHON)

soak: install wheel  ## The wheel, the longest tests, the contract with checked bounds, SECONDS=600 of changed program files.
	$(PYTEST) -m soak
	QSPINN_BOUNDSCHECK=1 $(BIN)/python -m pytest tests/runtime/test_runtime.py -k TestNumba
	$(BIN)/python benchmarks/soak.py --seconds $(SECONDS)

bench: install  ## All measurements (many hours; QSPINN_DATA, make peers), or some: make bench ONLY=decolle.
	$(BIN)/python benchmarks/run.py $(ONLY)

bench-table: install  ## Render benchmarks/results/*.json into benchmarks/README.md.
	$(BIN)/python benchmarks/table.py

gpu: install  ## Check on a CUDA card within 7 minutes: equal bits, its tests, speed.
	$(BIN)/python benchmarks/gpu.py

peers:  ## Environments of their own for the libraries we compare with.
	bash benchmarks/peers/install.sh
	bash benchmarks/peers/install_torch.sh

interop:  ## An environment of its own with the libraries that networks are imported from.
	bash tests/interop/install.sh

interop-test:  ## Networks of those libraries, imported and compared spike for spike.
	.venv-interop/bin/python -m pytest tests/interop

clean:  ## Remove compiled kernels, the environment and all runs.
	find src -name '*.nb[ic]' -delete
	rm -rf $(VENV) .venv-peers .venv-peers-torch .venv-interop runs build
