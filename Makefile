# The commands of the study; `make help` lists them.
#
# Settings, on the command line or in the environment:
#   STUDY    sample or full; by default full where data/chest_xray holds a data set
#   PYTHON   the Python that .venv is made from (3.11 to 3.13)
#   VENV     another environment to use, such as VENV="$CONDA_PREFIX"
#   JOBS     notebooks that run side by side: 2 for the sample where there is room, 1 otherwise
#   PRECISION  of the frozen network on augmented copies: float32 (default), bfloat16, mixed_float16, auto
#   SOLUTIONS  1 fills the exercises of the notebooks in from exercises/solutions/ before they run
#   SCALE, POSITIVE  of a model of your own: range of its pixels (0..255, 0..1, -1..1), its class PNEUMONIA
#   GPU      1 has make setup install what TensorFlow needs of CUDA (Linux, a GPU of NVIDIA)
#   UV       installs what pip would, several times faster: uv of the PATH, else one that pip puts into VENV; UV= for pip
#   VERBOSE  1 shows TensorFlow's log too, and what pip installs
#   WORKERS  processes of this machine that share forward passes, trainings and heat maps; none by default
#   SCHEDULER  address of a Dask cluster that shares them instead, such as tcp://host:8786 (docs/scaling.md)
#   TEST_PROCESSES  processes that run the unit tests: 2 by default, each of up to 5 GB
#   DATA_DIR, RESULTS_DIR, FIGURES_DIR, ACTIVATION_CACHE_DIR, WEIGHTS_DIR  other folders for these

PYTHON ?= python3
VENV := $(or $(VENV),.venv)
VENV_PYTHON := $(VENV)/bin/python
RUN := $(VENV_PYTHON) -m
STUDY_RUN := $(RUN)$(if $(VERBOSE),, utils.tools.quiet)
INSTALLED := $(VENV)/.installed
CHECKS_INSTALLED := $(VENV)/.installed-checks
GPU_INSTALLED := $(VENV)/.installed-gpu
UV ?= $(or $(shell command -v uv 2>/dev/null),$(VENV)/bin/uv)
# The locks name all that is needed, with hashes, so nothing is left to be resolved.
PIP_INSTALL = $(RUN) pip install $(if $(VERBOSE),,-qq) --disable-pip-version-check --no-deps
UV_INSTALL = '$(UV)' pip install $(if $(VERBOSE),,-q) --python $(VENV_PYTHON) --no-deps
install = $(if $(UV),{ $(UV_INSTALL) $(1) || { echo "uv could not install that (see above): pip does" >&2; \
	$(PIP_INSTALL) $(1); }; },$(PIP_INSTALL) $(1))
install_lock = $(call install,--require-hashes --requirement $(1))

# Tests of one file share what they prepare, and stay together.
UNIT_TESTS = $(RUN) pytest --numprocesses $(or $(TEST_PROCESSES),2) --dist loadfile

DATA := $(or $(DATA_DIR),data)
RESULTS := $(or $(RESULTS_DIR),results)
FIGURES := $(or $(FIGURES_DIR),figures)
quoted = '$(subst ','\'',$(1))'
# make takes a space for the end of a path; these two are targets.
refuse_space = $(if $(word 2,$(2)),$(error $(1)='$(2)' has a space, and make cannot use it; name a \
	link without one: ln -s '$(2)' link, then $(1)=link))
$(call refuse_space,VENV,$(VENV))
$(call refuse_space,RESULTS_DIR,$(RESULTS))

# What people type reaches the commands through the environment: in a recipe's text, make and the
# shell would read the quotes and dollars of a path.
TYPED := IMAGES OUT MODEL SCALE POSITIVE PORT ARCHIVE SOURCE
MODEL_OPTIONS = $${MODEL:+--model="$$MODEL"} $${SCALE:+--scale="$$SCALE"} $${POSITIVE:+--positive="$$POSITIVE"}
define PASS
override $(1) := $$(value $(1))
export $(1)
endef
$(foreach name,$(TYPED),$(if $(value $(name)),$(eval $(call PASS,$(name)))))
# Said before anything is installed.
need = $(if $(filter $(1),$(MAKECMDGOALS)),$(if $($(2)),,$(error $(2)=$(3) is missing)))
$(call need,predict,IMAGES,folder)
$(call need,predict,OUT,file.csv)

