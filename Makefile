# make demo           the README's main job, from nothing: .venv, installation, a comparison
# make test           ruff, mypy --strict and the tests, from nothing
# make check          what is long: the README's commands, notebooks, kill and resume, the browser
# make docs           the site of docs/, in site/index.html
# make release-check  the wheel alone, with the oldest and newest dependencies, on each Python here

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
# Processes that share the tests, each on one core.
JOBS ?= 2
# Real scans for the tests that want them; those tests skip with a reason where it is not set.
export SCANLEARN_DATA
# With bytecode kept, the many processes that the tests start load torch in half the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check docs release-check clean

demo: $(VENV)/.installed
	$(BIN)/scantune compare demo

test: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m "not long" -n $(JOBS) --dist loadfile

check: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m long -n $(JOBS) --dist loadfile

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

release-check: $(VENV)/.installed-dev
	$(BIN)/python tests/project/release.py $(PYTHONS)

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(call install,.)
	touch $@

$(VENV)/.installed-docs: pyproject.toml $(CONSTRAINTS)
	$(call install,.[docs])
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS)
	$(call install,.[dev])
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

# uv where it is there or pip can bring it, else pip.
define install
	@python=; for name in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "scanlearn needs Python 3.11 or newer; name one with: make PYTHON=/usr/bin/python3.12" >&2; exit 2; fi; \
	uv=$$(command -v uv || true); \
	if [ ! -x $(BIN)/python ]; then \
	  if [ -n "$$uv" ]; then "$$uv" venv --quiet --python "$$python" $(VENV); else "$$python" -m venv $(VENV); fi || exit 1; \
	fi; \
	if [ -z "$$uv" ] && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null; then uv=$(BIN)/uv; fi; \
	echo "installing scanlearn and its dependencies into $(VENV) (about 6 GB, mostly torch) ..."; \
	if [ -n "$$uv" ]; then "$$uv" pip install --quiet --python $(BIN)/python -c $(CONSTRAINTS) -e '$(1)'; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '$(1)'; fi
endef
