# Everything runs in .venv inside the checkout; every target builds it first, and does so only once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.demo-installed

SECONDS ?= 600
# Files of tests in as many processes as there are cores, up to four: each takes about 1 GiB.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: help install demo test check soak bench bench-table gpu peers clean

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

check: install  ## Lint, types, tests.
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/mypy
	$(PYTEST)

soak: install  ## Contract with checked bounds, then SECONDS=600 of changed program files through all engines.
	QSPINN_BOUNDSCHECK=1 $(BIN)/python -m pytest tests/runtime/test_runtime.py -k TestNumba
	$(BIN)/python benchmarks/soak.py --seconds $(SECONDS)

bench: install  ## All measurements on MNIST (hours; needs QSPINN_DATA and, for peers, make peers).
	$(BIN)/python benchmarks/run.py

bench-table: install  ## Render benchmarks/results/*.json into benchmarks/README.md.
	$(BIN)/python benchmarks/table.py

gpu: install  ## Check on a CUDA card within 7 minutes: equal bits, its tests, speed.
	$(BIN)/python benchmarks/gpu.py

peers:  ## Environments of their own for the libraries we compare with.
	bash benchmarks/peers/install.sh
	bash benchmarks/peers/install_torch.sh

clean:  ## Remove compiled kernels, the environment and all runs.
	find src -name '*.nb[ic]' -delete
	rm -rf $(VENV) .venv-peers .venv-peers-torch runs
