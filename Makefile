# `make run` and `make test` need Python 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint clean

run: $(VENV)/installed
	$(BIN)/python ddpg_her_reengage.py --env-id HandReach-v2 --alpha 0.01

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -q -n auto

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV)
