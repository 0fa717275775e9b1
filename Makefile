# Each target installs what it needs. Stamp files in `.venv` record what is installed, so that nothing is repeated.
# PYTHON=… selects the interpreter; ARGS=… is passed on, as in `make test ARGS="-k vote"`.

PYTHON_CANDIDATES = $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python
LOCKS = requirements.lock requirements-local.lock
DEV_LOCKS = $(LOCKS) requirements-tracing.lock requirements-s3.lock requirements-dev.lock
BENCH_LOCKS = $(LOCKS) requirements-bench.lock
HA_LOCKS = $(DEV_LOCKS) requirements-ha.lock

VENV_PYTHON = .venv/bin/python
PIP_INSTALL = $(VENV_PYTHON) -m pip install -qq --require-hashes
UV_COMPILE = $(VENV_PYTHON) -m uv pip compile --quiet --system-certs --universal --generate-hashes --python-version 3.11 \
	--no-emit-index-url --custom-compile-command "make lock"
# With PYTHONDONTWRITEBYTECODE, each of the many servers that tests start would compile everything again.
COMPILE = $(VENV_PYTHON) -m compileall -q app alembic tests
IS_RECENT = import sys; sys.exit(sys.version_info < (3, 11))

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore
# A user's environment or pip.conf may set it, but a virtual environment rejects it.
export PIP_USER = 0

# Recreate an environment whose Python was removed or is too old.
ifeq ($(shell $(VENV_PYTHON) -c '$(IS_RECENT)' 2>/dev/null && echo usable),)
.PHONY: .venv/made
endif

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

.PHONY: install
install: .venv/dev-installed ## Install everything for running, testing and checking
	@echo "Everything is installed in .venv"

.PHONY: run
run: .venv/installed ## Serve the API, with an embedded PostgreSQL if no database is configured
	@trap : INT; $(VENV_PYTHON) -m app run $(ARGS) || { code=$$?; [ $$code -eq 130 ] || exit $$code; } # Ctrl-C is no error.

.PHONY: dev
dev: .venv/installed ## The same, and restart when the code changes
	@trap : INT; $(VENV_PYTHON) -m app run --reload $(ARGS) || { code=$$?; [ $$code -eq 130 ] || exit $$code; }

.PHONY: test
test: .venv/dev-installed ## Run the tests except the slow ones
	@$(COMPILE)
	@$(VENV_PYTHON) -m pytest -n 3 -m "not slow" $(ARGS)

.PHONY: test-all
test-all: .venv/dev-installed ## Run all tests
	@$(COMPILE)
	@$(VENV_PYTHON) -m pytest -n 2 $(ARGS)

.PHONY: test-ha
test-ha: .venv/ha-installed ## Fail over three nodes of Patroni under load (needs etcd; seven minutes)
	@$(VENV_PYTHON) -m pytest tests/ha $(ARGS)

.PHONY: mutants
mutants: .venv/dev-installed ## Remove each defence in turn and expect its tests to fail (13 minutes with ARGS="--jobs 2")
	@$(VENV_PYTHON) -m tests.mutants $(ARGS)

# Plain English names the subject instead. `nobody` is the name of an account in some places.
VAGUE_WORDS = whoever|whomever|nobody|somebody|everybody|anybody|who waits|(is|are|was|were|been) told|the living|\bone[^a-z ]s\b
WORDED = app alembic bench deploy docs tests README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md

.PHONY: check
check: .venv/dev-installed ## Lint; check format, types, imports between layers, migrations and CI workflows
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy
	@$(VENV_PYTHON) .venv/bin/lint-imports
	@$(VENV_PYTHON) -m tests.migrations.lint
	@if [ -d .github ]; then .venv/bin/zizmor --offline --quiet .github; fi
	@! grep -rniE '$(VAGUE_WORDS)' $(WORDED) --include='*.py' --include='*.md' --include='*.y*ml' --include='*.conf' \
	    --include='*.cfg' --include='*.json' --include='*.toml' | grep -vE 'nobody(@|\.id| AS)|"nobody"|\(\?:whoever'

.PHONY: docs
docs: .venv/dev-installed ## Build the documentation as a site in .local/docs/site; a dead link is an error
	@$(VENV_PYTHON) docs/build_site.py .local/docs

