"""Files after --configfile: which they are, and what is said of one that cannot be read."""

from pathlib import Path

import pytest

from hcsqc.core.errors import InputError
from hcsqc.terminal.given_files import check_config_file, given_files
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("qc --cores 2 --configfile a.yaml b.yaml --config x=1", ["a.yaml", "b.yaml"]),
        ("--configfile=a.yaml qc", ["a.yaml"]),
        ("--configfiles a.yaml --configfile b.yaml -n", ["a.yaml", "b.yaml"]),
        ("--config configfile=a.yaml", []),
        ("qc --cores all", []),
    ],
)
def test_the_files_are_those_after_the_flag(words, found):
    assert given_files(words.split()) == [Path(name) for name in found]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("study: {}".encode("utf-16"), "is in UTF-16; save it as UTF-8"),
        ("study: {}".encode("utf-16-le"), "is not YAML (unacceptable character #x0000"),
        ("a: 1\nname: M\xfcller".encode("latin-1"), "is not in UTF-8 (line 2); save it as UTF-8"),
        (b"study:\n\tname: x", "line 2, column 1: found character '\\t'"),
        (b"study: {name: x\nscreens: 1", "line 2, column 8: expected ',' or '}'"),
        (b"a: b: c", "line 1, column 5: mapping values are not allowed here"),
        (b"a: *b", "line 1, column 4: found undefined alias 'b'"),
        (b"", "has no keys"),
        (b"- a\n- b", "has no keys"),
        (b"# a comment", "has no keys"),
        (None, "is a folder; name a file after --configfile"),
    ],
)
def test_a_file_that_snakemake_could_not_read_is_one_line(tmp_path, content, said):
    path = tmp_path / "study.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        check_config_file(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: {said}") and "\n" not in text


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="a.yaml: no such file; correct the name after"):
        check_config_file(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "content",
    [
        b'{"study": {"name": "x"}}',
        b'{\n\t"study": {}}',  # JSON may be indented by tabs
        b"\xef\xbb\xbfstudy: {}",  # Windows' editors mark UTF-8
        b"study: &a {name: x}\nother: *a",
        b"__use_yte__: true\n?if True:\n  study: {}",
    ],
)
def test_what_snakemake_can_read_passes(tmp_path, content):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    check_config_file(path)


def test_the_projects_own_studies_pass():
    studies = [*ROOT.glob("profiles/*/*.yaml"), *ROOT.glob("examples/*/*.yaml")]
    assert len(studies) > 5
    for study in studies:
        check_config_file(study)
