# Entry points for users and CI. `make` alone lists the targets.
#
# Set-up happens once: a stamp file in .venv stands for "installed", and it is older than
# pyproject.toml or constraints.txt when it has to happen again.
#
# The package is installed editable, so that what runs is what is in src/ and a change of the
# code needs no new set-up. That the wheel holds all files is proved by .ci/run.

# PROMPT is passed on without being read by make or by the shell: `$(value ...)` keeps a `$` as it
# is, and the recipe finds it in an environment variable. A PROMPT of the environment is not used,
# because some shells keep their own prompt there.
PROMPT = a 3D red heart on a white background

# PyTorch's builds without CUDA (gigabytes less). For a GPU name another one of their indexes, such
# as TORCH_INDEX=https://download.pytorch.org/whl/cu130. Where the index cannot be reached, pip
# takes torch from wherever else it is set to look.
TORCH_INDEX = https://download.pytorch.org/whl/cpu

# Arguments for `make bench`, such as BENCH="--only flops,stages --sizes 512".
BENCH =

# Number of parallel test processes; each keeps to one thread.
WORKERS = 2

PYTHON := .venv/bin/python
# Twice quiet: errors are shown, warnings about an index that does not answer are not.
PIP := $(PYTHON) -m pip install -qq --retries 2 --constraint constraints.txt
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(PYTHON) -m pytest -n $(WORKERS)

.PHONY: help demo test test-slow test-all check bench
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
unexport PROMPT

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: export DEMO_PROMPT = $(value PROMPT)
demo: .venv/.core ## install and generate an image; set PROMPT="a yellow banana" for your own
	@.venv/bin/wuerstchen generate -- "$$DEMO_PROMPT"

test: .venv/.dev ## install, and run the test suite without the slow tests
	@$(PYTEST) -m "not slow"

test-slow: .venv/.dev ## install, and run the slow tests
	@$(PYTEST) -m slow

test-all: .venv/.dev ## install, and run all tests, the slow ones with all their cases
	@$(PYTEST) --all-cases

check: .venv/.dev ## install, and run the formatter, the linter and the type checker
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy

bench: .venv/.bench ## install, and measure speed for hours; a part of it with BENCH="--only flops"
	@$(PYTHON) -m benchmarks.inference $(BENCH)

# The first Python that runs and is of a version we support; 3.11 first, the pinned one.
.venv/bin/python:
	@for python in python3.11 python3.12 python3.13 python3; do \
		$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
			2>/dev/null || continue; \
		$$python -m venv .venv && exit 0; \
		rm -rf .venv; \
		echo "$$python -m venv failed; install it (Debian: apt install python3-venv)." >&2; \
		exit 1; \
	done; \
	echo "Expected Python 3.11, 3.12 or 3.13 on the PATH and found none; install one." >&2; \
	exit 1

# torch goes first and alone (--no-deps, in the version of constraints.txt), so that the extra
# index serves torch and nothing else, and so that the second line finds it installed
# and does not choose a build with CUDA.
.venv/.core: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing wuerstchen into .venv (a few minutes, once) ..." >&2
	@$(PIP) --no-deps --extra-index-url $(TORCH_INDEX) torch
	@$(PIP) --editable .
	@touch $@

.venv/.dev: .venv/.core
	@echo "Installing the tools for tests and checks into .venv ..." >&2
	@$(PIP) --editable ".[train,data,test,check,bench]"
	@touch $@

.venv/.bench: .venv/.core
	@echo "Installing what the measurements need into .venv ..." >&2
	@$(PIP) --editable ".[bench]"
	@touch $@
