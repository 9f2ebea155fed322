# Names for the common commands. The README shows what they run, for those without make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PROFILE ?= demo
SNAKEMAKE := $(BIN)/snakemake --cores all --resources gpu=1 --rerun-incomplete --max-checksum-file-size 100MB

.PHONY: book html chapter publish check-published test pages lab clean

book: $(READY)  ## execute what has changed and build the book: _build/html/index.html
	$(SNAKEMAKE) --config profile=$(PROFILE) -- book

html: $(READY)  ## build the book from published runs and what is executed already; executes no chapter
	$(SNAKEMAKE) --config profile=$(PROFILE) --allowed-rules html page --forcerun html -- html

chapter: export LWL_ARGS = $(ARGS)
chapter: $(READY)  ## execute one: make chapter CHAPTER=01_autoencoders PROFILE=laptop ARGS="-p epochs 3"
	$(SNAKEMAKE) -- _build/runs/$(PROFILE)$(if $(ARGS),.custom)/$(CHAPTER).ipynb

ifneq ($(and $(filter publish,$(MAKECMDGOALS)),$(ARGS)),)
$(error ARGS=$(ARGS): a published run is its profile's own. Change book/profiles/, or say make chapter)
endif
publish: chapter  ## execute one for the book and store it: make publish CHAPTER=01_autoencoders PROFILE=laptop
	$(BIN)/python -m lib.site.published publish $(CHAPTER) --profile $(PROFILE)

check-published: $(READY)  ## say which published runs are older than the code they show or use
	$(BIN)/python -m lib.site.published check

test: $(READY)  ## check mathematics, behaviour and style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python -m pytest

pages: $(READY)  ## check the built pages in a browser (Chromium or Chrome, if one is installed)
	$(BIN)/python -m pytest tests/browser

lab: $(READY)  ## edit the chapters in JupyterLab
	$(BIN)/jupyter lab book

clean:  ## forget what was made; the environment and your data stay
	rm -rf _build .snakemake

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed: say make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $(READY)
