"""Reruns are exactly right: each change on the finished tiny study, and the jobs that follow.

docs/reruns.md says the same in words; every change there has a row here.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, Project, edit, results, study_with

pytestmark = pytest.mark.dag

Jobs = dict[str, int]
ENCODERS = ["efficientnet_lite0", "simclr", "random_resnet18", "image_quality"]
PROBES = ["knn", "logistic", "finetune_searched", "knn_shuffled"]
# Of one encoder: two probes at two budgets and the control at one; one that is fine-tuned at one.
FROZEN_JOBS = 5
EPOCHS = {"score_epochs": 1, "plot_epochs": 1}
ANALYSES = ("diagnose_shift", "probe_unseen_artefacts", "compare_label_selection")
# What follows when scores change.
AFTER_SCORES = {
    "make_tables": 1,
    "rank_encoders": 1,
    "fit_learning_curves": 1,
    "plot_scores": 1,
    "recommend": 1,
    "make_audit": 1,
    "make_report": 1,
    "track_runs": 1,
}
# What follows when predictions change, beside their scores; histograms show those of kNN.
AFTER_OTHERS = AFTER_SCORES | {"tabulate_dose_response": 1}
AFTER_PREDICTIONS = AFTER_OTHERS | {"report_shift": 1}
ONE_ENCODER = {
    "extract_features": 2,
    "embed_shift_variants": 1,
    "probe": FROZEN_JOBS,
    "finetune": 1,
    "search_finetuning": 1,
    "score_predictions": 1,
    "probe_unseen_artefacts": 1,
    "compare_label_selection": 1,
    "diagnose_shift": 1,
}
ONE_PRETRAINED = ONE_ENCODER | {
    "pretrain": 1,
    "plot_pretraining": 1,
    "score_epochs": 1,
    "plot_epochs": 1,
}


@dataclass(frozen=True)
class Change:
    """A change of a finished study, in the words of docs/reruns.md, and the jobs that follow.

    `expected` is either all jobs, or with `never` some of them beside which any others may run but
    those.
    """

    words: str
    make: Callable[[Project], None]
    expected: Jobs
    never: tuple[str, ...] | None = None


def comments(project: Project) -> None:
    for path in (
        "scripts/hcsqc/crops/cut.py",
        "scripts/crops/crop_plate.py",
        "scripts/hcsqc/probes/metrics.py",
    ):
        file = project.folder / path
        text = file.read_text().replace('"""', '"""Said otherwise. ', 1)
        file.write_text(text + "\n# a comment\n")
    edit(project, "config.yaml", "study:", "# a comment\nstudy:")
    (project.folder / "README.md").write_text("# Said otherwise\n")


def code(path: str, old: str, new: str) -> Callable[[Project], None]:
    return lambda project: edit(project, path, old, new)


def config(**changes) -> Callable[[Project], None]:
    return lambda project: study_with(project, **changes)


def one_more_plate(project: Project) -> None:
    path = project.folder / "tests/tiny/study.yaml"
    study = yaml.safe_load(path.read_text())
    study["screens"]["tiny022"]["plates"].append("1009")
    path.write_text(yaml.safe_dump(study))


def one_more_plate_without_labels(project: Project) -> None:
    one_more_plate(project)
    path = project.folder / "tests/tiny/study.yaml"
    study = yaml.safe_load(path.read_text())
    # The plates that labels were looked for on so far.
    study["screens"]["tiny022"]["labelled_plates"] = ["1001", "1002"]
    path.write_text(yaml.safe_dump(study))


def image(project: Project, well: str):
    """Return the first image of a well of plate 1001."""
    images = results(project) / "simulated/tiny022/images"
    return min(images.rglob(f"*1001w1/IXMtest_{well}_*.tif"))


def replace_image(project: Project) -> None:
    shutil.copyfile(image(project, "B03"), image(project, "B02"))
    refreshed(project, "1 of 6 fields changed")


def touch_images(project: Project) -> None:
    for well in ("B02", "B03"):
        os.utime(image(project, well))
    refreshed(project, "0 of 6 fields changed; 2 were read")


def delete_image(project: Project) -> None:
    image(project, "B02").unlink()
    refreshed(project, "1 of 6 fields changed")


def refreshed(project: Project, said: str) -> None:
    """Look at all images again, twice: the first copy of the study has moved every file."""
    how = ("refresh", "--cores", "2", "--configfile", "tests/tiny/study.yaml")
    done = project.run(*how)
    assert done.returncode == 0, done.stdout[-3000:]
    found = re.findall(r"refresh 1001: (.*)", done.stdout)
    assert len(found) == 1
    if "0 of" not in said:
        assert found[0].startswith(said.split(";")[0])
        return
    assert found[0].startswith("0 of 6 fields changed")
    again = project.run(*how)
    assert "refresh 1001: 0 of 6 fields changed; 0 were read" in again.stdout


def fresh_clone(project: Project) -> None:
    """Give all code a new modification time, as a clone does."""
    for part in ("Snakefile", "config.yaml", "rules", "scripts", "envs", "tests"):
        for path in [project.folder / part, *(project.folder / part).rglob("*")]:
            os.utime(path)


def upgrade(project: Project) -> None:
    shutil.copy(ROOT / "requirements.lock", project.folder)
    edit(project, "requirements.lock", "scikit-learn==", "scikit-learn==99.")


def overwrite_weights(project: Project) -> None:
    [weights] = (project.folder / "results/weights").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes() + b" ")


def delete_report(project: Project) -> None:
    (results(project) / "report/index.html").unlink()


SSL = {"kind": "ssl", "method": "simclr", "preset": "paper", "epochs": 1}
LOGISTIC = {"kind": "logistic", "penalties": [1.0], "folds": 3}
CHANGES = [
    Change("a comment, a docstring, the README", comments, {}),
    Change("a fresh clone, whose files have other times", fresh_clone, {}),
    Change(
        "metric code",
        code("scripts/hcsqc/probes/metrics.py", "THRESHOLD = 0.5", "THRESHOLD = 0.4"),
        dict.fromkeys(("score_predictions", *ANALYSES), 4) | EPOCHS | AFTER_PREDICTIONS,
    ),
    Change(
        "a probe's code",
        code("scripts/hcsqc/probes/frozen/knn.py", "    if not draws:", "    if len(draws) == 0:"),
        {"probe": 4 * 3, "score_predictions": 4} | EPOCHS | AFTER_PREDICTIONS,
    ),
    Change(
        "a probe's settings",
        config(probes={"logistic": {"penalties": [0.5, 2.0]}}),
        {"probe": 4 * 2, "score_predictions": 4, "save_config": 1} | AFTER_OTHERS,
    ),
    Change(
        "one more encoder",
        config(encoders={"simclr_short": SSL}, study={"encoders": [*ENCODERS, "simclr_short"]}),
        ONE_PRETRAINED | {"save_config": 1} | AFTER_PREDICTIONS,
    ),
    Change(
        "one more probe",
        config(probes={"loose": LOGISTIC}, study={"probes": [*PROBES, "loose"]}),
        {"probe": 4 * 2, "score_predictions": 4, "save_config": 1} | AFTER_OTHERS,
    ),
    Change(
        "one more budget, neither the smallest nor the largest",
        config(study={"budgets": [20, 14, 10]}),
        {"probe": 4 * 2},
        never=("split_labels", "extract_features", "finetune", "pretrain", "score_epochs"),
    ),
    Change(
        "one more seed",
        config(study={"seeds": [0, 1]}),
        {"pretrain": 1, "random_encoder": 1, "probe": 2 * FROZEN_JOBS, "extract_features": 4},
        never=("import_encoder", "fit_measures", "split_labels", "crop_plate"),
    ),
    Change(
        "one more plate that is not pretrained on",
        one_more_plate,
        dict.fromkeys(("simulate_plate", "index_plate", "measure_scale", "crop_plate"), 1),
        never=("pretrain", "pretrain_trial"),
    ),
    Change(
        "the same, and `labelled_plates` names the plates with labels",
        one_more_plate_without_labels,
        dict.fromkeys(("simulate_plate", "index_plate", "measure_scale", "crop_plate"), 1),
        never=("label_screen", "split_labels", "extract_features", "probe", "finetune", "pretrain"),
    ),
    Change(
        "more labels",
        config(labels={"truth_per_class": 41}),
        {"label_screen": 2, "split_labels": 1, "extract_features": 8, "finetune": 3},
        never=("pretrain", "pretrain_trial", "crop_plate", "fit_measures", "import_encoder"),
    ),
    Change(
        "what is independent (`evaluation.group_by`)",
        config(evaluation={"group_by": "plate"}),
        {"split_labels": 1, "probe": 4 * FROZEN_JOBS, "finetune": 3, "diagnose_shift": 4},
        never=("label_screen", "extract_features", "index_plate", "embed_shift_variants"),
    ),
    Change(
        "the window of the crops, or their scale",
        config(crops={"window_px": 34, "scale_fields": 4, "failed_fields": 0.5}),
        {"crop_plate": 3, "pretrain": 1},
        never=("simulate_plate", "index_plate", "measure_scale", "fetch_weights"),
    ),
    Change(
        "crop code",
        code("scripts/hcsqc/crops/cut.py", "def _crop_bytes(", "def _crop_bytes_of("),
        {"crop_plate": 3, "pretrain": 1},
        never=("simulate_plate", "index_plate", "measure_scale", "fetch_weights"),
    ),
    Change(
        "one method's code",
        code("scripts/hcsqc/pretraining/methods/simclr.py", "batch_norm=False", "batch_norm=True"),
        {"pretrain": 1, "pretrain_trial": 2, "extract_features": 2, "choose_pretraining": 1},
        never=("random_encoder", "import_encoder", "crop_plate"),
    ),
    Change(
        "the grid of a search",
        config(
            encoders={
                "simclr": {
                    "search": {
                        "learning_rate": [0.1, 0.02],
                        "weight_decay": [0.0001],
                        "epochs": 2,
                        "crops": 6,
                    }
                }
            }
        ),
        {"pretrain_trial": 1, "choose_pretraining": 1, "pretrain": 1, "extract_features": 2},
        never=("random_encoder", "import_encoder", "crop_plate"),
    ),
    Change(
        "code that reads weights",
        code(
            "scripts/hcsqc/encoders/checkpoints.py",
            "CHECKPOINT_KEYS = (",
            'CHECKPOINT_KEYS = ("net", ',
        ),
        {"import_encoder": 1},
        never=("fetch_weights", "pretrain"),
    ),
    Change(
        "a weights file that is overwritten",
        overwrite_weights,
        {"import_encoder": 1} | ONE_ENCODER | AFTER_PREDICTIONS,
    ),
    Change("a package upgraded in the lock", upgrade, {}),
    Change(
        "another study's name",
        config(study={"name": "other"}),
        {"simulate_plate": 3, "index_plate": 3, "pretrain": 1},
        never=("fetch_weights",),
    ),
    Change(
        "a report that is deleted",
        delete_report,
        {"make_report": 1, "track_runs": 1},
    ),
    Change(
        "an image that is replaced, after `snakemake refresh`",
        replace_image,
        {"measure_scale": 1, "crop_plate": 1, "pretrain": 1, "extract_features": 6},
        never=("simulate_plate", "index_plate", "fetch_weights"),
    ),
    Change(
        "an image that is deleted, after `snakemake refresh`",
        delete_image,
        {"measure_scale": 1, "crop_plate": 1, "pretrain": 1},
        never=("simulate_plate", "index_plate", "fetch_weights"),
    ),
    Change("an image that is touched, after `snakemake refresh`", touch_images, {}),
]


def test_second_run_does_nothing(tiny):
    done = tiny.study()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout


def test_results_copied_to_another_folder_with_their_metadata_run_nothing(changed):
    assert changed.planned() == {}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.words)
def test_a_change_runs_what_it_must_and_nothing_else(changed, change):
    change.make(changed)
    planned = changed.planned()
    if change.never is None:
        assert planned == change.expected
        return
    assert {rule: planned.get(rule, 0) for rule in change.expected} == change.expected
    assert not set(change.never) & set(planned)


def test_the_docs_name_every_change():
    text, _, _ = (ROOT / "docs/reruns.md").read_text().partition("## After a crash or a kill")
    named = set(re.findall(r"^\| (.+?) \|", text, re.MULTILINE))
    assert named - {"change", "---"} == {change.words for change in CHANGES} | {
        "results copied to another folder with their `.snakemake`"
    }
    assert "snakemake refresh" in " ".join(text.split())


def test_a_deleted_image_is_a_failed_field_and_the_others_go_on(changed):
    delete_image(changed)
    crops = "results/tiny/crops/tiny022/1001.parquet"
    done = changed.study("--", crops)
    assert done.returncode == 0, done.stdout[-3000:]
    summary = pd.read_parquet(results(changed) / "crops/tiny022/1001.summary.parquet")
    failed = summary[summary["status"] == "failed"]
    assert failed["well"].tolist() == ["B02"]
    assert "no image of channel w1" in failed["reason"].iloc[0]
