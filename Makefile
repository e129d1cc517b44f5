# `make help` lists what there is. Values come as NAME=VALUE; ARGS are further flags of the command behind a target.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FSR := $(BIN)/fsr
SYNTHETIC := data/synthetic
STUDY ?= smoke
RUNS ?= runs
DATASET ?= synthetic
RUN ?= runs/$(DATASET)
CHECKPOINT ?= $(RUN)/best.pt
# Through the environment: a value stays one word for the shell, whatever is in it.
export STUDY RUNS DATASET DATA RUN CHECKPOINT PORT

.PHONY: help setup prepare sweep status report board dashboard notebooks train infer claims test slow lint sanitize gpu lock audit
help:
	@sed -n 's/^#: \{0,1\}//p' Makefile

#: make setup        .venv with everything, and the native op
#: make sweep        sweep a study: STUDY=smoke; on the synthetic set, or DATA=DIR
#: make status       how far a study is: STUDY=smoke
#: make report       one page of a study: STUDY=smoke, or STUDY="a b"
#: make board        its curves and pictures in TensorBoard: STUDY=smoke PORT=6006
#: make dashboard    its search in optuna-dashboard: STUDY=smoke PORT=8080
#: make notebooks    the notebooks in JupyterLab: STUDY=smoke PORT=8888
#: make prepare      check a data set, write its lists: DATASET=voc DATA=DIR
#: make train        one run on this machine: DATASET=voc DATA=DIR RUN=runs/voc
#: make infer        its scores, label maps and report.html, with the same values
#:
#: make claims       the method's claims over paired seeds: ARGS="--parallel 2"
#: make test         all tests but the slow ones; make slow; make lint
#: make sanitize     the CPU kernels under sanitizers; make gpu: on a GPU
#: make lock         writes constraints.txt anew; make audit: known advisories
#:
#: RUNS=DIR names another folder of studies. ARGS="--trials 32" are further flags
#: of the command behind a target; .venv/bin/fsr --help lists all commands.

setup: $(VENV)/installed

