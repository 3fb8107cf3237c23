.PHONY: run test check audit crash outages soak fuzz scaling analysis bench bench-short profile clean

# uv makes the environment from uv.lock; pip brings uv where it is missing.
UV := $(shell command -v uv 2>/dev/null || echo .venv/uv/bin/uv)
PYTHON ?= python3
export UV_PYTHON_DOWNLOADS := never

run: .venv/installed
	@exec .venv/bin/openbat local

test: .venv/installed
	.venv/bin/pytest

# Linters, types and layers; the tests are `make test`.
check: .venv/installed
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

# Known vulnerabilities in what is installed, secrets in the project's files.
audit: .venv/installed
	.venv/bin/python -m tests.audit

# What the promises of docs/reliability.md rest on, at full length; `make test` runs a minute of each.
ROUNDS ?= 200
crash: .venv/installed
	@exec .venv/bin/python -m tests.crash --rounds $(ROUNDS)

outages soak fuzz scaling analysis: .venv/installed
	@exec .venv/bin/pytest tests/$@ --full -s

# Ratios to peers that are measured in the same run; needs wrk. The first takes about half an hour.
bench: .venv/installed bench/peers/.venv/installed
	@exec .venv/bin/python -m bench

bench-short: .venv/installed bench/peers/.venv/installed
	@exec .venv/bin/python -m bench --short

# A flame graph of a role under load, in .openbat/profile.
ROLE ?= conversations
profile: .venv/installed
	@exec .venv/bin/python -m bench.profile $(ROLE)

bench/peers/.venv/installed: .venv/installed bench/peers/uv.lock bench/peers/pyproject.toml
	$(UV) sync --quiet --locked --project bench/peers
	@touch $@

.venv/installed: uv.lock pyproject.toml
	@command -v uv >/dev/null || test -x .venv/uv/bin/uv || \
		{ $(PYTHON) -m venv .venv/uv && .venv/uv/bin/python -m pip install --quiet uv; }
	@test -x .venv/bin/python || $(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) sync --locked --all-groups --extra local --extra llm --extra tracing
	@touch $@

clean:
	rm -rf .venv .openbat bench/peers/.venv
