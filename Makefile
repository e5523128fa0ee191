# One command for each thing a developer does. Every target sets up what it needs first (.ci/setup), which takes
# a moment once everything is there.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
# Where it is set, each of the thousand processes that tests start would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

SIZE ?= 1GiB
# How long `make bench` may take: sizes and turns give way.
BUDGET ?= 28m
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
# Tests wait for servers and processes half of their time: more workers than processors.
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup sr3 demo test quick integration chaos bench lint format types docs docs-check native check clean

help:  ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup:  ## install Debian packages and .venv
	@bash .ci/setup

sr3:  ## the same, and the real metpx-sr3 as a peer in .venv-sr3
	@bash .ci/setup sr3

demo: setup  ## run the main job on real input: make demo SIZE=4GiB
	@$(PY) -m perf.demo --size $(SIZE)

test: sr3  ## every test but the slow ones and the long random kills
	$(PYTEST) --ignore=tests/chaos -q -m "not slow" -n $(JOBS) --dist worksteal

quick: setup  ## the tests that need no server, in seconds
	$(PYTEST) tests/unit -q -m "not slow"

integration: sr3  ## the tests against real servers
	$(PYTEST) tests/integration tests/conformance -q

chaos: sr3  ## long random kills, the widest search of the ledger, benchmarks made small
	$(PYTEST) -q -m "slow or chaos"

bench: setup  ## every benchmark beside its peers in half an hour: perf/results/report.html
	@bash .ci/setup bench
	@$(PY) -m perf all --out perf/results --budget $(BUDGET)

lint: setup  ## rules and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: setup  ## put the code into its format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

types: setup  ## mypy --strict, and the C extension against its stub
	.venv/bin/mypy
	.venv/bin/stubtest sarrapipe._native

docs: setup  ## write the generated reference pages
	$(PY) -m sarrapipe.config.document > docs/reference/options.md
	$(PY) -m sarrapipe.cli.document > docs/reference/commands.md

docs-check: setup  ## the generated reference pages are up to date
	@for page in options:config commands:cli; do \
		$(PY) -m sarrapipe.$${page#*:}.document | diff -u docs/reference/$${page%:*}.md - \
			|| { echo "docs/reference/$${page%:*}.md is out of date: run 'make docs'"; exit 1; }; \
	done

native: setup  ## build the C extension again
	BUILD_EXTENSION=yes .venv/bin/pip install -q --no-deps -e .

check: test lint types docs-check  ## what CI runs

clean:  ## remove what was built; the virtual environments stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis sarrapipe/*.so perf/results
	find . -path ./.venv -prune -o -path ./.venv-sr3 -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
