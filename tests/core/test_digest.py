"""Digests of code: what must change them, and what must not."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from hcsqc.core import digest
from hcsqc.core.digest import code_digest
from hcsqc.core.errors import InputError
from hcsqc.pretraining.digest import pretraining_digest
from hcsqc.pretraining.methods import METHODS

PROBE = "probes/probe_features.py"
KNN = "hcsqc/probes/frozen/knn.py"


@pytest.fixture(scope="module")
def parsed(tmp_path_factory) -> Path:
    """Return a copy of the project's scripts, with what `code_digest` remembers of them."""
    copied = tmp_path_factory.mktemp("parsed") / "scripts"
    shutil.copytree(digest.SCRIPTS, copied, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "SCRIPTS", copied)
        forget()
        for script in copied.glob("[!h]*/*.py"):
            code_digest(script.relative_to(copied))
        assert digest._kept().is_relative_to(copied) and digest._kept().exists()
    forget()
    return copied


@pytest.fixture
def scripts(parsed, tmp_path, monkeypatch) -> Path:
    """Return a copy of the project's scripts that `code_digest` looks at."""
    copied = tmp_path / "scripts"
    shutil.copytree(parsed, copied)
    monkeypatch.setattr(digest, "SCRIPTS", copied)
    forget()
    yield copied
    forget()


def knn_digest(without=()) -> str:
    return code_digest(PROBE, KNN, without)


def forget() -> None:
    for kept in (digest._module, digest._files, digest._known):
        kept.cache_clear()


def after(path: Path, edit, script: str | None = None, without=()) -> tuple[str, str]:
    """Return the digest of a script before and after an edit of a file's text."""
    before = code_digest(script) if script else knn_digest(without)
    text = path.read_text(encoding="utf-8")
    changed = edit(text)
    assert changed != text, "the edit must find its place"
    path.write_text(changed, encoding="utf-8")
    forget()
    return before, code_digest(script) if script else knn_digest(without)


def rename_variable(text: str) -> str:
    return text.replace("neighbours = min(", "neighbours = max(")


def test_it_is_the_same_each_time_and_in_each_folder(scripts):
    original = digest.SCRIPTS
    first = knn_digest()
    assert len(first) == 16 and int(first, 16) >= 0
    shutil.move(original, original.with_name("elsewhere"))
    digest.SCRIPTS = original.with_name("elsewhere")
    forget()
    assert knn_digest() == first


def test_it_is_the_same_in_every_version_of_python(scripts):
    # What differs: fields of definitions, nested formats, and which characters are known.
    (scripts / "one.py").write_text(
        'class One:\n    """A class."""\n\n\n'
        'def two(a, /, *b, c=None):\n    return f"{a:<{c}}", "\u2ffc", {**c}, lambda: b[::2]\n'
    )
    assert code_digest("one.py") == "4cf93074ca8b8e8a"


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: "# A comment.\n" + text,
        lambda text: text.replace(
            "neighbours = min(", "neighbours = min(  # at most all\n        "
        ),
        lambda text: text.replace('"""k nearest neighbours', '"""The k nearest neighbours'),
        lambda text: text.replace('"""Number of neighbours', '"""How many neighbours'),
        lambda text: text.replace('"""Return for each draw', '"""For each draw'),
        lambda text: text.replace("    return abnormal", "\n\n    return abnormal"),
    ],
    ids=["comment", "comment in code", "module", "class", "function", "blank lines"],
)
def test_comments_docstrings_and_layout_do_not_change_it(scripts, edit):
    before, now = after(scripts / "hcsqc" / "probes" / "frozen" / "knn.py", edit)
    assert now == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (PROBE, "settings = cli", "chosen = settings = cli"),
        ("hcsqc/core/cli.py", "sys.exit(1)", "sys.exit(2)"),
        ("hcsqc/probes/frozen/knn.py", "neighbours = min(", "neighbours = max("),
        # Two steps away: probe_features -> task -> splits.
        ("hcsqc/labels/splits.py", "total // 2, ", "total // 3, "),
        ("hcsqc/__init__.py", '__version__ = "', '__version__ = "9.'),
    ],
)
def test_code_of_the_script_or_of_anything_it_imports_changes_it(scripts, module, old, new):
    before, now = after(scripts / module, lambda text: text.replace(old, new))
    assert now != before


