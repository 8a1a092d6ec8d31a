"""What tests of the workflow share: a copy of the project to run Snakemake in."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.snakemake_starts import start

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples/bbbc022"  # eight real fields, with labels
PARTS = (
    "Snakefile",
    "config.yaml",
    "rules",
    "scripts",
    "envs",
    "docs",
    "profiles",
    "tests/tiny",
    "tests/cluster",
)

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def in_browser(test):
    """Mark a test that opens a page in Chromium."""
    missing = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
    return pytest.mark.browser(missing(test))


# Marks by which the Makefile chooses files.
CHOOSING = {"dag", "slurm", "browser", "server", "statistics", "long"}


def pytest_collection_modifyitems(items):
    """Refuse a test whose mark does not stand in its file, where the Makefile looks for it."""
    for item in items:
        for mark in CHOOSING & {mark.name for mark in item.iter_markers()}:
            if not re.search(rf"(mark\.|in_){mark}", _text(item.path)):
                raise pytest.UsageError(f"{item.nodeid}: write mark.{mark} into its own file")


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the tests of a module that open pages in it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


# Each start of Snakemake asks SLURM for its settings: nine seconds where it is there but stopped.
os.environ.setdefault("SLURM_CONF", os.devnull)
# Tests read Snakemake's own lines, and what jobs print among them.
os.environ.setdefault("HCSQC_TERMINAL", "snakemake")


class Project:
    """A copy of the project in a folder of its own, where Snakemake may run and code may change."""

    def __init__(self, folder: Path, of: "Project | None" = None):
        """Copy the checkout, or another project with all of its results; or take what is there."""
        self.folder = folder
        if (folder / "Snakefile").exists():
            return
        if of:
            shutil.copytree(of.folder, folder, symlinks=True)
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "examples").symlink_to(ROOT / "examples")
        for part in PARTS:
            source, target = ROOT / part, folder / part
            if source.is_dir():
                # With bytecode and parsed digests, which are checked against the files; not with
                # what other tests are writing just then.
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*", "*.tmp"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess:
        """Run Snakemake with the tests' Python first on the path; return what it printed."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
        return start(words, self.folder, os.environ | own | environment)

    def study(self, *words: str) -> subprocess.CompletedProcess:
        """Run the tiny study; its jobs are so small that most of them is starting Python."""
        how = ("--cores", "2", "--max-threads", "1", "--configfile", "tests/tiny/study.yaml")
        return self.run(*how, *words)

    def planned(self, *words: str) -> dict[str, int]:
        """Return the rules that a dry run of the tiny study would run, with the number of jobs."""
        done = self.study("--dry-run", *words)
        assert done.returncode == 0, done.stdout
        if "Nothing to be done" in done.stdout:
            return {}
        table = done.stdout.split("Job stats:")[1].split("\n\n")[0]
        rows = [line.split() for line in table.splitlines()[3:] if line.strip()]
        return {name: int(count) for name, count in rows if name not in ("total", "all")}


def results(project: Project) -> Path:
    """Return the folder of the tiny study's results."""
    return project.folder / "results" / "tiny"


def edit(project: Project, path: str, old: str, new: str) -> None:
    """Replace a text in a file of the project."""
    file = project.folder / path
    text = file.read_text()
    assert old in text, f"{path} no longer holds {old!r}"
    file.write_text(text.replace(old, new, 1))


def study_with(project: Project, **changes) -> None:
    """Merge changes into the tiny study's file, section by section."""
    path = project.folder / "tests/tiny/study.yaml"
    study = yaml.safe_load(path.read_text())
    for section, values in changes.items():
        study.setdefault(section, {}).update(values)
    path.write_text(yaml.safe_dump(study))


@pytest.fixture(scope="session")
def studies(tmp_path_factory) -> Path:
    """The folder of finished studies; several runs of pytest share that of HCSQC_STUDIES."""
    given = os.environ.get("HCSQC_STUDIES")
    return Path(given) if given else tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="session")
def tiny(studies) -> Project:
    """The tiny study, run once to its end; tests that change the project copy it."""
    project = Project(studies / "tiny")
    done = project.study()
    assert done.returncode == 0, done.stdout[-6000:]
    return project


@pytest.fixture
def changed(tiny, tmp_path) -> Project:
    """A copy of the finished tiny study, to change."""
    return Project(tmp_path / "project", of=tiny)
