# The two commands a newcomer needs: make demo, make test.
# The first of these that can make an environment; PYTHON=python3.13 chooses another.
PYTHONS := python3.11 python3.12 python3.13
ifndef PYTHON
PYTHON := $(shell for name in .venv/bin/python $(PYTHONS); do $$name -c "import ensurepip" 2> /dev/null && echo $$name && break; done)
endif
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help demo demo-full test test-unit test-workflow test-all test-rest test-rest-unit test-rest-workflow test-slurm bench lint config docs release lock clean

help:
	@echo "make demo       the whole study of simulated screens, then quality control of real fields, ending in reports"
	@echo "make demo-full  the same without the demo's reductions (hours on a laptop)"
	@echo "make test       style, prose, types, unit tests, the tiny study twice"
	@echo "make test-unit  the unit tests alone; make test-workflow those that run Snakemake"
	@echo "make test-all   the same, and tests that need a browser, a server, long workflows or many repeats"
	@echo "make test-slurm the tiny study on a real SLURM, with faults (root; Debian: slurm-wlm munge slurmdbd mariadb-server)"
	@echo "make bench      each stage's speed against the usual way, on this machine"
	@echo "make docs       the site of docs/, into site/index.html"
	@echo "make config     rules/config.schema.yaml and docs/config.md from the config's models and config.yaml"
	@echo "make release VERSION=0.2.0  commits and tags a version (CONTRIBUTING.md)"

# Everything is installed from one lock; solo-learn apart, because its metadata asks for torch 1.9.1.
.venv/installed: requirements.lock pyproject.toml
	@$(or $(PYTHON),false) -c "import ensurepip" 2> /dev/null \
	  || { echo "error: Python 3.11, 3.12 or 3.13 with venv is needed (Debian: apt install python3-venv make git)"; exit 1; }
	[ "$$(.venv/bin/python -V 2>&1)" = "$$($(PYTHON) -V)" ] || $(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps solo-learn==1.0.2
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

EXAMPLE := examples/bbbc022

demo: .venv/installed
	@echo "If anything stops the demo, run make demo again. If Snakemake itself was killed, run .venv/bin/snakemake --unlock first."
	snakemake --profile profiles/demo all qc
	snakemake qc --cores all --configfile $(EXAMPLE)/study.yaml
	snakemake qc --cores all --configfile $(EXAMPLE)/study.yaml $(EXAMPLE)/labelled.yaml
	@echo "The demo is done. Look at, in $(CURDIR):"
	@echo "  results/demo/report/index.html                        which encoder finds the aberrant cells"
	@echo "  results/demo/qc/sim022/report.html                    flags of a screen; also sim021, sim022_screen, sim022_next_month"
	@echo "  results/bbbc022/qc/bbbc022/report.html                flags of real fields, without labels"
	@echo "  results/bbbc022_labelled/qc/bbbc022/report.html       the same with labels"
	@echo "  results/demo/mlflow.html                              every run, while this runs:"
	@echo "  .venv/bin/mlflow ui --backend-store-uri sqlite:///results/demo/mlflow.db"

demo-full: .venv/installed
	snakemake all qc --profile profiles/demo --configfile profiles/demo/study.yaml profiles/demo/full.yaml
	@echo "The report:  $(CURDIR)/results/demo-full/report/index.html"

lint: .venv/installed
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	codespell
	python .github/prose.py
	mypy
	snakemake --lint --configfile profiles/demo/study.yaml

# What needs a browser, a server, long workflows or many repeats runs in test-all; tests on SLURM run in test-slurm.
QUICK := not browser and not server and not statistics and not long and not slurm
# Files that hold one of these marks: pytest need not import the others, 15 seconds, to find that they have none.
marked = $(shell grep -rlE '(mark\.|in_)($(1))' tests --include='test_*.py')
REST := browser|server|statistics|long

# Side by side: the workflow's tests leave half of two cores idle. Two threads of torch would wait for each other there.
test: lint
	@$(MAKE) --no-print-directory --jobs 2 --output-sync test-unit test-workflow

test-unit: .venv/installed
	OMP_NUM_THREADS=1 pytest -m "not dag and $(QUICK)"

test-workflow: .venv/installed
	pytest -m "dag and $(QUICK)" $(call marked,dag)

test-all: test
	@$(MAKE) --no-print-directory test-rest

test-rest:
	@$(MAKE) --no-print-directory --jobs 2 --output-sync test-rest-unit test-rest-workflow

test-rest-unit: .venv/installed
	pytest -m "(not dag or faults) and not slurm and not ($(QUICK))" $(call marked,$(REST))

test-rest-workflow: .venv/installed
	pytest -m "dag and not faults and not slurm and not ($(QUICK))" $(call marked,dag)

test-slurm: .venv/installed
	pytest -m slurm $(call marked,slurm)

bench: .venv/installed
	for name in crops shards recall memory pretrain features evaluation dag tracking qc; do python -m benchmarks.$$name || exit 1; done

config: .venv/installed
	python .github/config_reference.py

# Loads nothing from elsewhere: drawings stay text unless MERMAID=FILE names a copy of Mermaid's script.
docs: .venv/installed
	mkdocs build

# Checks, sets the version, moves the changelog's entries, commits and tags; pushes nothing.
release:
	@$(PYTHON) .github/release.py $(VERSION)

# Writes the lock again from pyproject.toml, without local version suffixes (+cpu) of one machine's torch. By the oldest
# Python, which is Debian 12's 3.11.2: some packages want 3.11.5.
lock:
	python3.11 -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --upgrade pip
	.venv-lock/bin/pip install --quiet --group dev $$(python3.11 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'])")
	.venv-lock/bin/pip list --format=freeze --exclude pip | grep -v '^nvidia-\|^cuda-\|^triton' | sed 's/+[a-z0-9.]*$$//' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf results .snakemake