.PHONY: screenshots
screenshots: .venv/dev-installed ## Take the pictures of the README from a demo site (needs Chromium)
	@$(VENV_PYTHON) -m docs.screenshots

.PHONY: bench
bench: .venv/bench-installed ## Benchmark the API and its peers (about an hour, on an idle machine)
	@$(VENV_PYTHON) -m bench $(ARGS)

.PHONY: bench-quick
bench-quick: .venv/bench-installed ## Check that the benchmark works: one short round on a small data set
	@$(VENV_PYTHON) -m bench --quick $(ARGS)

.PHONY: format
format: .venv/dev-installed ## Format the code and apply the linter's fixes
	@$(VENV_PYTHON) -m ruff check --fix --exit-zero --quiet .
	@$(VENV_PYTHON) -m ruff format .

.PHONY: openapi
openapi: .venv/installed ## Regenerate openapi.json
	@$(VENV_PYTHON) -m app openapi > openapi.json

.PHONY: revision
revision: .venv/installed ## Begin a migration with the next number: make revision ARGS="Create comments"
	@$(VENV_PYTHON) -m app.dev.revision $(ARGS)

.PHONY: lock
lock: .venv/made ## Update the locks from requirements*.txt; ARGS=--upgrade takes the newest versions
	@$(VENV_PYTHON) -m uv --version >/dev/null 2>&1 || $(VENV_PYTHON) -m pip install --quiet "$$(grep '^uv' requirements-dev.txt)"
	@$(UV_COMPILE) $(ARGS) requirements.txt -o requirements.lock
	@$(UV_COMPILE) $(ARGS) -c requirements.lock requirements-local.txt -o requirements-local.lock
	@$(UV_COMPILE) $(ARGS) -c requirements.lock requirements-tracing.txt -o requirements-tracing.lock
	@$(UV_COMPILE) $(ARGS) -c requirements.lock requirements-s3.txt -o requirements-s3.lock
	@$(UV_COMPILE) $(ARGS) -c requirements.lock -c requirements-local.lock -c requirements-tracing.lock -c requirements-s3.lock requirements-dev.txt -o requirements-dev.lock
	@$(UV_COMPILE) $(ARGS) $(DEV_LOCKS:%=-c %) requirements-bench.txt -o requirements-bench.lock
	@$(UV_COMPILE) $(ARGS) $(DEV_LOCKS:%=-c %) requirements-audit.txt -o requirements-audit.lock
	@$(UV_COMPILE) $(ARGS) $(DEV_LOCKS:%=-c %) requirements-ha.txt -o requirements-ha.lock
	@$(UV_COMPILE) $(ARGS) tests/clients/requirements.txt -o tests/clients/requirements.lock

.PHONY: clean
clean: ## Remove the environment and all caches, but not the data in .local
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/made:
	@for python in $(PYTHON_CANDIDATES); do \
		"$$python" -c '$(IS_RECENT)' 2>/dev/null || continue; \
		found="$$python"; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
		echo "Creating .venv with $$("$$python" --version)"; \
		rm -rf .venv && "$$python" -m venv .venv && touch $@; exit; \
	done; \
	if [ -n "$$found" ]; then \
		echo "$$found cannot create environments: install its venv module (Debian, Ubuntu: apt install python3-venv)"; \
	else \
		echo "no Python 3.11 or newer was found: install one, or pass its path with make PYTHON=/path/to/python"; \
	fi >&2; \
	exit 1

.venv/installed: .venv/made $(LOCKS)
	@echo "Installing requirements into .venv"
	@$(PIP_INSTALL) $(LOCKS:%=-r %)
	@touch $@

.venv/dev-installed: .venv/made $(DEV_LOCKS)
	@echo "Installing requirements and tools into .venv"
	@$(PIP_INSTALL) $(DEV_LOCKS:%=-r %)
	@touch $@ .venv/installed

.venv/bench-installed: .venv/made $(BENCH_LOCKS)
	@echo "Installing requirements and what the benchmark needs into .venv"
	@$(PIP_INSTALL) $(BENCH_LOCKS:%=-r %)
	@touch $@ .venv/installed

.venv/ha-installed: .venv/made $(HA_LOCKS)
	@echo "Installing requirements, tools and Patroni into .venv"
	@$(PIP_INSTALL) $(HA_LOCKS:%=-r %)
	@touch $@ .venv/dev-installed .venv/installed
