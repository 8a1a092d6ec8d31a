"""Command lines: settings as flags, errors as one line, a record of every run."""

import argparse
import errno
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hcsqc.core import cli
from hcsqc.core.digest import SCRIPTS
from hcsqc.core.errors import InputError

unhurried = hypothesis_settings(deadline=None)  # a busy machine is no failure


@dataclass(frozen=True)
class Settings:
    name: str
    count: int
    learning_rate: float
    milestones: tuple[int, ...]
    wells: tuple[str, ...]
    is_frozen: bool


def parse(*words: str) -> Settings:
    parser = argparse.ArgumentParser()
    cli.add_settings(parser, Settings)
    return cli.settings_from(parser.parse_args(words), Settings)


GIVEN = {
    "name": "swav",
    "count": 3,
    "learning_rate": 1e-05,
    "milestones": [40, 70],
    "wells": ["B02", "C03"],
    "is_frozen": True,
}
names = st.text("abcXYZ019 ._'\"$", min_size=1, max_size=8)
texts = st.text("abcXYZ019 ._'\"$-={}\n", min_size=1, max_size=8)


@unhurried
@given(
    st.fixed_dictionaries(
        {
            "name": texts.filter(lambda text: text != "--"),  # which argparse drops
            "count": st.integers(0, 10**9),
            "learning_rate": st.floats(0, 1e6),
            "milestones": st.lists(st.integers(0, 1000), max_size=4),
            "wells": st.lists(names, max_size=3),
            "is_frozen": st.booleans(),
        }
    )
)
def test_what_the_rules_write_as_flags_the_scripts_read_back(values):
    read = parse(*shlex.split(cli.flags(values)))
    expected = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    assert read == Settings(**expected)


def test_types_come_from_the_dataclass():
    read = parse(*shlex.split(cli.flags(GIVEN)))
    assert read == Settings("swav", 3, 1e-5, (40, 70), ("B02", "C03"), True)
    assert [type(value) for value in (read.count, read.learning_rate, read.is_frozen)] == [
        int,
        float,
        bool,
    ]


@pytest.mark.parametrize("missing", GIVEN)
def test_every_setting_must_be_given(missing, capsys):
    kept = {name: value for name, value in GIVEN.items() if name != missing}
    with pytest.raises(SystemExit) as caught:
        parse(*shlex.split(cli.flags(kept)))
    assert caught.value.code == 2
    assert f"required: --{missing.replace('_', '-')}" in capsys.readouterr().err


def test_a_setting_with_a_default_may_be_absent():
    @dataclass(frozen=True)
    class Lamp:
        seed: int
        light: float = 1.0

    parser = argparse.ArgumentParser()
    cli.add_settings(parser, Lamp)
    for words, expected in (("--seed 3", Lamp(3)), ("--seed 3 --light 0.9", Lamp(3, 0.9))):
        assert cli.settings_from(parser.parse_args(words.split()), Lamp) == expected


@pytest.mark.parametrize(
    ("name", "wrong", "expected"),
    [
        ("is_frozen", "yes", "'yes' is neither true nor false"),
        ("count", "2.5", "invalid int value: '2.5'"),
        ("learning_rate", "fast", "invalid float value: 'fast'"),
        ("learning_rate", "nan", "'nan' is not a finite number"),
        ("learning_rate", "inf", "'inf' is not a finite number"),
        ("milestones", ["40", "x"], "invalid int value: 'x'"),
    ],
)
def test_a_wrong_value_is_named(name, wrong, expected, capsys):
    with pytest.raises(SystemExit):
        parse(*shlex.split(cli.flags(GIVEN | {name: wrong})))
    assert expected in capsys.readouterr().err


def run(job, tmp_path, monkeypatch, **arguments) -> Path:
    """Run a job as a script's main() does; return where its record goes."""
    monkeypatch.setattr("sys.argv", [str(SCRIPTS / "report" / "save_config.py")])
    path = tmp_path / "runs" / "config" / "run.json"
    cli.run(job, argparse.Namespace(record=path, **arguments))
    return path


