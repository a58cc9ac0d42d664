# The commands of the study; `make help` lists them.
#
# Settings, on the command line or in the environment:
#   STUDY    sample or full; by default full where data/chest_xray holds a data set
#   PYTHON   the Python that .venv is made from (3.11 to 3.13)
#   VENV     another environment to use, such as VENV="$CONDA_PREFIX"
#   PRECISION  of the frozen network on augmented views: float32 (default), bfloat16,
#              mixed_float16 or auto, which takes what the hardware has
#   STRATEGY   of training: one (default), mirrored or multiworker (see docs/scaling.md)
#   SOLUTIONS  1 fills the exercises of the notebooks in from exercises/solutions/ before they run
#   WORKERS  processes that run the unit tests: 2 by default, each of up to 5 GB
#   DATA_DIR, RESULTS_DIR, FIGURES_DIR, ACTIVATION_CACHE_DIR, WEIGHTS_DIR
#            other places for data, results and so on (see utils/common/paths.py)

PYTHON ?= python3
VENV := $(or $(VENV),.venv)
VENV_PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# Tests of one file share what they prepare, and stay together.
UNIT_TESTS = $(VENV_PYTHON) -m pytest --numprocesses $(or $(WORKERS),2) --dist loadfile

DATA := $(or $(DATA_DIR),data)
RESULTS := $(or $(RESULTS_DIR),results)
FIGURES := $(or $(FIGURES_DIR),figures)

