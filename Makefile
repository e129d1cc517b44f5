# make sweep: everything from nothing to a finished smoke study.  make test: the whole suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA := data/synthetic
STUDY ?= smoke

.PHONY: setup sweep test slow lint
setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

$(DATA)/VOCdevkit/VOC2012/synthetic.json: | $(VENV)/installed
	$(BIN)/python -m fsr.data.synthetic $(DATA)

sweep: $(VENV)/installed $(DATA)/VOCdevkit/VOC2012/synthetic.json
	$(BIN)/python launch/sweep.py --study $(STUDY) --data_folder $(DATA) --cluster local

test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
