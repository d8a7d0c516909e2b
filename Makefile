# Two environments, each made once and made anew when its requirements change.
PYTHON ?= python3
RUN := .venv/run
TEST := .venv/test

.PHONY: quickstart test lint clean

quickstart: $(RUN)/ready
	$(RUN)/bin/python -m oneflow_jax.main --config=configs/quickstart.py

test: $(TEST)/ready lint
	$(TEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(TEST)/ready
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/ruff check .

$(RUN)/ready: requirements.txt
	$(PYTHON) -m venv $(RUN)
	$(RUN)/bin/pip install --quiet --upgrade pip
	$(RUN)/bin/pip install --quiet -r requirements.txt
	touch $@

$(TEST)/ready: requirements.txt requirements-test.txt
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/pip install --quiet --upgrade pip
	$(TEST)/bin/pip install --quiet -r requirements.txt -r requirements-test.txt
	touch $@

clean:
	rm -rf .venv
