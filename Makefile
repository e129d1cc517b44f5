# make sweep: everything from nothing to a finished smoke study.  make test: the whole suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA := data/synthetic
STUDY ?= smoke

.PHONY: setup sweep test slow lint
setup: $(VENV)/installed

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Torch comes first: the native op is built against the one that is installed, not in pip's isolation.
$(VENV)/installed: pyproject.toml setup.py constraints.txt $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch 'setuptools>=77' ninja
	$(PIP) --no-build-isolation --editable '.[dev]'
	touch $@

$(DATA)/VOCdevkit/VOC2012/synthetic.json: | $(VENV)/installed
	$(BIN)/python -m fsr.data.synthetic $(DATA)

sweep: $(VENV)/installed $(DATA)/VOCdevkit/VOC2012/synthetic.json
	$(BIN)/python launch/sweep.py --study $(STUDY) --data_folder $(DATA) --cluster local

test: $(VENV)/installed
	$(BIN)/python -m pytest

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
