# Two commands do everything:  make report   make test
#   make report NAME=mine PROFILE=folder DATA=path/to/folder     any dataset folder in the BSD10k layout
#   make env · make lab · make lint · make clean-run NAME=…

SHELL := /bin/bash
PROFILE ?= demo
NAME ?= $(PROFILE)
DATA ?=
PYTHON ?= python3

VENV := .venv
HAC := $(VENV)/bin/hac
RUN := runs/$(NAME)
M := $(RUN)/manifests
OPTIONS := --profile '$(PROFILE)' --name '$(NAME)' $(if $(DATA),--data '$(DATA)')
PACKAGE := $(wildcard hac_utils/*.py) configs/$(PROFILE).yaml
NOTEBOOKS := 01_extraction 02_heads 03_fine_tuning 04_pseudo_labels 05_ensemble 06_label_ambiguity 07_ablations
STAMP := $(VENV)/.installed

.PHONY: report env test lab lint strip browser clean-run FORCE
.DELETE_ON_ERROR:

report: $(RUN)/report.html
	@echo "open $(RUN)/report.html; figures in figures/$(NAME), tables and submissions in $(RUN)"

$(RUN)/report.html: $(NOTEBOOKS:%=$(M)/%.json) hac_utils/assets/report.html.j2 hac_utils/assets/report.css
	@$(HAC) report $(OPTIONS)

# the DAG; runner.NOTEBOOKS holds the same arrows
$(M)/02_heads.json: $(M)/01_extraction.json
$(M)/03_fine_tuning.json: $(M)/01_extraction.json
$(M)/04_pseudo_labels.json: $(M)/02_heads.json $(M)/03_fine_tuning.json
$(M)/05_ensemble.json: $(M)/04_pseudo_labels.json
$(M)/06_label_ambiguity.json: $(M)/05_ensemble.json
$(M)/07_ablations.json: $(M)/02_heads.json

$(NOTEBOOKS:%=$(M)/%.json): $(M)/%.json: notebooks/%.ipynb $(PACKAGE) $(RUN)/inputs.json
	@$(HAC) run $* $(OPTIONS)

# rewritten only when the profile, DATA, its table or its sounds changed
$(RUN)/inputs.json: FORCE $(STAMP)
	@$(HAC) inputs $(OPTIONS)
FORCE:

env: $(STAMP)

# torch first and alone: on a machine whose registry has no "+cpu" build, it comes from PyTorch's own index
TORCH = $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else "error: Python 3.11 or 3.12 is needed, this is " + sys.version.split()[0] + "\nfix:   make $(MAKECMDGOALS) PYTHON=python3.11")'
	@echo "installing the environment into $(VENV) (once, about 2-4 minutes)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install -qq --no-deps '$(TORCH)' 2>/dev/null \
	  || $(VENV)/bin/python -m pip install -qq --no-deps '$(TORCH)' --index-url https://download.pytorch.org/whl/cpu
	@$(VENV)/bin/python -m pip install -qq --no-deps -r requirements.lock
	@$(VENV)/bin/python -m pip install -qq --no-deps -e .
	@$(VENV)/bin/python -m pip check
	@touch $@

test: $(STAMP) browser
	$(VENV)/bin/python -m pytest -n 2 --dist loadgroup $(PYTEST)

# the HTML tests open a real Chromium
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Chromium for the browser tests"; \
	    apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q chromium >/dev/null; \
	  else echo "no Chromium found: the browser tests will be skipped (they fail when CI is set); install it with: sudo apt-get install chromium"; fi; }

lab: $(STAMP)
	$(VENV)/bin/jupyter lab notebooks

lint: $(STAMP)
	$(VENV)/bin/ruff check hac_utils tests

# notebooks are committed without outputs
strip: $(STAMP)
	$(VENV)/bin/nbstripout --extra-keys "metadata.papermill cell.metadata.papermill metadata.kernelspec metadata.language_info" --drop-tagged-cells injected-parameters notebooks/*.ipynb

clean-run:
	rm -rf -- '$(RUN)' 'figures/$(NAME)'
