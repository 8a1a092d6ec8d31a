"""One set of pins: pyproject.toml, the lock and the conda environments say the same."""

import re
import tomllib

import pytest
import yaml

from tests.conftest import ROOT


def pins(lines) -> dict[str, str]:
    pairs = [line.split("==") for line in lines if "==" in line]
    return {name.lower().replace("_", "-"): version for name, version in pairs}


LOCK = pins((ROOT / "requirements.lock").read_text().splitlines())


def test_the_lock_holds_the_pins_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = pins(project["project"]["dependencies"]) | pins(project["dependency-groups"]["dev"])
    assert wanted.items() <= LOCK.items()


def test_the_lock_names_no_build_of_one_machine():
    assert not [version for version in LOCK.values() if "+" in version]


@pytest.mark.parametrize("name", ["core", "torch", "tracking"])
def test_conda_environments_have_the_lock_s_pins(name):
    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    packages = environment["dependencies"][-1]["pip"]
    assert len(pins(packages)) == len(packages)
    assert pins(packages).items() <= LOCK.items()


def test_the_pythons_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    bounds = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["project"]["requires-python"])
    oldest, beyond = map(int, bounds.groups())
    make = (ROOT / "Makefile").read_text()
    candidates = " ".join(f"python3.{minor}" for minor in range(oldest, beyond))
    assert f"PYTHONS := {candidates}\n" in make
    assert project["tool"]["ruff"]["target-version"] == f"py3{oldest}"
    for name in ("core", "torch", "tracking"):
        environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
        assert f"python=3.{oldest}" in environment["dependencies"]
    assert f"From: python:3.{oldest}-" in (ROOT / "envs/hcsqc.def").read_text()


def test_solo_learn_is_installed_alike_everywhere():
    command = "install --no-deps solo-learn==1.0.2"
    assert command in (ROOT / "envs/torch.post-deploy.sh").read_text()
    assert command.split("install ")[1] in (ROOT / "Makefile").read_text()
    assert command.split("install ")[1] in (ROOT / "envs/hcsqc.def").read_text()


def test_the_container_is_built_from_the_lock():
    definition = (ROOT / "envs/hcsqc.def").read_text()
    assert "requirements.lock /opt/requirements.lock" in definition
    assert "-r /opt/requirements.lock" in definition
