"""The workflow itself shows stages; what Snakemake and jobs print goes to their logs."""

import pytest

from tests.conftest import Project

pytestmark = pytest.mark.dag
STUDY = ("--cores", "1", "--configfile", "tests/tiny/study.yaml")


def test_a_run_prints_stages_and_logs_the_rest(tmp_path):
    project = Project(tmp_path / "project")
    done = project.run("results/tiny/config.json", *STUDY, HCSQC_TERMINAL="")
    assert done.returncode == 0, done.stdout
    log, *others = (project.folder / ".snakemake/log").glob("*.log")
    lines = done.stdout.splitlines()[1:]  # the first names the profile
    assert lines[0] == "1 job in 1 stage" and lines[1].startswith("settings   ")
    assert lines[2:] == [lines[2], f"Snakemake's log: {log}"] and not others
    assert "rule save_config:" in log.read_text() and "Job stats:" in log.read_text()
    refused = project.run(*STUDY, "--config", "qc={limit: 3}", HCSQC_TERMINAL="")
    assert refused.returncode == 1
    [error] = refused.stdout.splitlines()[1:]
    assert error.startswith("error: config: qc: unknown key 'limit'; known: ")
