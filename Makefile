# make demo    a FaceTime call through the gateway, in namespaces of its own (SEED=n SECONDS=n)
# make test    everything: installs what is missing, checks, runs all tests
# make help    the other targets
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help setup lint ruff imports types check test demo bench accuracy acceptance format compile locks clean

VENV ?= .venv
SETUP ?= packaging/install-dev
PYTHON_IN := $(VENV)/bin/python
# tests at once: as many as there are cores, and twice that of those that mostly wait for the kernel
JOBS ?= $(shell n=$$(nproc); echo $$((n < 6 ? n : 6)))
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache
# out of the tree, but kept: the tests start the gateway some hundred times

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 20

setup: ## install what is missing: Debian packages, .venv
	@$(SETUP)

lint: ruff imports types ## ruff, the five import contracts, mypy --strict

ruff: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

imports: setup
	$(VENV)/bin/lint-imports --no-logo

types: setup
	$(VENV)/bin/mypy

check: lint ## lint, and the architecture tests (budgets, names, a violation of each contract)
	$(VENV)/bin/pytest -q tests/test_architecture.py

test: lint ## everything, kernel tests included; the figures of the issues in short
	@$(SETUP) test
	@failed=0; \
	$(VENV)/bin/pytest -n $(JOBS) --dist loadfile -m "not slow and not kernel" || failed=1; \
	$(VENV)/bin/pytest -n $$((2 * $(JOBS))) --dist loadgroup -m "not slow and kernel" || failed=1; \
	exit $$failed

demo: setup ## the call on a real kernel: SEED=n for other addresses and tokens, SECONDS=n of media
	$(PYTHON_IN) -m tests.lab.demo $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

bench: ## forwarding of decided flows; captures beside NFStream and ndpiReader (BENCH=quick for a minute's worth)
	@$(SETUP) bench
	$(PYTHON_IN) -m tests.bench $(BENCH)

accuracy: setup ## base protocols on the shared captures, flow by flow beside nDPI and tshark
	$(PYTHON_IN) -m tests.accuracy

acceptance: setup ## the figures of the issues in full (up to 90 minutes)
	packaging/acceptance

format: setup ## ruff's fixes and layout
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

compile: ## the modules that each packet passes, as machine code (setup does it once; after changes appid runs from its text)
	@$(SETUP) compile

locks: ## write the lock files again from pyproject.toml and the .in files
	packaging/make-locks

clean: ## remove .venv, build/ and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
	find appid tests -name __pycache__ -prune -exec rm -rf {} +