def test_a_string_that_is_no_docstring_changes_it(scripts):
    path = scripts / "hcsqc" / "probes" / "frozen" / "knn.py"
    before, now = after(path, lambda text: text.replace('kind="stable"', 'kind="quicksort"'))
    assert now != before


@pytest.mark.parametrize(
    "module", ["probes/metrics", "report/page", "pretraining/loop", "probes/frozen/linear"]
)
def test_a_module_that_is_not_imported_does_not_change_it(scripts, module):
    path = scripts / "hcsqc" / f"{module}.py"
    before, now = after(path, lambda text: text + "\nADDED = 1\n")
    assert now == before


def test_a_metric_changes_the_scores_and_no_training(scripts):
    jobs = [
        "probes/score_predictions.py",
        "pretraining/pretrain.py",
        "probes/finetune.py",
        "features/extract_features.py",
    ]
    before = {job: code_digest(job) for job in jobs}
    path = scripts / "hcsqc" / "probes" / "metrics.py"
    path.write_text(path.read_text().replace("THRESHOLD = 0.5", "THRESHOLD = 0.4"))
    forget()
    assert [job for job in jobs if code_digest(job) != before[job]] == [jobs[0]]


def test_a_new_import_brings_the_imported_module_in(scripts):
    path = scripts / "hcsqc" / "probes" / "frozen" / "knn.py"
    before, linked = after(path, lambda text: text + "\nfrom hcsqc.probes.frozen import linear\n")
    assert linked != before
    linear = scripts / "hcsqc" / "probes" / "frozen" / "linear.py"
    linked, now = after(linear, lambda text: text.replace("rates * step", "rates / step"))
    assert now != linked


def test_an_import_inside_a_function_counts(scripts):
    path = scripts / "hcsqc" / "probes" / "frozen" / "knn.py"
    late = "\ndef later():\n    from hcsqc.probes import metrics\n    return metrics\n"
    after(path, lambda text: text + late)
    metrics = scripts / "hcsqc" / "probes" / "metrics.py"
    before, now = after(metrics, lambda text: text.replace("= 0.5", "= 0.6"))
    assert now != before


def test_modules_that_import_each_other_end(scripts):
    (scripts / "one.py").write_text("import two\n")
    (scripts / "two.py").write_text("import one\nVALUE = 1\n")
    before, now = after(
        scripts / "two.py", lambda text: text.replace("VALUE = 1", "VALUE = 2"), "one.py"
    )
    assert now != before


def test_a_moved_module_changes_it(scripts):
    (scripts / "one.py").write_text("import two\n")
    (scripts / "two.py").write_text("VALUE = 1\n")
    first = code_digest("one.py")
    (scripts / "one.py").write_text("import three\n")
    (scripts / "two.py").rename(scripts / "three.py")
    forget()
    assert code_digest("one.py") != first


def test_what_is_left_out_does_not_change_it_nor_does_what_only_it_imports(scripts):
    left_out = ["hcsqc/probes/task.py"]
    whole = knn_digest()
    assert knn_digest(left_out) != whole
    for module, old, new in (
        ("hcsqc/probes/task.py", "ABNORMAL = ", "ABNORMAL = NAME = "),
        ("hcsqc/labels/splits.py", "total // 2, ", "total // 3, "),  # only task.py imports it
    ):
        path = scripts / module
        before, now = after(path, lambda text, o=old, n=new: text.replace(o, n), without=left_out)
        assert now == before, module
    path = scripts / "hcsqc" / "probes" / "frozen" / "knn.py"
    before, now = after(path, rename_variable, without=left_out)
    assert now != before


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_part_of_pretraining(scripts, method):
    path = scripts / "hcsqc" / "pretraining" / "methods" / f"{method}.py"
    before, now = after(path, lambda text: text + "\nADDED = 1\n", "pretraining/pretrain.py")
    assert now != before


@pytest.mark.parametrize(
    "script", ["pretraining/pretrain.py", "probes/finetune.py", "encoders/random_encoder.py"]
)
def test_the_formulas_of_measures_are_no_part_of_training(scripts, script):
    path = scripts / "hcsqc/encoders/image_quality.py"
    before, changed = after(
        path, lambda text: text.replace("SCALE_PX = 20", "SCALE_PX = 21"), script
    )
    assert before == changed
    before, changed = after(
        path,
        lambda text: text.replace("SCALE_PX = 21", "SCALE_PX = 22"),
        "encoders/fit_measures.py",
    )
    assert before != changed


