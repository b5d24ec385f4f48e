# Everything a checkout needs: Python >= 3.11 (with its venv module) and make.
# Another interpreter: make PYTHON=python3.12 test. More words for a command: make demo ARGS='--rooms 20'.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
UV_VERSION ?= 0.13.9

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# A stamp carries Python's version in its name, so that another PYTHON makes the environment anew; otherwise it is
# redone only when the lock file or pyproject.toml changed.
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
RUNTIME_STAMP := $(VENV)/.runtime-$(PYTHON_VERSION)
DEV_STAMP := $(VENV)/.dev-$(PYTHON_VERSION)

define check_python
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "make: PYTHON must be Python 3.11 or newer, got $(PYTHON) ($$($(PYTHON) --version 2>&1 | head -n 1));" \
	     "name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "make: $(PYTHON) must have the venv module, got none;" \
	     "on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
endef

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help venv dev-venv demo kafka test test-integration test-long test-kafka test-chaos lint style types imports \
	schemas lock clean bench train-sentiment

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: $(RUNTIME_STAMP) ## make .venv with the program and the pinned versions of what it needs

dev-venv: $(DEV_STAMP) ## the same with the tools for tests and checks

demo: $(RUNTIME_STAMP) ## run the whole product on this machine, with made-up rooms (ARGS='--seconds 60')
	$(BIN)/roompulse demo $(ARGS)

kafka: $(RUNTIME_STAMP) ## run a real Kafka on this machine until Ctrl-C; needs Java 17 and Maven (ARGS='--brokers 3')
	$(BIN)/python -m tests.kafka $(ARGS)

test: $(DEV_STAMP) ## run the tests, a worker on an embedded broker among them (ARGS='-k ledger')
	$(BIN)/python -m pytest $(ARGS)

test-integration: $(DEV_STAMP) ## run what takes minutes: workers that come, go, crash and stand still, demo and bench in full
	$(BIN)/python -m pytest tests/integration $(ARGS)

test-long: $(DEV_STAMP) ## run the properties again, with all the examples they name
	$(BIN)/python -m pytest --hypothesis-profile=long -m 'hypothesis or long' $(ARGS)

test-kafka: $(DEV_STAMP) ## run the tests on a real Kafka, of one broker and of three; needs Java 17 and Maven
	$(BIN)/python -m pytest tests/kafka $(ARGS)

test-chaos: $(DEV_STAMP) ## kill, freeze and replace real workers, by those of the commit before too (more: .venv/bin/python -m tests.chaos --help)
	$(BIN)/python -m pytest tests/chaos/ci_seeds.py $(ARGS)
	$(BIN)/python -m tests.chaos --seeds 100:120 --rate 2000 --seconds 6 --jobs 4

bench: $(RUNTIME_STAMP) ## measure the whole job against other frameworks (ARGS='--quick --json')
	$(BIN)/roompulse bench $(ARGS)

lint: style types imports ## run every check that runs no program: style, types, import rules

style: $(DEV_STAMP) ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(DEV_STAMP) ## mypy, strict
	$(BIN)/mypy

imports: $(DEV_STAMP) ## import-linter: schemas <- pipeline <- agents, and a pure core
	$(BIN)/lint-imports

schemas: $(RUNTIME_STAMP) ## write schemas/generated anew from the models
	$(BIN)/python -m schemas.export

train-sentiment: $(RUNTIME_STAMP) ## train the sentiment model's table anew (ARGS='--data train.csv.gz'); its checksum goes into pipeline/sentiment/grams.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.signals.train_sentiment $(ARGS)

lock: ## write the lock files anew (ARGS=--upgrade takes newer versions)
	$(check_python)
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	$(PYTHON) -m venv "$$tmp" && "$$tmp/bin/pip" install --quiet --disable-pip-version-check uv==$(UV_VERSION) && \
	compile() { "$$tmp/bin/uv" pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' "$$@"; } && \
	echo 'setuptools>=77' | compile $(ARGS) pyproject.toml - -o requirements.lock && \
	echo 'setuptools>=77' | compile $(ARGS) pyproject.toml - --extra dev -c requirements.lock -o requirements-dev.lock

clean: ## remove everything that was made, .venv too
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --no-deps and --no-build-isolation: the lock file alone says what is installed, the build's setuptools included.
$(RUNTIME_STAMP): requirements.lock pyproject.toml
	$(check_python)
	@test "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$(PYTHON_VERSION)" \
		|| $(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_STAMP): requirements-dev.lock $(RUNTIME_STAMP)
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@
