"""Ways to start the workflow: from elsewhere, as a module of another, without its environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project
from tests.snakemake_starts import start as start_snakemake

pytestmark = pytest.mark.dag
# Made by the first two jobs of a study; the second reads tables, which bare Pythons cannot.
TARGET = "results/tiny/screens/tiny022/1001.fields.parquet"
JOBS = ("simulate_plate", "index_plate")
BARE_PATH = os.defpath  # the system's own commands: /bin and /usr/bin
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
MODULE = """
module hcsqc:
    snakefile: {snakefile!r}
    config: config["quality"]


use rule * from hcsqc as hcsqc_*


rule all:
    default_target: True
    input:
        {target!r},
    output:
        "done.txt",
    shell:
        "touch {{output}}"
"""


@pytest.fixture
def elsewhere(tmp_path) -> Project:
    """A copy of the project in a folder whose name must be quoted."""
    return Project(tmp_path / "else where" / "hcsqc")


def start(work: Path, *words: object, **environment: str) -> subprocess.CompletedProcess:
    """Run Snakemake in a folder, with nothing of its environment on the PATH."""
    work.mkdir(parents=True, exist_ok=True)
    own = {"PATH": BARE_PATH, "MLFLOW_DISABLE_TELEMETRY": "true"}
    return start_snakemake(["--cores", "2", *words], work, os.environ | own | environment)


def test_the_path_of_these_tests_lacks_what_the_jobs_need():
    """Or they could not fail: jobs once started whatever Python the PATH had."""
    for name in ("python", "python3"):
        found = shutil.which(name, path=BARE_PATH)
        if found:
            done = subprocess.run([found, "-c", "import snakemake"], capture_output=True)
            assert done.returncode != 0


def test_snakemake_runs_where_the_project_does_not_lie(elsewhere, tmp_path):
    work = tmp_path / "my work"
    study = elsewhere.folder / "tests/tiny/study.yaml"
    words = ("-s", elsewhere.folder / "Snakefile", "-d", work, "--configfile", study)
    done = start(tmp_path / "third", TARGET, *words)
    assert done.returncode == 0, done.stdout
    assert (work / TARGET).is_file()
    assert not (elsewhere.folder / "results").exists()
    assert not (tmp_path / "third" / "results").exists()
    assert "Nothing to be done" in start(tmp_path / "third", TARGET, *words).stdout


def test_another_workflow_imports_it_as_a_module(elsewhere, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    snakefile = str(elsewhere.folder / "Snakefile")
    (work / "Snakefile").write_text(MODULE.format(snakefile=snakefile, target=TARGET))
    study = (ROOT / "tests/tiny/study.yaml").read_text()
    # Only what differs from config.yaml, below a key of the importing workflow.
    indented = "".join(f"  {line}\n" for line in study.splitlines())
    (work / "study.yaml").write_text(f"quality:\n{indented}")
    done = start(work, "--configfile", "study.yaml", "--printshellcmds")
    assert done.returncode == 0, done.stdout
    assert (work / TARGET).is_file() and (work / "done.txt").is_file()
    assert all(f"rule hcsqc_{job}:" in done.stdout for job in JOBS), done.stdout
    assert "localrules directive specifies rules that are not" not in done.stdout
    assert "Nothing to be done" in start(work, "--configfile", "study.yaml").stdout


def test_a_module_that_is_given_a_wrong_config_says_so(elsewhere, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    snakefile = str(elsewhere.folder / "Snakefile")
    (work / "Snakefile").write_text(MODULE.format(snakefile=snakefile, target=TARGET))
    done = start(work, "--config", "quality={study: {nmae: tiny}}")
    assert done.returncode != 0
    assert "nmae" in done.stdout and "Traceback" not in done.stdout


def test_a_project_in_a_folder_with_braces_is_refused_in_one_line(tmp_path):
    braced = Project(tmp_path / "a{b}")
    done = start(braced.folder, "-n", "--configfile", "tests/tiny/study.yaml")
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "a{b}: braces in the name of the project's folder" in done.stdout


def test_a_study_that_cannot_be_read_is_one_line(elsewhere, tmp_path):
    """Snakemake reads it before the Snakefile; its own profile is read before that."""
    work, utf16 = tmp_path / "work", tmp_path / "utf16.yaml"
    utf16.write_text("study: {}", encoding="utf-16")
    good = elsewhere.folder / "tests/tiny/study.yaml"
    for bad, said in ((utf16, "is in UTF-16"), (tmp_path, "is a folder"), ("no.yaml", "no such")):
        words = ("-s", elsewhere.folder / "Snakefile", TARGET, "--configfile", good, bad)
        done = start(work, *words)
        assert done.returncode != 0 and "Traceback" not in done.stdout
        assert f"error: {bad}: {said}" in done.stdout.splitlines()[-1]
    assert not (work / ".snakemake").exists()


def test_the_check_of_a_studys_file_leaves_no_other_copy_of_the_library(elsewhere, tmp_path):
    """The check runs by the installed copy; the workflow runs by the copy beside its Snakefile."""
    module = elsewhere.folder / "scripts/hcsqc/core/config.py"
    module.write_text(f"{module.read_text()}\nprint('the copy beside the Snakefile')\n")
    words = ("-s", elsewhere.folder / "Snakefile", "-n", TARGET, "--configfile")
    done = start(tmp_path / "work", *words, elsewhere.folder / "tests/tiny/study.yaml")
    assert done.returncode == 0 and "the copy beside the Snakefile" in done.stdout


def test_a_detector_of_others_runs_no_code_that_the_config_does_not_name(elsewhere, tmp_path):
    (elsewhere.folder / "my_nets.py").write_text("")
    listed = tmp_path / "listed.smk"
    listed.write_text(
        f"include: {str(elsewhere.folder / 'Snakefile')!r}\n"
        "print('named:', os.environ['HCSQC_NETWORKS'])\n"
    )
    (tmp_path / "own.yaml").write_text(
        "encoders: {mine: {kind: transfer, module: 'my_nets:make', input_px: 32}}\n"
    )
    study = elsewhere.folder / "tests/tiny/study.yaml"
    words = ("-s", listed, "-n", TARGET, "--configfile", study, tmp_path / "own.yaml")
    assert "named: my_nets:make\n" in start(tmp_path / "work", *words).stdout


def test_snakemake_needs_no_activated_environment(elsewhere):
    words = (TARGET, "--cores", "2", "--configfile", "tests/tiny/study.yaml")
    done = subprocess.run(
        [SNAKEMAKE, *words],
        cwd=elsewhere.folder,
        env=os.environ | {"PATH": BARE_PATH, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert (elsewhere.folder / TARGET).is_file()


def test_a_project_that_moves_runs_nothing_again(elsewhere, tmp_path):
    words = (TARGET, "--configfile", "tests/tiny/study.yaml")
    assert start(elsewhere.folder, *words).returncode == 0
    moved = tmp_path / "moved"
    elsewhere.folder.rename(moved)
    assert "Nothing to be done" in start(moved, *words).stdout


def test_jobs_run_the_code_beside_the_snakefile_whatever_is_installed(elsewhere):
    """The tests' environment has the library of another copy of the project installed."""
    script = elsewhere.folder / "scripts/hcsqc/screens/layouts/__init__.py"
    script.write_text('raise SystemExit("the code of the copy")\n')
    done = start(elsewhere.folder, TARGET, "--configfile", "tests/tiny/study.yaml")
    assert done.returncode != 0 and "the code of the copy" in done.stdout


def test_the_library_imports_in_a_notebook_anywhere(tmp_path):
    code = "from hcsqc.qc.profiles import with_flags; print(with_flags.__module__)"
    clean = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert done.stdout == "hcsqc.qc.profiles\n", done.stderr
