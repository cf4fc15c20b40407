# Every target sets up what it needs: python3 (3.11 or newer) and make are all that must be there.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all check docs

demo: $(INSTALLED)  ## quantize an embedded model and show what came of it
	$(RUN) examples/demo.py

# Many small tests: a process per core does more than threads.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

test: $(INSTALLED)  ## run the tests, with a diagonal of each product of parameters
	$(PYTEST)

test-all: $(VENV)/.types  ## run them with every combination, and ten times the generated examples
	$(PYTEST) --all

check: $(INSTALLED)  ## lint, formatting, types
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

docs: $(INSTALLED)  ## write the command-line reference and the table of pipelines anew
	$(RUN) -m mezzotint.cli.reference docs/cli.md
	$(RUN) -m tests.pipelines.table docs/pipelines.md

$(INSTALLED): pyproject.toml constraints-dev.txt hatch_build.py $(wildcard src/mezzotint/runtime/cpu/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade --constraint constraints-dev.txt pip
	$(RUN) -m pip install --quiet --constraint constraints-dev.txt \
		--editable '.[evaluation,lora,openvino,predictor,ray]' --group dev
	touch $@

$(VENV)/.types: $(INSTALLED)
	$(RUN) -m pip install --quiet --constraint constraints-dev.txt --group types
	touch $@
