# make sweep: everything from nothing to a finished smoke study.  make test: the whole suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA := data/synthetic
STUDY ?= smoke
RUNS ?= runs

.PHONY: setup lock audit sweep report board dashboard notebooks test slow lint sanitize gpu
setup: $(VENV)/installed

# Nothing is installed but files whose hashes are known, so what builds pydensecrf2 comes first, and the package is built
# against the torch that is installed, both not in pip's isolation, which knows no hashes.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation
$(VENV)/installed: pyproject.toml setup.py constraints.txt constraints-build.txt $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --requirement constraints-build.txt
	$(PIP) --require-hashes --requirement constraints.txt
	$(PIP) --no-deps --editable .
	touch $@

# What the pins allow, in the versions that they have today where these still fit.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock'
lock: $(VENV)/installed
	$(LOCK) --extra dev pyproject.toml --output-file constraints.txt
	echo 'setuptools wheel Cython==0.29.36' | tr ' ' '\n' | $(LOCK) --constraint constraints.txt - --output-file constraints-build.txt

# Fails too where a package could not be looked up.
audit: $(VENV)/installed
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement constraints.txt

$(DATA)/VOCdevkit/VOC2012/synthetic.json: | $(VENV)/installed
	$(BIN)/python -m fsr.data.synthetic $(DATA)

sweep: $(VENV)/installed $(DATA)/VOCdevkit/VOC2012/synthetic.json
	$(BIN)/python launch/sweep.py --study '$(STUDY)' --runs '$(RUNS)' --data_folder $(DATA) --cluster local

board: $(VENV)/installed
	$(BIN)/python analysis/board.py --study '$(STUDY)' --runs '$(RUNS)' $(if $(PORT),--port '$(PORT)')

dashboard: $(VENV)/installed
	$(BIN)/python analysis/dashboard.py --study '$(STUDY)' --runs '$(RUNS)' $(if $(PORT),--port '$(PORT)')

# Only a STUDY that was named: without one they begin with the study that was launched last.
notebooks: $(VENV)/installed
	$(BIN)/python -m analysis.lab --runs '$(RUNS)' $(if $(filter-out file,$(origin STUDY)),--study '$(STUDY)') $(if $(PORT),--port '$(PORT)')

report: $(VENV)/installed
	$(BIN)/python analysis/report.py --study '$(STUDY)' --runs '$(RUNS)'

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
