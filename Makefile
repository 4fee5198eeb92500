# `make install` builds .venv from pinned requirements and does nothing the second time.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install reproduce figures test slow lint benchmark browser pins clean

install: $(STAMP)

# PIP_CONSTRAINT, unlike -c, also pins what builds the package.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into .venv: a minute or two, in silence."
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

reproduce: install
	$(BIN)/toyicl run fig2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Every figure that is checked in, as it was made: hours on two cores. Each command may be stopped and
# repeated; captions and figures/REPORT.md say what was cut.
figures: install
	$(BIN)/toyicl run attention_cost classroom context_order context_sizes cosine_blindness dials explained \
		preconditioned probe softmax_identities softmax_rivals untaught views --out figures
	$(BIN)/toyicl run dai_maps dai_momentum dai_regression dai_similarity dual_form false_labels \
		linearised_finetuning --out figures
	$(BIN)/toyicl run prop1 prop2 prop3 fig1 fig2 fig3a fig10 fig11 fig12 fig16 labels --out figures
	$(BIN)/toyicl run fig3b --out figures --seeds 3 --settings.training.batch-size 512 \
		--settings.training.steps 30000 --settings.unclipped-training.batch-size 512
	$(BIN)/toyicl run fig4 --out figures --seeds 2 --settings.training.batch-size 512 \
		--settings.reference-training.batch-size 512
	$(BIN)/toyicl run fig5 --out figures --seeds 4 --settings.training.batch-size 512 \
		--settings.training.steps 30000
	$(BIN)/toyicl run fig6 --out figures --settings.deep-training.batch-size 256 \
		--settings.deep-training.steps 10000 --settings.deep-max-seeds 2
	$(BIN)/toyicl run fig7 --out figures --seeds 2
	$(BIN)/toyicl run fig8 --out figures --seeds 1 --settings.training.batch-size 256 \
		--settings.training.steps 10000
	$(BIN)/toyicl run fig9 --out figures
	$(BIN)/toyicl run fig13 --out figures --seeds 2 --settings.training.batch-size 256
	$(BIN)/toyicl run fig14 --out figures --settings.training.steps 20000 \
		--settings.training.batch-size 512
	$(BIN)/toyicl run fig15 --out figures --seeds 10
	$(BIN)/toyicl verify --out figures || true
	$(BIN)/python benchmarks/scaling.py

# A file's tests share what they compile: each file is one process's.
test: lint
	$(BIN)/pytest -n auto --dist loadfile

slow: install
	$(BIN)/pytest -n auto -m slow

.PHONY: docs notebook

# The documentation as a site, into site/: nothing is fetched. The theme's own notice is not about it.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "wrote site/index.html; its search needs a server: $(PYTHON) -m http.server --directory site"

# The tutorial's notebook, made from docs/tutorial.md and run.
notebook: install
	$(BIN)/python docs/notebook.py

benchmark: install
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/cores.py
	$(BIN)/python benchmarks/running.py

# The teaching page's tests need a browser, and skip without one. Installs it where it can.
browser:
	-@command -v chromium chromium-browser google-chrome >/dev/null || ! command -v apt-get >/dev/null || \
		{ apt-get update && apt-get install -y --no-install-recommends chromium; }

# Needs uv; writes names and versions only, never where a package came from.
pins:
	echo hatchling | uv pip compile pyproject.toml - --extra dev --universal --python-version 3.11 \
		--no-header --no-annotate --quiet --output-file constraints.txt

clean:
	rm -rf .venv
