# The two commands: `make run` takes real text to a fine-tuned model, `make test` proves the code. Both install first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: run test install lint format types layers lock-check check lock clean help

run: install  ## install, then text to a fine-tuned model on the embedded default
	$(BIN)/gristmill run configs/demo.yaml

test: install  ## install, then all tests
	$(BIN)/python -m pytest

install: $(VENV)/.installed  ## create .venv and install what the lock says

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

lint: install  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install  ## static types
	$(BIN)/mypy

layers: install  ## who may import whom
	$(BIN)/lint-imports

lock-check: install  ## is what is installed what the lock says?
	$(BIN)/python tests/check_lock.py

check: lint types layers lock-check test  ## everything CI runs

clean:  ## remove the environment, caches and the default workspace
	-$(BIN)/gristmill server stop
	rm -rf $(VENV) workspace .mypy_cache .ruff_cache .pytest_cache .hypothesis

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

lock:  ## resolve pyproject.toml anew into requirements.lock (in an environment of its own)
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check 'torch==2.13.0' '.[s3,dev]'
	{ sed -n '/^#/p' requirements.lock; \
	  .venv-lock/bin/python -m pip list --format=freeze --exclude gristmill --exclude pip --exclude setuptools | sed 's/+.*//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock && rm -rf .venv-lock