def raise_(error: BaseException):
    def job(args, record):
        raise error

    return job


def test_bad_input_is_one_line_and_exit_status_1_and_a_failed_record(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        run(raise_(InputError("labels/alice.csv: no column 'well'")), tmp_path, monkeypatch)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: labels/alice.csv: no column 'well'\n"
    folder = tmp_path / "runs" / "config"
    assert [path.name for path in folder.iterdir()] == ["failed.json"]
    record = json.loads((folder / "failed.json").read_text())
    assert (record["status"], record["key"]) == ("FAILED", "config")
    assert "no column 'well'" in record["error"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; make room on its disk"),
        (errno.EDQUOT, "make room on its disk, or raise the quota"),
        (errno.EACCES, "Permission denied; give this user permission to read"),
        (errno.EROFS, "Read-only file system; its disk is mounted read-only"),
        (errno.ESTALE, "run the same command again"),
    ],
)
@pytest.mark.parametrize("name", ["/data/a.tif", None])
def test_what_the_machine_refuses_is_one_line_with_file_and_remedy(
    number, remedy, name, tmp_path, monkeypatch, capsys
):
    with pytest.raises(SystemExit) as caught:
        run(raise_(OSError(number, "refused", name)), tmp_path, monkeypatch)
    assert caught.value.code == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {name or 'a file of this job'}: ") and remedy in printed
    assert printed.count("\n") == 1
    record = json.loads((tmp_path / "runs/config/failed.json").read_text())
    assert record["error"].startswith("Traceback"), "a person who looks finds where it was"


def test_a_record_that_cannot_be_written_is_one_line_too(tmp_path, monkeypatch, capsys):
    def refused(record):
        raise OSError(errno.EROFS, "", "run.json")

    monkeypatch.setattr(cli.Record, "__enter__", refused)
    with pytest.raises(SystemExit):
        run(lambda args, record: None, tmp_path, monkeypatch)
    assert capsys.readouterr().err.startswith("error: run.json: Read-only file system; ")


def test_an_error_of_a_file_that_is_a_defect_keeps_its_traceback(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        run(raise_(FileNotFoundError(errno.ENOENT, "", "x")), tmp_path, monkeypatch)


def test_a_script_of_another_copy_of_the_project_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [str(tmp_path / "scripts" / "report" / "save_config.py")])
    with pytest.raises(SystemExit):
        cli.run(raise_(AssertionError()), argparse.Namespace(record=tmp_path / "run.json"))
    printed = capsys.readouterr().err
    assert "not of the same copy of the project; start it by the run.sh" in printed


def test_a_defect_keeps_its_traceback_and_leaves_a_failed_record(tmp_path, monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run(lambda args, record: 1 / 0, tmp_path, monkeypatch)
    record = json.loads((tmp_path / "runs" / "config" / "failed.json").read_text())
    assert record["error"].endswith("ZeroDivisionError: division by zero\n")


def test_an_interrupted_run_leaves_no_record(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(raise_(KeyboardInterrupt()), tmp_path, monkeypatch)
    assert not list(tmp_path.rglob("*.json"))


def test_a_run_is_given_its_arguments_and_a_record(tmp_path, monkeypatch):
    def job(args, record):
        record.metrics = {"width": args.count * 2}

    path = run(job, tmp_path, monkeypatch, count=4)
    record = json.loads(path.read_text())
    assert record["metrics"] == {"width": 8}
    assert record["parameters"] == {"count": 4}
    assert record["script"] == "report/save_config.py"


def test_a_script_must_be_told_where_to_write_its_record(capsys):
    with pytest.raises(SystemExit):
        cli.parser("About.").parse_args([])
    assert "required: --record" in capsys.readouterr().err


def test_only_scripts_that_use_threads_have_the_flag(capsys):
    assert cli.parser("", threads=True).parse_args(["--record", "r"]).threads == 1
    with pytest.raises(SystemExit):
        cli.parser("").parse_args(["--record", "r", "--threads", "2"])
