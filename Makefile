# Universe VAE: `make` alone lists what there is.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test lab explore notebooks figures results bench clean which-python

export PYTHONHASHSEED := 0
export NO_COLOR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# As uvae_lib does, for notebooks that import torch before it: beside other work, threads that spin cost four times as much.
export OMP_WAIT_POLICY ?= PASSIVE
# Kernels inherit MPLBACKEND, and a value such as Agg silently takes the pictures out of the notebooks.
unexport MPLBACKEND

PY := .venv/bin/python
EXPLORE_PORT := 8866
STAMP := .venv/installed-pyproject.toml
SERVER_FLAGS := $(if $(filter 0,$(shell id -u)),--allow-root)
# Nothing to open a page with: print the address only.
ifeq ($(shell uname),Linux)
BROWSER_FLAGS := $(if $(DISPLAY)$(WAYLAND_DISPLAY),,--no-browser)
endif

# Sets $python to the first Python 3.11 to 3.13 that starts (a pyenv shim may not) and has venv (Debian's may not).
define find_python
python=; \
for candidate in $(PYTHON) python3.12 python3.13 python3.11 python3; do \
    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
        >/dev/null 2>&1; then python="$$candidate"; break; fi; \
    if [ "$$candidate" = "$(PYTHON)" ]; then \
        echo "set-up: PYTHON=$$candidate is no Python 3.11 to 3.13 with venv; looking for another" >&2; fi; \
done; \
if [ -z "$$python" ]; then \
    echo "set-up: found no Python 3.11 to 3.13 with venv. Install one (Debian: apt-get install python3 python3-venv)" \
        "or name one: make setup PYTHON=/path/to/python3" >&2; exit 1; fi
endef

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s%s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# The stamp is written last and is a copy of what was installed: an interrupted set-up is taken up again.
# A .venv whose first installation did not end is made anew, as a package in it may be half there.
setup: ## .venv with everything (does nothing when it is up to date, or when PY=python names another environment)
	@set -euo pipefail; \
	if [ "$(PY)" != .venv/bin/python ]; then exit 0; fi; \
	wanted="$$(cat pyproject.toml; echo '# in $(CURDIR)')"; \
	if [ "$$(cat $(STAMP) 2>/dev/null)" = "$$wanted" ] && $(PY) -c '' 2>/dev/null; then exit 0; fi; \
	if [ -e .venv/unfinished ] || ! $(PY) -m pip --version >/dev/null 2>&1; then \
	    $(find_python); \
	    echo "set-up: new .venv with $$("$$python" --version)"; \
	    "$$python" -m venv --clear --without-pip .venv; \
	    touch .venv/unfinished; \
	    $(PY) -Im ensurepip --upgrade --default-pip >/dev/null; \
	fi; \
	echo "set-up: installing the packages that pyproject.toml names (PyTorch is large: minutes the first time)"; \
	quiet=--quiet; if [ -t 1 ]; then quiet=; fi; \
	$(PY) -m pip install $$quiet -e '.[dev]' \
	    2> >(grep --line-buffered -Ev 'Location .* is ignored: it is (n?either) a' >&2); \
	printf '%s\n' "$$wanted" > $(STAMP).new; \
	rm -f .venv/unfinished; \
	mv $(STAMP).new $(STAMP); \
	echo "set-up: done"

demo: setup ## simulate, train, evaluate, run the notebooks: pages and pictures in figures/ (half an hour to an hour)
	[ -n "$$UVAE_DATA" ] || $(PY) -m uvae_lib simulate --preset demo
	$(PY) -m uvae_lib train --preset demo --resume
	$(PY) -m uvae_lib train-flows --preset demo
	$(PY) -m uvae_lib evaluate --preset demo
	UVAE_PRESET=demo $(PY) notebooks/run.py --out build/demo --html figures/demo
	@echo "make demo: open figures/demo/04_latent_traversals.html first: its sliders move; make lab opens the notebooks themselves"

# Suite and run of the smoke preset are made anew, so that the notebooks meet the code as it is now.
test: setup ## ruff, pytest, and all notebooks on the smoke preset
	$(PY) -m ruff check --quiet .
	$(PY) -m ruff format --check --quiet .
	rm -rf data/smoke runs/smoke
	env -u UVAE_DATA UVAE_PRESET=smoke TQDM_DISABLE=1 $(PY) -m pytest -q -n logical --maxprocesses 4 \
	    --no-loadscope-reorder --nbval-lax --nbval-current-env --nbval-cell-timeout=300 \
	    --nbval-sanitize-with=tests/nbval_sanitize.cfg notebooks/[0-9]*.ipynb tests

lab: setup ## JupyterLab on the notebooks, on this machine only
	$(PY) -m jupyterlab --ip=127.0.0.1 $(SERVER_FLAGS) $(BROWSER_FLAGS) \
	    --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

explore: setup ## turn a universe by hand: a page of sliders on the shipped weights, on this machine only
	@token=$$($(PY) -c 'import secrets; print(secrets.token_hex(16))'); \
	echo "explore: open http://127.0.0.1:$(EXPLORE_PORT)/?token=$$token"; \
	$(PY) -m voila notebooks/explore.ipynb --Voila.ip=127.0.0.1 --port=$(EXPLORE_PORT) --no-browser \
	    --token=$$token

notebooks: setup ## run all notebooks and keep their outputs in them (UVAE_PRESET=smoke|demo|note, default demo)
	$(PY) notebooks/run.py --inplace

figures: setup ## every figure at the width of MNRAS, A&A, ApJ and NeurIPS, as PDF (UVAE_PRESET, default demo)
	$(PY) notebooks/run.py --out build/figures notebooks/07_paper_figures.ipynb

results: setup ## judge the shipped run on 500 universes of another seed: docs/results.md (hours; goes on where it was)
	$(PY) -m tests.benchmarks.results

bench: setup ## measure speed and quality side by side
	$(PY) -m tests.benchmarks.run

clean: ## remove build/ and caches; data/, runs/, figures/ and .venv stay
	rm -rf build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find uvae_lib tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

which-python:
	@$(find_python); echo "$$python"
