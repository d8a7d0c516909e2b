# Environments: each is created once, and again when its requirements change.
PYTHON ?= python3
RUN := .venv/run
TEST := .venv/test
PARITY := .venv/parity
AOT := .venv/aot
BEAM := .venv/beam
TESTS_NEED := requirements.txt requirements-test.txt requirements-metrics.txt requirements-data.txt \
	requirements-cloud.txt requirements-demo.txt requirements-docs.txt requirements-serve.txt
DEMO := .venv/demo
DOCS := .venv/docs

# Folders of runs that the demo offers first; it also offers the shipped model and those in runs/.
RUNS ?=

.PHONY: quickstart emoji-styles demo docs notebook test test-fast parity aot beam lint clean

quickstart: $(RUN)/ready
	$(RUN)/bin/python -m oneflow_jax.main --config=configs/quickstart.py

# Emoji in ten drawing styles, the data set `emoji_styles`: npm packages, 35 MB.
emoji-styles: $(RUN)/ready
	$(RUN)/bin/python -m oneflow_jax.data.fetch_emoji_styles data/emoji_styles

demo: $(DEMO)/ready
	$(DEMO)/bin/python -m oneflow_jax.demo $(RUNS)

docs: $(DOCS)/ready
	$(DOCS)/bin/mkdocs build --strict

notebook: $(TEST)/ready
	$(TEST)/bin/jupytext --to ipynb --output notebooks/oneflow_colab.ipynb notebooks/oneflow_colab.py

test: $(TEST)/ready lint
	$(TEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore=tests/parity

# The inner loop of development: without whole runs, other processes, browsers and cloud emulators.
test-fast: $(TEST)/ready
	$(TEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		--ignore=tests/parity -m "not slow"

parity: $(PARITY)/ready
	$(PARITY)/bin/python -m pytest tests/parity

aot: $(AOT)/ready
	JAX_PLATFORMS=cpu $(AOT)/bin/python -m pytest tests/aot

# Preparation of own data by Apache Beam, in an environment of its own: Beam asks for older versions of
# packages that the tests use.
beam: $(BEAM)/ready
	$(BEAM)/bin/python -m pytest -n 2 -k 'beam or engine or bucket' \
		tests/data/beam tests/cloud/test_own_data.py tests/benchmarks/test_benchmarks.py

lint: $(TEST)/ready
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/ruff check .

$(RUN)/ready: requirements.txt
	$(PYTHON) -m venv $(RUN)
	$(RUN)/bin/pip install --quiet --upgrade pip
	$(RUN)/bin/pip install --quiet -r requirements.txt
	touch $@

$(DEMO)/ready: requirements.txt requirements-demo.txt requirements-serve.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet --upgrade pip
	$(DEMO)/bin/pip install --quiet -r requirements.txt -r requirements-demo.txt
	touch $@

$(DOCS)/ready: requirements-docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --upgrade pip
	$(DOCS)/bin/pip install --quiet -r requirements-docs.txt
	touch $@

$(TEST)/ready: $(TESTS_NEED)
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/pip install --quiet --upgrade pip
	$(TEST)/bin/pip install --quiet -r requirements.txt -r requirements-test.txt
	touch $@

$(PARITY)/ready: $(TESTS_NEED) requirements-parity.txt
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/pip install --quiet --upgrade pip
	$(PARITY)/bin/pip install --quiet -r requirements.txt -r requirements-test.txt \
		-r requirements-parity.txt
	$(PARITY)/bin/pip install --quiet --no-deps pytorch-fid==0.3.0
	touch $@

$(AOT)/ready: $(TESTS_NEED) requirements-aot.txt requirements-aot-gpu.txt
	$(PYTHON) -m venv $(AOT)
	$(AOT)/bin/pip install --quiet --upgrade pip
	$(AOT)/bin/pip install --quiet -r requirements.txt -r requirements-test.txt \
		-r requirements-aot.txt -r requirements-aot-gpu.txt
	touch $@

$(BEAM)/ready: $(TESTS_NEED) requirements-beam.txt
	$(PYTHON) -m venv $(BEAM)
	$(BEAM)/bin/pip install --quiet --upgrade pip
	$(BEAM)/bin/pip install --quiet -r requirements.txt -r requirements-test.txt \
		-r requirements-beam.txt
	touch $@

clean:
	rm -rf .venv
