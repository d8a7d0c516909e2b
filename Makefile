# Four environments, each made once and made anew when its requirements change.
PYTHON ?= python3
RUN := .venv/run
TEST := .venv/test
PARITY := .venv/parity
AOT := .venv/aot

.PHONY: quickstart test parity aot lint clean

quickstart: $(RUN)/ready
	$(RUN)/bin/python -m oneflow_jax.main --config=configs/quickstart.py

test: $(TEST)/ready lint
	$(TEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore=tests/parity

parity: $(PARITY)/ready
	$(PARITY)/bin/python -m pytest tests/parity

aot: $(AOT)/ready
	JAX_PLATFORMS=cpu $(AOT)/bin/python -m pytest tests/compiling

lint: $(TEST)/ready
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/ruff check .

$(RUN)/ready: requirements.txt
	$(PYTHON) -m venv $(RUN)
	$(RUN)/bin/pip install --quiet --upgrade pip
	$(RUN)/bin/pip install --quiet -r requirements.txt
	touch $@

$(TEST)/ready: requirements.txt requirements-test.txt requirements-metrics.txt requirements-data.txt requirements-cloud.txt
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/pip install --quiet --upgrade pip
	$(TEST)/bin/pip install --quiet -r requirements.txt -r requirements-test.txt
	touch $@

$(PARITY)/ready: requirements.txt requirements-test.txt requirements-metrics.txt requirements-data.txt requirements-cloud.txt requirements-parity.txt
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/pip install --quiet --upgrade pip
	$(PARITY)/bin/pip install --quiet -r requirements.txt -r requirements-test.txt \
		-r requirements-parity.txt
	$(PARITY)/bin/pip install --quiet --no-deps pytorch-fid==0.3.0
	touch $@

$(AOT)/ready: requirements.txt requirements-test.txt requirements-metrics.txt requirements-data.txt requirements-aot.txt
	$(PYTHON) -m venv $(AOT)
	$(AOT)/bin/pip install --quiet --upgrade pip
	$(AOT)/bin/pip install --quiet -r requirements.txt -r requirements-test.txt \
		-r requirements-aot.txt
	touch $@

clean:
	rm -rf .venv
