"""Digests of code: what must change them, and what must not."""

import shutil
from pathlib import Path

import pytest

from hcsqc.core import digest
from hcsqc.core.digest import code_digest
from hcsqc.pretraining.methods import METHODS


@pytest.fixture
def scripts(tmp_path, monkeypatch) -> Path:
    """Return a copy of the project's scripts that `code_digest` looks at."""
    copied = tmp_path / "scripts"
    shutil.copytree(digest.SCRIPTS, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digest, "SCRIPTS", copied)
    forget()
    yield copied
    forget()


def forget() -> None:
    digest._imports.cache_clear()
    digest._canonical.cache_clear()


def after(path: Path, edit, script: str = "probe_knn.py", without=()) -> tuple[str, str]:
    """Return the digest of a script before and after an edit of a file's text."""
    before = code_digest(script, without)
    text = path.read_text()
    changed = edit(text)
    assert changed != text, "the edit must find its place"
    path.write_text(changed)
    forget()
    return before, code_digest(script, without)


def rename_variable(text: str) -> str:
    return text.replace("neighbours = min(", "neighbours = max(")


def test_it_is_the_same_each_time_and_in_each_folder(scripts):
    original = digest.SCRIPTS
    first = code_digest("probe_knn.py")
    assert len(first) == 16 and int(first, 16) >= 0
    shutil.move(original, original.with_name("elsewhere"))
    digest.SCRIPTS = original.with_name("elsewhere")
    forget()
    assert code_digest("probe_knn.py") == first


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: "# A comment.\n" + text,
        lambda text: text.replace(
            "neighbours = min(", "neighbours = min(  # at most all\n        "
        ),
        lambda text: text.replace('"""k nearest neighbours', '"""The k nearest neighbours'),
        lambda text: text.replace('"""Number of neighbours', '"""How many neighbours'),
        lambda text: text.replace('"""Return for each row', '"""For each row'),
        lambda text: text.replace("    return abnormal", "\n\n    return abnormal"),
    ],
    ids=["comment", "comment in code", "module", "class", "function", "blank lines"],
)
def test_comments_docstrings_and_layout_do_not_change_it(scripts, edit):
    before, now = after(scripts / "hcsqc" / "probes" / "knn.py", edit)
    assert now == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("probe_knn.py", "settings = cli", "chosen = settings = cli"),
        ("cli.py", "sys.exit(1)", "sys.exit(2)"),
        ("hcsqc/probes/knn.py", "neighbours = min(", "neighbours = max("),
        # Two steps away: probe_knn -> task -> splits.
        ("hcsqc/labels/splits.py", "total // 2, ", "total // 3, "),
        ("hcsqc/__init__.py", '__version__ = "', '__version__ = "9.'),
    ],
)
def test_code_of_the_script_or_of_anything_it_imports_changes_it(scripts, module, old, new):
    before, now = after(scripts / module, lambda text: text.replace(old, new))
    assert now != before


def test_a_string_that_is_no_docstring_changes_it(scripts):
    path = scripts / "hcsqc" / "probes" / "knn.py"
    before, now = after(path, lambda text: text.replace('kind="stable"', 'kind="quicksort"'))
    assert now != before


@pytest.mark.parametrize("module", ["metrics", "report", "pretraining", "probes/linear"])
def test_a_module_that_is_not_imported_does_not_change_it(scripts, module):
    path = scripts / "hcsqc" / f"{module}.py"
    before, now = after(path, lambda text: text + "\nADDED = 1\n")
    assert now == before


def test_a_metric_changes_the_scores_and_no_training(scripts):
    jobs = ["score_predictions.py", "pretrain.py", "finetune.py", "extract_features.py"]
    before = {job: code_digest(job) for job in jobs}
    path = scripts / "hcsqc" / "metrics.py"
    path.write_text(path.read_text().replace("THRESHOLD = 0.5", "THRESHOLD = 0.4"))
    forget()
    assert [job for job in jobs if code_digest(job) != before[job]] == ["score_predictions.py"]


def test_a_new_import_brings_the_imported_module_in(scripts):
    path = scripts / "hcsqc" / "probes" / "knn.py"
    before, linked = after(path, lambda text: text + "\nfrom hcsqc.probes import linear\n")
    assert linked != before
    linear = scripts / "hcsqc" / "probes" / "linear.py"
    linked, now = after(linear, lambda text: text.replace("rates * step", "rates / step"))
    assert now != linked


def test_an_import_inside_a_function_counts(scripts):
    path = scripts / "hcsqc" / "probes" / "knn.py"
    late = "\ndef later():\n    from hcsqc import metrics\n    return metrics\n"
    after(path, lambda text: text + late)
    metrics = scripts / "hcsqc" / "metrics.py"
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
    whole = code_digest("probe_knn.py")
    assert code_digest("probe_knn.py", left_out) != whole
    for module, old, new in (
        ("hcsqc/probes/task.py", "ABNORMAL = ", "ABNORMAL = NAME = "),
        ("hcsqc/labels/splits.py", "total // 2, ", "total // 3, "),  # only task.py imports it
    ):
        path = scripts / module
        before, now = after(path, lambda text, o=old, n=new: text.replace(o, n), without=left_out)
        assert now == before, module
    path = scripts / "hcsqc" / "probes" / "knn.py"
    before, now = after(path, rename_variable, without=left_out)
    assert now != before


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_part_of_pretraining(scripts, method):
    path = scripts / "hcsqc" / "methods" / f"{method}.py"
    before, now = after(path, lambda text: text + "\nADDED = 1\n", "pretrain.py")
    assert now != before


@pytest.mark.parametrize("script", ["pretrain.py", "finetune.py", "random_encoder.py"])
def test_the_formulas_of_measures_are_no_part_of_training(scripts, script):
    path = scripts / "hcsqc/encoders/image_quality.py"
    before, changed = after(
        path, lambda text: text.replace("SCALE_PX = 20", "SCALE_PX = 21"), script
    )
    assert before == changed
    before, changed = after(
        path, lambda text: text.replace("SCALE_PX = 21", "SCALE_PX = 22"), "fit_measures.py"
    )
    assert before != changed
