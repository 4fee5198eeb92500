# `make install` creates .venv from pinned requirements, unless it is up to date.
PYTHON ?= python3
OUT ?= runs/figures
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install reproduce lint figures test slow docs notebook benchmark browser pins clean

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

# Reproduces the figures that are checked in, with the same settings, in OUT: many hours on two cores. If it is
# interrupted, it resumes when it is called again. The captions state which settings are not the full ones.
figures: install
	$(BIN)/toyicl run attention_cost classroom confidence_sets context_order context_sizes cosine_blindness \
		departure_map other_tasks preconditioned single_factors softmax_candidates softmax_identities views \
		--out $(OUT)
	$(BIN)/toyicl run attention_maps dual_form false_labels linearised_finetuning momentum_attention \
		regression_finetuning update_similarity --out $(OUT)
	$(BIN)/toyicl run prop1_equivalence prop2_features prop3_copying fig01_roll_out fig02_one_step \
		fig03_two_layers fig09_weights fig10_damping fig11_two_heads fig12_softmax fig16_fixed_tasks \
		noisy_labels --out $(OUT)
	$(BIN)/toyicl run fig03_five_layers --out $(OUT) --seeds 3 --settings.training.batch-size 512 \
		--settings.training.steps 30000 --settings.unclipped-training.batch-size 512
	$(BIN)/toyicl run fig04_sine --out $(OUT) --seeds 2 --settings.training.batch-size 512 \
		--settings.reference-training.batch-size 512
	$(BIN)/toyicl run fig05_separate_tokens --out $(OUT) --seeds 4 --settings.training.batch-size 512 \
		--settings.training.steps 30000
	$(BIN)/toyicl run fig06_shifts --out $(OUT) --settings.deep-training.batch-size 256 \
		--settings.deep-training.steps 10000 --settings.deep-max-seeds 2
	$(BIN)/toyicl run fig07_ten_layers --out $(OUT) --seeds 2
	$(BIN)/toyicl run fig08_twelve_blocks --out $(OUT) --seeds 1 --settings.training.batch-size 256 \
		--settings.training.steps 10000
	$(BIN)/toyicl run fig13_curvature --out $(OUT) --seeds 2 --settings.training.batch-size 256
	$(BIN)/toyicl run fig14_layer_norm --out $(OUT) --settings.training.steps 20000 \
		--settings.training.batch-size 512
	$(BIN)/toyicl run fig15_plateaus --out $(OUT) --seeds 10
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

benchmark: install
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/cores.py
	$(BIN)/python benchmarks/running.py

# Installs a browser, if there is none and apt-get is available. The tests of the teaching page need one, and
# are skipped otherwise.
browser:
	-@command -v chromium chromium-browser google-chrome >/dev/null || ! command -v apt-get >/dev/null || \
		{ apt-get update && apt-get install -y --no-install-recommends chromium; }

# Writes constraints.txt: names and versions, without the sources of packages. Needs uv.
pins:
	echo hatchling | uv pip compile pyproject.toml - --extra dev --universal --python-version 3.11 \
		--no-header --no-annotate --quiet --output-file constraints.txt

clean:
	rm -rf .venv
