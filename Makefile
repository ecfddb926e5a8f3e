# `make run` and `make test` need make and Python 3.11 or newer; everything else is installed into .venv.
VENV := .venv
BIN := $(VENV)/bin
NEW_ENOUGH := -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$python $(NEW_ENOUGH) && echo $$python && break; done)

.PHONY: run test lint clean

run: $(VENV)/installed
	$(BIN)/python ddpg_her_reengage.py --env-id HandReach-v2 --alpha 0.01

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -q -n auto

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/installed: requirements.txt
	@$(or $(PYTHON),false) $(NEW_ENOUGH) || \
		{ echo "no Python from 3.11 on that can make virtual environments: install one, or name it with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV)