def test_of_a_registry_only_the_plugin_and_what_it_imports_counts(scripts):
    methods = scripts / "hcsqc" / "pretraining" / "methods"

    def after_edit(name: str) -> list[str]:
        (methods / name).write_text((methods / name).read_text() + "\nADDED = 1\n")
        before = {method: pretraining_digest(method) for method in METHODS}
        (methods / name).write_text((methods / name).read_text() + "\nADDED = 2\n")
        forget()
        return [method for method in METHODS if pretraining_digest(method) != before[method]]

    assert after_edit("swav.py") == ["swav"]
    assert after_edit("momentum.py") == ["byol", "moco_v2_plus", "dino"]
    assert after_edit("base.py") == list(METHODS)
    assert after_edit("__init__.py") == []


def test_curves_that_only_show_a_training_are_no_part_of_it(scripts):
    before = pretraining_digest("simclr")
    path = scripts / "hcsqc" / "tracking" / "live_curves.py"
    path.write_text(path.read_text() + "\nADDED = 1\n")
    forget()
    assert pretraining_digest("simclr") == before


def test_what_the_init_of_a_package_imports_counts(scripts):
    package = scripts / "hcsqc" / "made"
    package.mkdir()
    (package / "__init__.py").write_text("from hcsqc.made.one import VALUE\n")
    (package / "one.py").write_text("VALUE = 1\n")
    (package / "two.py").write_text("VALUE = 1\n")
    (scripts / "job.py").write_text("import hcsqc.made.two\n")
    before, now = after(
        package / "one.py", lambda text: text.replace("VALUE = 1", "VALUE = 2"), "job.py"
    )
    assert now != before


@pytest.mark.parametrize("line", ["from . import knn", "from .knn import KnnSettings"])
def test_a_relative_import_is_refused_by_name_and_line(scripts, line):
    path = scripts / "hcsqc" / "probes" / "task.py"
    path.write_text(f'"""About."""\n\n{line}\n')
    with pytest.raises(InputError, match=r"task\.py, line 3: a relative import.*whole name"):
        knn_digest()


def test_a_declared_data_file_is_code(scripts):
    page = scripts / "hcsqc" / "report" / "page.html"
    before, now = after(page, lambda text: text + "<p>", "report/make_report.py")
    assert now != before
    other = scripts / "hcsqc" / "report" / "audit.html"
    before, now = after(other, lambda text: text + "<p>", "report/make_report.py")
    assert now == before


def test_a_declared_data_file_that_is_missing_is_named(scripts):
    (scripts / "hcsqc" / "report" / "page.html").unlink()
    with pytest.raises(InputError, match=r"page\.py declares page\.html in DATA_FILES: No such"):
        code_digest("report/make_report.py")


def test_every_data_file_of_the_library_is_declared():
    library = digest.SCRIPTS / "hcsqc"
    beside = {
        path
        for path in library.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".typed", ".json")
    }
    declared = {
        path.parent / name for path in library.rglob("*.py") for name in digest._module(path).data
    }
    assert declared == beside


def test_what_was_parsed_is_kept_for_the_next_job_and_parsed_anew_after_an_edit(
    scripts, monkeypatch
):
    first = knn_digest()
    parsed = []
    parse = digest.ast.parse
    monkeypatch.setattr(
        digest.ast, "parse", lambda text, *rest: parsed.append(text) or parse(text, *rest)
    )
    forget()
    assert knn_digest() == first
    assert not parsed
    path = scripts / "hcsqc" / "probes" / "frozen" / "knn.py"
    before, now = after(path, rename_variable)
    assert now != before == first
    assert len(parsed) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_memory_of_what_was_parsed_is_not_believed(scripts, text):
    first = knn_digest()
    digest._kept().write_text(text)
    forget()
    assert knn_digest() == first


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_an_installation_that_nobody_may_write_to_gives_the_same(scripts, monkeypatch, number):
    first = knn_digest()
    digest._kept().unlink()
    forget()

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert knn_digest() == first


def test_what_was_parsed_by_another_version_of_the_digest_is_not_believed(scripts, monkeypatch):
    knn_digest()
    other = scripts / "digest.py"
    other.write_text(Path(digest.__file__).read_text(encoding="utf-8") + "# Another version.\n")
    before = digest._kept()
    monkeypatch.setattr(digest, "__file__", str(other))
    assert digest._kept() != before
