# Two commands are all that a newcomer needs: make run, make test.
SHELL := /bin/bash
PYTHON ?= python3.11
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
VENV := $(ROOT).venv/bin
SEMGREP := SEMGREP_SEND_METRICS=off SEMGREP_ENABLE_VERSION_CHECK=0 $(ROOT).venv-semgrep/bin/semgrep
CODE := agents graphs ingest prompts server storage tools bootstrap.py
.DEFAULT_GOAL := help

.PHONY: help run dev test check setup setup-dev lock fmt lint types imports secure chaos bench probes revision browser

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:  ## .venv with the locked packages
	@cd $(ROOT) && $(PYTHON) bootstrap.py

setup-dev:  ## the same with the tools for development
	@cd $(ROOT) && $(PYTHON) bootstrap.py --dev

run: setup  ## start everything with a demo business; Ctrl-C stops it
	@cd $(ROOT) && exec $(VENV)/python -m server run

dev: setup-dev  ## the same, and restart on change
	@cd $(ROOT) && exec $(VENV)/python -m server run --reload

# Debian's where we may install it, Playwright's own elsewhere; with neither the browser tests are skipped, which fails where CI is set.
browser: setup-dev  ## a Chromium for the browser tests, where there is none
	@command -v chromium >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null 2>&1 || true; \
	else $(VENV)/playwright install chromium >/dev/null 2>&1 || true; fi

test: setup-dev browser  ## the whole suite, browser included
	@cd $(ROOT) && $(VENV)/python -m pytest -n 2 --dist loadfile -q $(ARGS)

check: setup-dev lint types imports secure  ## format, lint, types, import contracts, security rules, prompts
	@cd $(ROOT) && $(VENV)/python -m server check

lint: setup-dev
	@cd $(ROOT) && $(VENV)/ruff format --check -q . && $(VENV)/ruff check -q .

types: setup-dev
	@cd $(ROOT) && $(VENV)/mypy

imports: setup-dev
	@cd $(ROOT) && $(VENV)/lint-imports --no-cache

# pip-audit is not here: without a network it finds nothing and says so silently. A CI with one runs it and fails on what was skipped.
secure: setup-dev  ## bandit, our semgrep rules (and the rules on their examples), secrets in files
	@cd $(ROOT) && $(PYTHON) bootstrap.py --semgrep
	@cd $(ROOT) && $(VENV)/bandit -q -c pyproject.toml -r agents graphs ingest prompts server storage tools bootstrap.py
	@cd $(ROOT) && git ls-files -z | xargs -0 $(VENV)/detect-secrets-hook --baseline .secrets.baseline
	@cd $(ROOT) && $(SEMGREP) scan --test tests/security/semgrep/ >/dev/null
	@cd $(ROOT) && $(SEMGREP) scan --quiet --error --config tests/security/semgrep/rules.yaml $(CODE)

fmt: setup-dev  ## format and mend what ruff can
	@cd $(ROOT) && $(VENV)/ruff check -q --fix-only . && $(VENV)/ruff format -q .

chaos: setup-dev  ## 2,000 messages while everything is killed at random
	@cd $(ROOT) && $(VENV)/python -m tests.load.chaos $(ARGS)

probes: setup-dev  ## 100,000 attempts of one tenant to reach another's data
	@cd $(ROOT) && $(VENV)/python -m tests.isolation.probes $(ARGS)

bench: setup-dev  ## figures into build/bench/*.json
	@cd $(ROOT) && $(VENV)/python -m tests.load.bench $(ARGS)

revision: setup-dev  ## a new migration from the models: make revision MESSAGE="what it does"
	@cd $(ROOT) && $(VENV)/python -m tests.support.revision "$(MESSAGE)"

COMPILE := $(VENV)/uv pip compile pyproject.toml --generate-hashes --no-header --no-annotate --quiet --universal --python-version 3.11
lock: setup-dev  ## resolve the versions anew
	@cd $(ROOT) && $(COMPILE) --upgrade --extra dev -o requirements-dev.lock
	@cd $(ROOT) && $(COMPILE) --constraint requirements-dev.lock -o requirements.lock
	@cd $(ROOT) && $(subst pyproject.toml,requirements-semgrep.in,$(COMPILE)) --upgrade -o requirements-semgrep.lock