REAL_DATA := $(shell [ -e '$(DATA)/chest_xray/source.json' ] || [ -d '$(DATA)/chest_xray/train' ] && echo yes)
BENCH_STUDY := $(or $(STUDY),sample)
PREDICT_STUDY := $(or $(STUDY),full)
STUDY := $(or $(STUDY),$(if $(REAL_DATA),full,sample))
STUDY_FILE := studies/$(STUDY).yaml
ifeq ($(wildcard $(STUDY_FILE)),)
$(error there is no study '$(STUDY)'; STUDY is one of: $(basename $(notdir $(wildcard studies/*.yaml))))
endif
DATASET := $(shell sed -n 's/^dataset_name: *\([a-z_]*\).*/\1/p' $(STUDY_FILE))

ABOUT_phantoms := rendered phantoms, not patients (for those: make data, make all STUDY=full)
ABOUT_chest_xray := the data set in $(DATA)/chest_xray
BANNER := ===== STUDY = $(STUDY): $(ABOUT_$(DATASET)) =====

EXECUTED_DIR := $(RESULTS)/$(STUDY)/notebooks
EXECUTED := $(addprefix $(EXECUTED_DIR)/, \
	01_data_exploration.ipynb 02_augmentation.ipynb 03_vgg19_baseline.ipynb \
	04_resnet50_training.ipynb 05_evaluation.ipynb 06_grad_cam.ipynb \
	07_fine_tuning.ipynb 08_architectures.ipynb 09_outside_validation.ipynb \
	10_trusting_heat_maps.ipynb)
EXERCISES := $(EXECUTED_DIR)/.exercises
WITH_SOLUTIONS := $(if $(SOLUTIONS),--solutions)
MODULES := .make/modules.mk

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Notebooks share the processor and build on each other's results: one at a time, in order.
.NOTPARALLEL:

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: $(INSTALLED) ## Create .venv and install the pinned packages (the other commands do so too)

# The marker comes last: an interrupted installation is taken up again, not taken for done.
$(INSTALLED): requirements.txt pyproject.toml
	@$(VENV_PYTHON) -m pip --version >/dev/null 2>&1 || \
		{ $(call require_supported,$(PYTHON)) && $(PYTHON) -m venv '$(VENV)'; }
	@$(call require_supported,$(VENV_PYTHON))
	$(VENV_PYTHON) -m pip install --requirement requirements.txt --editable .
	@touch $@

require_supported = { $(1) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	{ echo "$(1) is not Python 3.11 to 3.13; name one, as in: make setup PYTHON=python3.12" >&2; false; }; }

.PHONY: all
all: $(EXECUTED) ## Run the study: notebooks 01-10, those whose inputs changed; SOLUTIONS=1 solves them
	@echo "Study '$(STUDY)' is up to date: executed notebooks in $(EXECUTED_DIR)"

.PHONY: announce
announce:
	@if [ -t 1 ]; then printf '\033[1;7m%s\033[0m\n' '$(BANNER)'; else echo '$(BANNER)'; fi
ifeq ($(DATASET)-$(REAL_DATA),chest_xray-)
	@echo "$(DATA)/chest_xray holds no data set; fetch it with: make data" >&2; exit 1
endif

$(EXECUTED): $(EXECUTED_DIR)/%.ipynb: notebooks/%.ipynb $(STUDY_FILE) requirements.txt \
		$(if $(filter chest_xray,$(DATASET)),$(wildcard $(DATA)/chest_xray/source.json)) \
		$(EXERCISES) | announce $(INSTALLED)
	@$(VENV_PYTHON) -m utils.tools.execute $< --study $(STUDY) $(WITH_SOLUTIONS) --output $@

# How the exercises of these copies were left; written only where that changes, so that switching
# SOLUTIONS on or off runs the notebooks again, and nothing else does.
$(EXERCISES): always | announce
	@mkdir -p $(@D)
	@echo '$(or $(WITH_SOLUTIONS),unanswered)' | cmp -s - $@ || \
		echo '$(or $(WITH_SOLUTIONS),unanswered)' > $@

.PHONY: always
always:

ifneq ($(WITH_SOLUTIONS),)
$(patsubst exercises/solutions/%.md,$(EXECUTED_DIR)/%.ipynb,$(wildcard exercises/solutions/*.md)): \
	$(EXECUTED_DIR)/%.ipynb: exercises/solutions/%.md
endif

# What a notebook reads of those before it: predictions of both models, ResNet50 itself, held-out
# predictions of candidates, scores of pixel baselines, the choices, finished networks.
$(EXECUTED_DIR)/05_evaluation.ipynb: $(EXECUTED_DIR)/03_vgg19_baseline.ipynb
$(EXECUTED_DIR)/05_evaluation.ipynb: $(EXECUTED_DIR)/04_resnet50_training.ipynb
$(EXECUTED_DIR)/06_grad_cam.ipynb: $(EXECUTED_DIR)/04_resnet50_training.ipynb
$(EXECUTED_DIR)/07_fine_tuning.ipynb: $(EXECUTED_DIR)/04_resnet50_training.ipynb
$(EXECUTED_DIR)/08_architectures.ipynb: $(EXECUTED_DIR)/07_fine_tuning.ipynb
$(EXECUTED_DIR)/09_outside_validation.ipynb: $(EXECUTED_DIR)/05_evaluation.ipynb
$(EXECUTED_DIR)/09_outside_validation.ipynb: $(EXECUTED_DIR)/08_architectures.ipynb
$(EXECUTED_DIR)/10_trusting_heat_maps.ipynb: $(EXECUTED_DIR)/09_outside_validation.ipynb

# The published numbers that notebooks show beside their own, where these are others.
$(EXECUTED_DIR)/04_resnet50_training.ipynb: $(wildcard results/full/views_cost.csv)
ifneq ($(STUDY),full)
$(EXECUTED_DIR)/01_data_exploration.ipynb: $(wildcard results/full/pixel_baselines.csv)
$(EXECUTED_DIR)/03_vgg19_baseline.ipynb: \
	$(wildcard $(addprefix results/full/,histories/vgg19.csv provenance/vgg19.json))
$(EXECUTED_DIR)/04_resnet50_training.ipynb: $(wildcard results/full/histories/resnet50.csv)
endif

# And the modules that each notebook imports, written down by reading them.
$(MODULES): $(wildcard notebooks/. utils/. utils/*/. exercises/. \
		notebooks/*.ipynb utils/*.py utils/*/*.py exercises/*.py)
	@mkdir -p $(@D)
	@$(PYTHON) -m utils.tools.dependencies $(addprefix notebooks/,$(notdir $(EXECUTED))) > $@
include $(MODULES)

.PHONY: data
data: $(INSTALLED) ## Fetch the real data set: from Kaggle, or ARCHIVE=file.zip, or SOURCE=medmnist
	$(VENV_PYTHON) -m utils.data.download $(if $(ARCHIVE),--archive '$(ARCHIVE)') $(if $(SOURCE),--source $(SOURCE))

.PHONY: cache
cache: $(INSTALLED) ## List the cached activations: size, age, and what may go
	@$(VENV_PYTHON) -m utils.training.activation_cache list

.PHONY: cache-fill
cache-fill: $(INSTALLED) ## Compute activations ahead: all, or one part with SHARD=3/16; BACKBONE=resnet50|vgg19
	$(VENV_PYTHON) -m utils.training.activation_cache fill --study $(STUDY) --backbone $(or $(BACKBONE),resnet50) \
		--shard $(or $(SHARD),1/1)

.PHONY: cache-clean
cache-clean: $(INSTALLED) ## Remove the cached activations
	$(VENV_PYTHON) -m utils.training.activation_cache clean

.PHONY: predict
predict: $(INSTALLED) ## Score a folder: IMAGES=folder OUT=file.csv [MODEL=name] [EVALUATE=1]
	@$(VENV_PYTHON) -m utils.tools.predict --images '$(or $(IMAGES),$(error IMAGES=folder is missing))' \
		--out '$(or $(OUT),$(error OUT=file.csv is missing))' $(if $(MODEL),--model '$(MODEL)') \
		--study $(PREDICT_STUDY) $(if $(EVALUATE),--evaluate)

.PHONY: demo
demo: $(INSTALLED) ## Serve a page on 127.0.0.1 to try a model with one image: [MODEL=name] [PORT=8000]
	@$(VENV_PYTHON) -m demo --study $(PREDICT_STUDY) $(if $(MODEL),--model '$(MODEL)') \
		$(if $(PORT),--port '$(PORT)')

.PHONY: demo-picture
demo-picture: $(INSTALLED) ## Draw the picture of the demo in the README; needs a Chromium browser
	$(VENV_PYTHON) -m demo.picture

.PHONY: screen
screen: $(INSTALLED) ## Train candidates on held-out folds: CANDIDATES="..." FOLDS="..." SEEDS="..."
	$(VENV_PYTHON) -m utils.selection.cross_validation --study $(STUDY) $(if $(CANDIDATES),--candidates $(CANDIDATES)) \
		$(if $(FOLDS),--folds $(FOLDS)) $(if $(SEEDS),--seeds $(SEEDS))

.PHONY: explain
explain: $(INSTALLED) ## Test heat maps of the single model: tables in results/STUDY/explanation, resumably
	$(VENV_PYTHON) -m utils.explanation.run --study $(STUDY)

.PHONY: chosen
chosen: $(INSTALLED) ## Rebuild the chosen model of STUDY=full from the data alone
	$(VENV_PYTHON) -m utils.selection.final_models --study $(STUDY)

.PHONY: ship
ship: $(INSTALLED) ## Round a finished model and ship it in models/: CANDIDATE=name
	$(VENV_PYTHON) -m utils.tools.release --study $(STUDY) \
		--candidate '$(or $(CANDIDATE),$(error CANDIDATE=name is missing))'

.PHONY: test
test: lint ## Run every check: ruff, pytest, the sample study with its exercises solved, nbval
	$(UNIT_TESTS)
	$(MAKE) all STUDY=sample SOLUTIONS=1
	$(MAKE) nbval

.PHONY: check
check: lint ## Run the quick checks alone: ruff and the fast unit tests
	$(UNIT_TESTS) -m 'not slow'

.PHONY: lint
lint: $(INSTALLED) ## Check code and its layout with ruff
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check

# Results go to a scratch folder; 05 and 07 to 10 read the committed results of the full study.
.PHONY: nbval
nbval: $(INSTALLED) ## Run the committed notebooks again and compare their outputs
	@scratch="$$(mktemp -d)" && trap 'rm -rf "$$scratch"' EXIT && trap 'exit 1' INT TERM && \
	mkdir "$$scratch/results" && \
	if [ -d results/full ]; then cp -R results/full "$$scratch/results/"; fi && \
	if tty <&2 >/dev/null; then export PROGRESS_STREAM="$$(tty <&2)"; fi && \
	RESULTS_DIR="$$scratch/results" FIGURES_DIR="$$scratch/figures" \
	$(VENV_PYTHON) -m pytest $(addprefix notebooks/,$(notdir $(EXECUTED))) \
		--nbval --nbval-current-env --nbval-cell-timeout 1800 --timeout 0 --exitfirst

.PHONY: notebooks
notebooks: $(INSTALLED) ## Execute the notebooks with their own defaults and save them as committed
	@for notebook in $(notdir $(EXECUTED)); do \
		$(VENV_PYTHON) -m utils.tools.execute "notebooks/$$notebook" --save-committed || exit 1; \
	done

.PHONY: views-cost
views-cost: $(INSTALLED) ## Measure what few cached views cost against a fresh view every epoch
	$(VENV_PYTHON) -m utils.training.augmented_copies --study $(STUDY)

.PHONY: bench
bench: $(INSTALLED) ## Time this study against the usual loops; phantoms unless STUDY=full, N=500 images
	$(VENV_PYTHON) -m utils.benchmark.run --study $(BENCH_STUDY) --images $(or $(N),500)

.PHONY: readme
readme: $(INSTALLED) ## Write the README's tables from results/full
	$(VENV_PYTHON) -m utils.tools.report

.PHONY: site
site: $(INSTALLED) ## Build the static site of README, notebooks and documents: build/site/index.html
	@$(VENV_PYTHON) -m utils.tools.site build/site

.PHONY: lab
lab: $(INSTALLED) ## Open the notebooks in JupyterLab
	$(VENV_PYTHON) -m jupyterlab notebooks

.PHONY: clean
clean: ## Remove what runs leave, but not data, cached activations, .venv and committed results
	rm -rf '$(RESULTS)/sample' '$(FIGURES)/sample' '$(RESULTS)'/*/notebooks '$(RESULTS)'/*/models
	rm -rf .make .pytest_cache .ruff_cache build docs/api *.egg-info notebooks/.ipynb_checkpoints
	find utils exercises demo tests -name __pycache__ -prune -exec rm -rf {} +
