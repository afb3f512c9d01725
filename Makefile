# Each target does all the set-up it needs; the second run finds it done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo told test check parity cluster docs clean

demo: told $(STAMP)
	$(BIN)/python -m imas_jax.main --config=configs/demo.py

told:
	@echo "demo: installs into $(VENV) unless that is done (a minute or two), renders five clips,"
	@echo "learns them, and scores the masks: some 3 minutes on two CPU cores."

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile

parity: $(STAMP)
	$(BIN)/python -m pytest tests/parity -m parity

# SLURM, munge and an image's builder are not installed here; what is missing is said.
cluster: $(STAMP)
	$(BIN)/python -m pytest tests/cluster -m cluster -rs

docs: $(STAMP)
	$(BIN)/python docs/build.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# -qq: of pip its errors only; -q would print a warning a package on some machines.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade "pip<26" "setuptools>=77" wheel
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[dev,docs,formats,hub,tfrecord]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