# Nothing is installed but files whose hashes are known, so what builds pydensecrf2 comes first, and the package is built
# against the torch that is installed, both not in pip's isolation, which knows no hashes. On a terminal pip draws how far
# each download is.
LOG := build/setup.log
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation --log $(LOG)
FAILED := || ./setup.sh failed
$(VENV)/installed: pyproject.toml setup.py setup.sh constraints.txt constraints-build.txt $(filter-out %.md,$(wildcard csrc/*))
	@./setup.sh check '$(PYTHON)'
	@mkdir -p build && rm -f $(LOG)
	@test -x $(BIN)/python || '$(PYTHON)' -m venv $(VENV)
	@echo 'setup 2 of 4: what builds packages'
	@$(PIP) --require-hashes --requirement constraints-build.txt $(FAILED) 2 $(LOG)
	@echo "setup 3 of 4: $$(grep -c '^[^ #]' constraints.txt) pinned packages, about 6 GB: minutes, by the network"
	@$(PIP) --require-hashes --requirement constraints.txt $(FAILED) 3 $(LOG)
	@echo 'setup 4 of 4: this package, and its native op: a minute or two'
	@$(PIP) --no-deps --editable . $(FAILED) 4 $(LOG)
	@touch $@
	@echo 'setup is done. Next: make sweep   (a small study on this machine), or $(FSR) --help'

# What the pins allow, in the versions that they have today where these still fit.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock'
lock: $(VENV)/installed
	$(LOCK) --extra dev pyproject.toml --output-file constraints.txt
	echo 'setuptools wheel Cython==0.29.36' | tr ' ' '\n' | $(LOCK) --constraint constraints.txt - --output-file constraints-build.txt

# Fails too where a package could not be looked up.
audit: $(VENV)/installed
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement constraints.txt

$(SYNTHETIC)/VOCdevkit/VOC2012/synthetic.json: | $(VENV)/installed
	$(FSR) synthetic $(SYNTHETIC)

# Without DATA, the synthetic set: it is drawn where it is missing.
DRAWN := $(if $(DATA),,$(SYNTHETIC)/VOCdevkit/VOC2012/synthetic.json)
DATA_FOLDER := $(if $(DATA),"$$DATA",$(SYNTHETIC))

prepare: $(VENV)/installed
	@test -n "$$DATA" || { echo 'error: make prepare needs DATASET=voc (or coco) and DATA=DIR' >&2; exit 2; }
	$(FSR) prepare "$$DATASET" "$$DATA" $(ARGS)

sweep: $(VENV)/installed $(DRAWN)
	$(FSR) sweep --study "$$STUDY" --runs "$$RUNS" --data_folder $(DATA_FOLDER) \
		$(if $(DATA),,--dataset synthetic --cluster local) $(ARGS)

status: $(VENV)/installed
	$(FSR) status --study "$$STUDY" --runs "$$RUNS" $(ARGS)

# Only a STUDY that was named: without one they begin with the study that was launched last.
notebooks: $(VENV)/installed
	set -f; $(FSR) notebooks --runs "$$RUNS" $(if $(filter-out file,$(origin STUDY)),--study $$STUDY) $(if $(PORT),--port "$$PORT") $(ARGS)

report: $(VENV)/installed
	set -f; $(FSR) report --study $$STUDY --runs "$$RUNS" $(ARGS)

board: $(VENV)/installed
	$(FSR) board --study "$$STUDY" --runs "$$RUNS" $(if $(PORT),--port "$$PORT") $(ARGS)

dashboard: $(VENV)/installed
	$(FSR) dashboard --study "$$STUDY" --runs "$$RUNS" $(if $(PORT),--port "$$PORT") $(ARGS)

train: $(VENV)/installed $(DRAWN)
	$(FSR) train "$$DATASET" --data_folder $(DATA_FOLDER) --run_folder "$$RUN" $(ARGS)

infer: $(VENV)/installed
	$(FSR) infer "$$DATASET" --data_folder $(DATA_FOLDER) --checkpoint "$$CHECKPOINT" --report $(ARGS)

# hours_of_runs in docs/results/claims.json says how long. Runs that are there already are not trained again.
claims: $(VENV)/installed $(DRAWN)
	$(BIN)/python -m benchmarks.claims --data_folder $(DATA_FOLDER) $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Everything that only a GPU can tell, with `make setup`'s environment, or else PYTHON and the wheels in .whl that it lacks.
MINUTES ?= 60
WHEELS := build/wheels
gpu: GPU_PYTHON := $(if $(wildcard $(VENV)/installed),$(BIN)/python,$(PYTHON))
gpu:
	$(if $(wildcard .whl/*.whl),$(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target $(WHEELS) .whl/*.whl)
	PYTHONPATH=.:$(WHEELS):$$PYTHONPATH $(GPU_PYTHON) -m benchmarks.gpu --minutes $(MINUTES)

# The CPU kernels and their tests again under AddressSanitizer and UBSan: a copy of the package with another fsr/_C.
SANITIZED := build/sanitized
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
sanitize: $(VENV)/installed
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	cp -r fsr $(SANITIZED)/fsr
	rm -f $(SANITIZED)/fsr/_C*.so
	FSR_CUDA=0 CFLAGS="$(SANITIZERS) -fno-omit-frame-pointer" LDFLAGS="$(SANITIZERS)" $(BIN)/python setup.py --quiet \
		build_ext --build-lib $(SANITIZED) --build-temp $(SANITIZED)/objects
	cp tests/test_native.py tests/test_ops.py tests/test_crf.py $(SANITIZED)
	cd $(SANITIZED) && PYTHONPATH=. ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$(foreach name,libasan.so libubsan.so libstdc++.so,$(shell c++ -print-file-name=$(name)))" \
		$(abspath $(BIN))/python -m pytest -q -s -p no:cacheprovider test_native.py test_ops.py test_crf.py \
		-k "not compile and not without_the_extension"
