# make demo   install into .venv, audit four small models, offline, and hold that against the baseline in reports/demo
# make test   what continuous integration runs
# make clean  remove .venv and all that was built
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECIPE := setup.cfg setup.py pyproject.toml koda_audit.pth

.PHONY: demo test clean

demo: $(VENV)/.installed
	$(BIN)/koda-audit demo --output reports/latest
	$(BIN)/koda-audit check reports/latest --baseline reports/demo/baseline --gates reports/demo/gates.yaml

test: $(VENV)/.installed-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find koda_audit tests -name __pycache__ -type d -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Stamps: a second call installs nothing unless the recipe changed.
$(VENV)/.installed: $(RECIPE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(RECIPE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@ $(VENV)/.installed
