"""The workflow from a Git repository: deployed by snakedeploy, and imported by its address."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project
from tests.screens.image_server import files_app, serving

pytestmark = pytest.mark.dag
ADDRESS, TAG = "https://github.com/lab/hcsqc", "v0.1.0"
TARGET = "results/tiny/screens/tiny022/1001.fields.parquet"
STUDY = ROOT / "tests/tiny/study.yaml"
MODULE = """
configfile: {study!r}

module hcsqc:
    snakefile: {snakefile}
    config: config

use rule * from hcsqc
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A repository with a tag, of the project under test."""
    folder = Project(tmp_path_factory.mktemp("repository") / "hcsqc").folder
    author = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
    (folder / ".gitignore").write_text("__pycache__/\nexamples\n")
    for words in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "-qm", "All"]):
        subprocess.run(["git", "-C", folder, *words], check=True)
    subprocess.run(["git", "-C", folder, "tag", TAG], check=True)
    return folder


@pytest.fixture
def environment(repository, tmp_path) -> dict[str, str]:
    """The tests' Python first, a cache of its own, and the repository at its address."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
    }


def run(command: str, folder: Path, environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_commands_of_the_docs_deploy_a_study(repository, tmp_path, environment):
    blocks = re.split(r"\n(?! {4})", (ROOT / "docs/start.md").read_text())
    block = next(block for block in blocks if "snakedeploy deploy-workflow" in block)
    assert ADDRESS in block and TAG in block
    note = "# put your study into config/config.yaml"
    assert note in block
    done = run(block.replace(note, f"cp {STUDY} config/config.yaml"), tmp_path, environment)
    assert done.returncode == 0, done.stdout
    work = tmp_path / "my_work"
    assert "make_report" in done.stdout and not (work / "results").exists()
    # Snakemake's cache has it now: the address is no longer asked.
    gone = environment | {"GIT_CONFIG_KEY_0": "url.file:///gone.insteadOf"}
    done = run(f"snakemake {TARGET} --cores 2", work, gone)
    assert done.returncode == 0, done.stdout
    assert (work / TARGET).is_file()
    (checkout,) = (work / ".snakemake/hcsqc").iterdir()
    head = subprocess.check_output(["git", "-C", repository, "rev-parse", "HEAD"], text=True)
    record = (work / "results/tiny/runs/index/tiny022/1001/run.json").read_text()
    assert checkout.name == head.strip() and f'"commit": "{head.strip()}"' in record
    # As from a clone on this disk: the same code, wherever it lies, runs nothing again.
    (work / "workflow/Snakefile").write_text(
        MODULE.format(study="config/config.yaml", snakefile=repr(f"{repository}/Snakefile"))
    )
    done = run(f"snakemake {TARGET} --cores 2 --dry-run", work, environment)
    assert "Nothing to be done" in done.stdout


def test_an_address_without_the_scripts_is_refused_with_what_to_do(
    repository, tmp_path, environment
):
    with serving(files_app(repository)) as url:
        snakefile = repr(f"{url}/Snakefile")
        (tmp_path / "Snakefile").write_text(MODULE.format(study=str(STUDY), snakefile=snakefile))
        done = run("snakemake --cores 2 --dry-run", tmp_path, environment)
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert f"hcsqc cannot run from {url}" in done.stdout and "clone its repository" in done.stdout
