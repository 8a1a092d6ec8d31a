# The two commands a newcomer needs: make demo, make test.
PYTHON ?= python3.11
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help demo demo-full test test-fast test-slurm bench lint lock clean

help:
	@echo "make demo       the whole study and quality control of two simulated screens, ending in reports"
	@echo "make demo-full  the same without the demo's reductions (hours on a laptop)"
	@echo "make test       lint, unit tests, the tiny study twice"
	@echo "make test-slurm the tiny study on a real SLURM, with faults (root; Debian: slurm-wlm munge slurmdbd mariadb-server)"
	@echo "make bench      each stage's speed against the usual way, on this machine"

# Everything is installed from one lock; solo-learn apart, because its metadata asks for torch 1.9.1.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c "import ensurepip" || { echo "error: $(PYTHON) with venv is needed (Debian: apt install python3.11-venv make git)"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps solo-learn==1.0.2
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/installed
	snakemake --profile profiles/demo all qc
	@echo "The report:  $(CURDIR)/results/demo/report/index.html"
	@echo "The flags:   $(CURDIR)/results/demo/qc/sim022/report.html and sim021"
	@echo "Every run:   .venv/bin/mlflow ui --backend-store-uri sqlite:///results/demo/mlflow.db, then results/demo/mlflow.html"

demo-full: .venv/installed
	snakemake all qc --profile profiles/demo --configfile profiles/demo/study.yaml profiles/demo/full.yaml
	@echo "The report:  $(CURDIR)/results/demo-full/report/index.html"

lint: .venv/installed
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint --configfile profiles/demo/study.yaml

test: lint
	pytest -m "not slurm"

test-fast: .venv/installed
	pytest -m "not dag and not slurm"

test-slurm: .venv/installed
	pytest -m slurm

bench: .venv/installed
	for name in crops shards recall memory pretrain features evaluation dag tracking qc; do python -m benchmarks.$$name || exit 1; done

# Writes the lock anew from pyproject.toml, without local version suffixes (+cpu) of one machine's torch.
lock:
	python3.11 -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --upgrade pip
	.venv-lock/bin/pip install --quiet --group dev $$(python3.11 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'])")
	.venv-lock/bin/pip list --format=freeze --exclude pip | grep -v '^nvidia-\|^cuda-\|^triton' | sed 's/+[a-z0-9.]*$$//' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf results .snakemake
