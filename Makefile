# `make install` builds .venv from pinned requirements and does nothing the second time.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install reproduce figures test lint benchmark pins clean

install: $(STAMP)

# PIP_CONSTRAINT, unlike -c, also pins what builds the package.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

reproduce: install
	$(BIN)/toyicl run fig2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every figure that is checked in, from full settings.
figures: install
	$(BIN)/toyicl run fig2
	$(BIN)/toyicl run prop1
	cp runs/fig2/figure.png figures/fig2.png
	cp runs/fig2/figure.svg figures/fig2.svg
	cp runs/prop1/figure.png figures/prop1.png
	$(BIN)/python benchmarks/scaling.py

test: lint
	$(BIN)/pytest -n auto

benchmark: install
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/cores.py
	$(BIN)/python benchmarks/running.py

# Needs uv; writes names and versions only, never where a package came from.
pins:
	echo hatchling | uv pip compile pyproject.toml - --extra dev --universal --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate --quiet --output-file constraints.txt

clean:
	rm -rf .venv