REAL_DATA := $(shell [ -e $(call quoted,$(DATA)/chest_xray/source.json) ] || \
	[ -d $(call quoted,$(DATA)/chest_xray/train) ] && echo yes)
BENCH_STUDY := $(or $(STUDY),sample)
PREDICT_STUDY := $(or $(STUDY),full)
STUDY := $(or $(STUDY),$(if $(REAL_DATA),full,sample))
STUDY_FILE := studies/$(STUDY).yaml
STUDIES := $(basename $(notdir $(wildcard studies/*.yaml)))
$(if $(wildcard $(STUDY_FILE)),,$(error there is no study '$(STUDY)'; STUDY is one of: $(STUDIES)))
DATASET := $(shell sed -n 's/^dataset_name: *\([a-z_]*\).*/\1/p' $(STUDY_FILE))

ABOUT_phantoms := rendered phantoms, not patients (for those: make data, make all STUDY=full)
ABOUT_chest_xray := the data set in $(DATA)/chest_xray
BANNER := ===== STUDY = $(STUDY): $(ABOUT_$(DATASET)) =====

EXECUTED_DIR := $(RESULTS)/$(STUDY)/notebooks
EXERCISES := $(EXECUTED_DIR)/.exercises-$(if $(SOLUTIONS),solved,unanswered)
MODULES := .make/modules.mk

# One row per notebook: its name, what it reads of those before it, and the published files that it
# shows next to its own numbers. What `make all` runs, and when again, follows from these rows.
notebook = $(eval $(call ROW,$(strip $(1)),$(2),$(3)))
define ROW
NOTEBOOKS += $(1)
$(EXECUTED_DIR)/$(1).ipynb: $(foreach number,$(2),$(EXECUTED_DIR)/$(filter $(number)_%,$(NOTEBOOKS)).ipynb) \
	$(wildcard $(addprefix results/full/,$(call published,$(3))) $(if $(SOLUTIONS),exercises/solutions/$(1).md))
endef
# The full study's own notebooks write some of these files.
OWN = pixel_baselines.csv histories/% provenance/%
published = $(if $(filter full,$(STUDY)),$(filter-out $(OWN),$(1)),$(1))

NOTEBOOKS :=
$(call notebook, 01_data_exploration  ,       , pixel_baselines.csv)
$(call notebook, 02_augmentation      ,       ,)
$(call notebook, 03_vgg19_baseline    ,       , histories/vgg19.csv provenance/vgg19.json)
$(call notebook, 04_resnet50_training ,       , histories/resnet50.csv views_cost.csv)
$(call notebook, 05_evaluation        , 03 04 ,)
$(call notebook, 06_grad_cam          , 04    ,)
$(call notebook, 07_fine_tuning       , 04    ,)
$(call notebook, 08_architectures     , 07    ,)
$(call notebook, 09_outside_validation, 05 08 , round_two_metrics.json external_metrics.json)
$(call notebook, 10_operating_point   , 09    , round_two_metrics.json)
$(call notebook, 11_shortcuts         , 09    , ablation.csv ablation_criteria.csv two_sites/measures.csv two_sites/questions.csv)
$(call notebook, 12_trusting_heat_maps, 09    ,)
SOURCES := $(NOTEBOOKS:%=notebooks/%.ipynb)
EXECUTED := $(NOTEBOOKS:%=$(EXECUTED_DIR)/%.ipynb)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Commands do one thing after the other; notebooks that do not build on each other need not.
$(if $(filter executed,$(MAKECMDGOALS)),,$(eval .NOTPARALLEL:))
# Room for two: two cores, 8 GB of memory, and no GPU, whose memory the first would take alone.
ROOM = [ "$$(getconf _NPROCESSORS_ONLN)" -ge 2 ] && [ ! -e /dev/nvidiactl ] && [ "$$({ sysctl -n hw.memsize || \
	awk '/MemTotal/ {printf "%.0f", $$2 * 1024}' /proc/meminfo; } 2>/dev/null)" -ge 8000000000 ]
SIDE_BY_SIDE = $(or $(JOBS),$(if $(filter phantoms,$(DATASET)),$(shell $(ROOM) && echo 2 || echo 1),1))

COMMANDS := help setup all data lab predict demo check test site clean lint nbval cache cache-fill cache-clean
COMMANDS += screen chosen ablation two-sites explain release notebooks views-cost bench readme demo-picture lock
.PHONY: $(COMMANDS) announce executed
# What the last one waits for runs first: with two at a time, the others fill the gaps.
executed: $(if $(filter-out 1,$(SIDE_BY_SIDE)),$(lastword $(EXECUTED))) $(EXECUTED)
# Each installs the environment first, but `all` says before it which study it runs.
$(filter-out help clean all,$(COMMANDS)): $(INSTALLED)
check test lint nbval site lock demo-picture release: $(CHECKS_INSTALLED)

##@ Every day
help: ## List these commands
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile
setup: $(if $(GPU),$(GPU_INSTALLED)) ## Create .venv with the pinned packages, as other commands do; GPU=1 adds those of CUDA
all: announce $(INSTALLED) ## Run the study: notebooks 01-12, those whose inputs changed; SOLUTIONS=1 solves them
	@$(MAKE) --no-print-directory --jobs=$(SIDE_BY_SIDE) executed
	@echo "Study '$(STUDY)' is up to date"
	@$(RUN) utils.tools.findings --study $(STUDY)
data: ## Fetch the real data set: from Kaggle, or ARCHIVE=file.zip, or SOURCE=medmnist; external test: SOURCE=nih_adults
	@$(RUN) utils.data.download $${ARCHIVE:+--archive="$$ARCHIVE"} $${SOURCE:+--source="$$SOURCE"}
lab: ## Open the notebooks in JupyterLab
	@$(RUN) jupyterlab notebooks
predict: ## Score a folder: IMAGES=folder OUT=file.csv [MODEL=name or file] [EVALUATE=1] [PLAIN=1]
	@$(STUDY_RUN) utils.tools.predict --study $(PREDICT_STUDY) $(if $(EVALUATE),--evaluate) $(if $(PLAIN),--plain) --images="$$IMAGES" --out="$$OUT" $(MODEL_OPTIONS)
demo: ## Serve a page on 127.0.0.1 to try a model with one image: [MODEL=name or file] [PORT=8000]
	@$(STUDY_RUN) demo --study $(PREDICT_STUDY) $(MODEL_OPTIONS) $${PORT:+--port="$$PORT"}
check: lint ## Run the quick checks alone: ruff and the fast unit tests
	$(UNIT_TESTS) -m 'not slow'
test: lint ## Run every check: ruff, pytest, the sample study with its exercises solved, nbval
	$(UNIT_TESTS)
	$(MAKE) all STUDY=sample SOLUTIONS=1
	$(MAKE) nbval
site: ## Build the static site of README, notebooks and documents: build/site/index.html
	@$(STUDY_RUN) utils.tools.site build/site
clean: ## Remove what runs leave, but not data, cached activations, .venv and committed results
	rm -rf '$(RESULTS)/sample' $(call quoted,$(FIGURES)/sample) '$(RESULTS)'/*/notebooks '$(RESULTS)'/*/models
	rm -rf .make .pytest_cache .ruff_cache build docs/api *.egg-info notebooks/.ipynb_checkpoints
	find utils exercises demo tests -name __pycache__ -prune -exec rm -rf {} +

##@ Single checks, and the activations that are cached between runs
lint: ## Check code and its layout with ruff
	$(RUN) ruff check
	$(RUN) ruff format --check
# Results go to a scratch folder; 05 and 07 to 12 read the committed results of the full study, and
# fail where one of its tables does not belong to its inputs, instead of making it again. The tables
# that they show are compared with the committed ones. They run beside the others, of which 06 reads
# what 04 wrote.
ON_SAMPLE := $(filter $(addprefix notebooks/,01_% 02_% 03_% 04_% 06_%),$(SOURCES))
NBVAL = $(RUN) pytest --nbval --nbval-current-env --nbval-cell-timeout 1800 --timeout 0 --exitfirst
nbval: ## Run the committed notebooks again and compare their outputs
	@scratch="$$(mktemp -d)" && trap 'kill $$beside 2>/dev/null; rm -rf "$$scratch"' EXIT && trap 'exit 1' INT TERM && \
	mkdir "$$scratch/results" && cp -R results/full "$$scratch/results/" && \
	if tty <&2 >/dev/null; then export PROGRESS_STREAM="$$(tty <&2)"; fi && \
	export RESULTS_DIR="$$scratch/results" FIGURES_DIR="$$scratch/figures" REMAKE_TABLES=0 && \
	{ $(NBVAL) $(ON_SAMPLE) >"$$scratch/beside" 2>&1 & beside=$$!; } && \
	$(NBVAL) $(filter-out $(ON_SAMPLE),$(SOURCES)) && \
	{ wait $$beside; failed=$$?; cat "$$scratch/beside"; [ $$failed = 0 ]; } && \
	diff -r "$$scratch/results/full/tables" results/full/tables
cache: ## List the cached activations: size, age, and what can be deleted
	@$(STUDY_RUN) utils.training.activation_cache list
cache-fill: ## Compute activations ahead, WORKERS=4 at a time; BACKBONE=name, as in utils/models/catalogue.py
	@$(STUDY_RUN) utils.training.activation_cache fill --study $(STUDY) --backbone $(or $(BACKBONE),resnet50)
cache-clean: ## Remove the cached activations
	@$(RUN) utils.training.activation_cache clean

##@ Rebuild committed results: these take hours, or write into the repository
screen: ## Train candidates on held-out folds: CANDIDATES="..." FOLDS="..." SEEDS="..." WORKERS=4
	@$(STUDY_RUN) utils.selection.cross_validation --study $(STUDY) $(if $(CANDIDATES),--candidates $(CANDIDATES)) \
		$(if $(FOLDS),--folds $(FOLDS)) $(if $(SEEDS),--seeds $(SEEDS))
chosen: ## Rebuild round two of STUDY=full: six networks, their scores; ONLY=released trains one; ROUND=1 the first round's
	@$(STUDY_RUN) utils.selection.$(if $(filter 1,$(ROUND)),final_models,round_two) --study $(STUDY) $(if $(ONLY),--only $(ONLY))
ablation: ## Train and score the ablation of round two, after its scores are committed; resumable
	@$(STUDY_RUN) utils.selection.ablation --study $(STUDY)
two-sites: ## Run the experiment of docs/phantoms.md: films, networks, scores in results/full/two_sites; resumable
	@$(STUDY_RUN) utils.selection.two_sites
explain: ## Test heat maps of the single model: tables in results/STUDY/explanation, resumably
	@$(STUDY_RUN) utils.explanation.run --study $(STUDY)
release: ## Round the network that round two named, and release it in models/; only its ONNX file with ONNX=1, its guard with GUARD=1
	@$(STUDY_RUN) utils.tools.release --study $(STUDY) $(if $(ONNX),--onnx,$(if $(GUARD),--guard))
notebooks: ## Execute the notebooks with their own defaults and save them as committed
	@for notebook in $(SOURCES); do $(STUDY_RUN) utils.tools.execute "$$notebook" --save-committed || exit 1; done
views-cost: ## Measure what few cached augmented copies cost, versus a fresh copy every epoch
	@$(STUDY_RUN) utils.training.augmented_copies --study $(STUDY)
bench: ## Time this study and the usual loops; phantoms unless STUDY=full, N=500 images
	@$(STUDY_RUN) utils.benchmark.run --study $(BENCH_STUDY) --images $(or $(N),500)
readme: ## Write tables and numbers of documents from results/full
	@$(RUN) utils.tools.report && $(RUN) utils.tools.numbers
lock: ## Lock the packages of requirements*.txt and all that they need; UPGRADE=1 for their newest versions
	@$(LOCK) requirements.txt --output-file requirements.lock
	@$(LOCK) requirements-dev.txt --output-file requirements-dev.lock $(BESIDES)
	@echo 'tensorflow[and-cuda]' | $(LOCK) - --output-file requirements-gpu.lock $(BESIDES)
demo-picture: ## Draw the picture of the demo in docs/using.md; needs a Chromium browser
	@$(STUDY_RUN) demo.picture

# One version of each package for all Pythons and systems; the hashes are those of every file of it.
LOCK = UV_CUSTOM_COMPILE_COMMAND='make lock' $(RUN) uv pip compile --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-annotate --no-emit-index-url $(if $(UPGRADE),--upgrade)
BESIDES = --constraint requirements.lock \
	$$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock)

# The marker comes last: an interrupted installation is taken up again, not taken for done.
$(INSTALLED): requirements.lock pyproject.toml
	@$(VENV_PYTHON) -m pip --version >/dev/null 2>&1 || \
		{ $(call require_supported,$(PYTHON)) && $(PYTHON) -m venv '$(VENV)'; }
	@$(call require_supported,$(VENV_PYTHON))
	@[ '$(UV)' != '$(VENV)/bin/uv' ] || { mkdir -p .make && \
		sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.lock > .make/uv.lock && \
		$(PIP_INSTALL) --require-hashes --requirement .make/uv.lock || echo "pip could not install uv" >&2; }
	@echo "Setting up $(VENV) with $$($(VENV_PYTHON) --version): TensorFlow and what else the study needs"
	@echo "$(if $(UV),uv,pip) installs requirements.lock: 2 GB, once, in a few minutes"
	@$(call install_lock,requirements.lock)
	@$(call install,--no-build-isolation --editable .)
	@touch $@
	@echo "Set up: the commands of the study use $(VENV) from now on"
$(CHECKS_INSTALLED): requirements-dev.lock $(INSTALLED)
	@echo "$(if $(UV),uv,pip) installs requirements-dev.lock: what checks and the site need besides"
	@$(call install_lock,requirements-dev.lock)
	@touch $@

$(GPU_INSTALLED): requirements-gpu.lock $(INSTALLED)
	@[ "$$(uname)" = Linux ] || { echo "GPU=1 is for Linux: TensorFlow has no CUDA packages for $$(uname)" >&2; false; }
	@echo "$(if $(UV),uv,pip) installs requirements-gpu.lock: 3 GB, once; the driver of the GPU is not among it"
	@$(call install_lock,requirements-gpu.lock)
	@touch $@

require_supported = { $(1) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	{ echo "$(1) is not Python 3.11 to 3.13; name one, as in: make setup PYTHON=python3.12" >&2; false; }; }

announce:
	@if [ -t 1 ]; then printf '\033[1;7m%s\033[0m\n' '$(BANNER)'; else echo '$(BANNER)'; fi
	@[ '$(DATASET)$(REAL_DATA)' != chest_xray ] || \
		{ echo "$(DATA)/chest_xray holds no data set; fetch it with: make data" >&2; false; }

$(EXECUTED): $(EXECUTED_DIR)/%.ipynb: notebooks/%.ipynb $(STUDY_FILE) requirements.lock $(EXERCISES) \
		$(if $(filter chest_xray,$(DATASET)),$(wildcard $(DATA)/chest_xray/source.json)) | $(INSTALLED)
	@$(STUDY_RUN) utils.tools.execute notebooks/$*.ipynb --study $(STUDY) $(if $(SOLUTIONS),--solutions) --output $@

# How the exercises of these copies were left, by its name: switching SOLUTIONS on or off takes the
# other one away, and runs the notebooks again.
$(EXERCISES):
	@mkdir -p $(@D) && rm -f $(@D)/.exercises-* && touch $@

# The modules that each notebook imports, written down by reading them.
$(MODULES): $(wildcard notebooks/*.ipynb $(foreach folder,notebooks utils utils/* exercises,$(folder)/. $(folder)/*.py))
	@mkdir -p $(@D)
	@$(PYTHON) -m utils.tools.dependencies $(SOURCES) > $@
# An old and empty file stands in until it is written: make 3.81 complains of one that is not there.
$(if $(wildcard $(MODULES)),,$(shell mkdir -p '$(dir $(MODULES))' && touch -t 200001010000 '$(MODULES)'))
include $(MODULES)
