# Names for the common commands. The README shows what they run, for those without make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PROFILE ?= demo
SEEDS ?= 0
SNAKEMAKE := $(BIN)/snakemake --cores all --resources gpu=1 --rerun-incomplete --rerun-triggers params mtime input --max-checksum-file-size 100MB
# The files that runs of one chapter leave; CHAPTER may be the start of its name.
RUNS = $(shell $(BIN)/python -m lib.site.book target "$(CHAPTER)" --profile $(PROFILE) --seeds $(SEEDS) $(if $(ARGS),--custom))

# What is run sees this folder's lib and UTF-8, whatever the shell has set.
export PYTHONPATH := $(CURDIR)
export PYTHONUTF8 := 1
export PYTHONNOUSERSITE := 1
unexport PYTHONHOME PYTHONSTARTUP GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

.PHONY: book html pdf chapter publish check-published test faults pages lab clean

# Snakemake keeps a cache, and there may be no home, or none that can be written. pip keeps the user's own.
$(READY): export XDG_CACHE_HOME := $(XDG_CACHE_HOME)
book html chapter: export XDG_CACHE_HOME := $(CURDIR)/_build/settings/cache

book: $(READY)  ## measure and tell what has changed, build the book: _build/html/index.html
	$(SNAKEMAKE) --config profile=$(PROFILE) seeds="$(SEEDS)" -- book

html: $(READY)  ## build the book from results that are there; measures nothing
	$(SNAKEMAKE) --config profile=$(PROFILE) measure=no --allowed-rules tell page html -- html

pdf: html  ## print the book with Chromium or Chrome: _build/html/learning-without-labels.pdf
	$(BIN)/python -m lib.site.pdf

chapter: export LWL_ARGS = $(ARGS)
chapter: $(READY)  ## measure one: make chapter CHAPTER=01 PROFILE=laptop SEEDS=0 ARGS="-p epochs 3"
	$(SNAKEMAKE) -- $(or $(RUNS),$(error No chapter to run))

ifneq ($(and $(filter publish,$(MAKECMDGOALS)),$(ARGS)),)
$(error ARGS=$(ARGS): a published run is its profile's own. Change book/profiles/, or say make chapter)
endif
ifneq ($(and $(filter publish,$(MAKECMDGOALS)),$(filter demo,$(PROFILE))),)
$(error Demo runs are not published: they show that everything works. Say PROFILE=laptop, or paper)
endif
publish: chapter  ## measure what is missing and store it: make publish CHAPTER=01 PROFILE=laptop SEEDS="0 1 2"
	$(BIN)/python -m lib.site.publish store $(CHAPTER) --profile $(PROFILE) --seeds $(SEEDS)

check-published: $(READY)  ## say which published results are not what today's code would give, and why
	$(BIN)/python -m lib.site.publish check

test: $(READY)  ## check mathematics, behaviour and style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n auto --dist loadfile

faults: $(READY)  ## kill, fill, corrupt and contradict it; counts what it survived in published/reliability/faults.json
	$(BIN)/python -m pytest tests/faults -n 0 --record

pages: $(READY)  ## check the built pages in a browser (Chromium or Chrome, if one is installed)
	$(BIN)/python -m pytest tests/browser

lab: $(READY)  ## edit the chapters in JupyterLab
	$(BIN)/jupyter lab book

clean:  ## forget what was made; the environment and your data stay
	rm -rf _build .snakemake

# Only an environment that was made by this rule is emptied and made anew; it says so itself, in pyvenv.cfg.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed: say make PYTHON=python3.12 ...")'
	@if [ -L .venv ] || { [ -e .venv ] && ! grep -qs -e '-m venv --clear .*/\.venv$$' .venv/pyvenv.cfg; }; then \
		echo "The environment .venv is older than requirements.txt, and make did not make it, so it empties nothing there."; \
		echo "Either remove .venv (if it is a link, the link) and say make again, or bring it up to date yourself:"; \
		echo "  .venv/bin/python -m pip install -r requirements.txt && touch $(READY)"; \
		exit 1; \
	fi
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $(READY)
