# Names for the common commands. The README shows what they run, for those without make.
PYTHON ?= python3
TORCH ?= auto
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

.PHONY: book html pdf chapter sweep compare publish check-published test test-slurm faults mutants bench pages lab clean

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

sweep: $(READY)  ## a run for each combination: make sweep NAME=sigmas CHAPTER=01 SET="sigma=0.1,0.3 latent_dim=4,8" SEEDS="0 1 2"
	$(BIN)/python -m lib.site.sweep $(or $(NAME),$(error Say NAME=, what the sweep is called)) $(if $(CHAPTER)$(SET),--chapter "$(CHAPTER)" --profile $(PROFILE) --set "$(SET)" --seeds "$(SEEDS)") $(if $(Y),--y $(Y)) $(if $(X),--x $(X)) $(if $(ON),--on $(ON)) $(if $(CONFIRM),--confirm $(CONFIRM))

compare: $(READY)  ## hold your own run against the published ones: make compare RESULTS=_build/results/laptop/01_autoencoders/seed-7.json
	$(BIN)/python -m lib.site.compare $(or $(RESULTS),$(error Say RESULTS=, a JSON file of results))

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

test-slurm: $(READY)  ## a sweep through a SLURM cluster on this machine (Debian's packages), with an engine and a node killed
	$(BIN)/python tests/slurm/check.py

mutants: $(READY)  ## plant small bugs and count those that tests see: make mutants FILES="lib/vae.py" N=50, or SINCE=main
	$(BIN)/python tests/mutation $(FILES) $(if $(SINCE),--since $(SINCE)) $(if $(filter all,$(N)),,--sample $(or $(N),100))

bench: $(READY)  ## time each chapter's work against its limit, a usual loop and other libraries; wants a quiet machine
	$(BIN)/python -m benchmarks $(CHAPTER)

pages: $(READY)  ## check the built pages in a browser (Chromium or Chrome, if one is installed)
	$(BIN)/python -m pytest tests/browser

lab: $(READY)  ## edit the chapters in JupyterLab
	$(BIN)/jupyter lab book

clean:  ## forget what was made; the environment and your data stay
	rm -rf _build .snakemake

# Sets up .venv, or finds in a moment that it is whole and fits the lock; says what it does.
$(READY): FORCE
	@$(PYTHON) lib/site/environment.py --torch $(TORCH)
FORCE:
