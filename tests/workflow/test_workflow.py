"""The whole workflow on the tiny study: what it leaves, and what it says of bad input."""

import json
import os
import re
import shlex
import subprocess
import sys
from itertools import product
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file

from benchmarks.dag import count
from hcsqc.encoders.models import build_backbone
from hcsqc.encoders.registry import REGISTRY
from tests.conftest import ROOT, Project, edit, results, study_with

pytestmark = pytest.mark.dag

PROBES = {"knn", "logistic", "finetune_searched", "knn_shuffled"}


def test_tables_have_a_row_for_every_encoder_probe_budget_screen_and_metric(tiny):
    encoders = {"efficientnet_lite0", "simclr", "random_resnet18", "image_quality", "vgg16"}
    frozen = PROBES - {"finetune_searched"}
    metrics = ("accuracy", "f1", "auc")
    every = PROBES
    expected = {
        1: set(product(encoders, frozen, [20], ["tiny022"], metrics)),
        2: set(product(encoders, every, [20, 10], ["tiny022"], metrics)),
        3: set(product(encoders, every, [20], ["tiny021"], metrics)),
    }
    for number, rows in expected.items():
        table = pd.read_csv(results(tiny) / f"tables/table{number}.csv")
        keys = list(
            table[["encoder", "probe", "budget", "screen", "metric"]].itertuples(index=False)
        )
        assert len(keys) == len(rows)
        assert {tuple(key) for key in keys} == rows
        assert set(table[table["encoder"] == "vgg16"]["reason"]) == {"no hub in tests"}
        measured = table[table["encoder"] == "image_quality"]
        tuned = measured[measured["probe"] == "finetune_searched"]
        assert tuned["reason"].str.contains("no network to fine-tune").all()
        run = table[table["status"] == "run"]
        assert run["percent"].between(0, 100).all()


def test_crops_open_in_pandas_and_duckdb(tiny):
    files = str(results(tiny) / "crops/tiny022/*[0-9].parquet")
    rows = duckdb.sql(f"SELECT crop_id, x_px, octet_length(pixels) AS n FROM '{files}'").df()
    assert (rows["n"] == 5 * 32 * 32).all()
    one = pd.read_parquet(results(tiny) / "crops/tiny022/1001.parquet")
    assert set(one["crop_id"]) <= set(rows["crop_id"])


def test_every_job_leaves_a_record_and_mlflow_holds_each_once(tiny):
    records = list((results(tiny) / "runs").rglob("run.json"))
    keys = {json.loads(path.read_text())["key"] for path in records}
    assert len(keys) == len(records)
    assert not list((results(tiny) / "runs").rglob("failed.json"))
    receipt = json.loads((results(tiny) / "mlflow.receipt.json").read_text())
    summaries = len(list((results(tiny) / "encoders").iterdir()))
    assert receipt["runs"] == receipt["new"] == len(records) + summaries


def test_no_evaluation_well_is_pretrained_on(tiny):
    record = json.loads((results(tiny) / "runs/pretrain/simclr/seed0/run.json").read_text())
    crops = pd.read_parquet(results(tiny) / "crops/tiny022/1001.parquet", columns=["field_id"])
    wells = crops["field_id"].str.split("/").str[2]
    assert record["parameters"]["crops"] == (wells == "B05").sum() > 0


def test_ssl_pretraining_goes_on_with_the_trial_that_its_search_chose(tiny):
    choice = json.loads((results(tiny) / "search/simclr/choice.json").read_text())
    assert [trial["learning_rate"] for trial in choice["trials"]] == [0.1, 0.01]
    best = max(choice["trials"], key=lambda trial: trial["feature_rank"])
    assert choice["chosen"]["learning_rate"] == best["learning_rate"]
    trial = json.loads((results(tiny) / "runs/search/simclr/lr0.1_wd0.0001/run.json").read_text())
    assert (trial["parameters"]["crops"], trial["parameters"]["epochs"]) == (6, 2)
    record = json.loads((results(tiny) / "runs/pretrain/simclr/seed0/run.json").read_text())
    assert record["parameters"]["learning_rate"] == choice["chosen"]["learning_rate"]
    assert record["parameters"]["crops"] > 6


def test_ssl_epochs_are_scored_on_the_same_draws_from_random_weights_on(tiny):
    table = pd.read_parquet(results(tiny) / "scores/epochs/simclr/seed0.parquet")
    assert set(zip(table["epoch"], table["draw"], strict=True)) == set(product(range(3), range(5)))
    assert table["accuracy"].between(0, 1).all()
    last = table[table["epoch"] == 2].set_index("draw")["accuracy"]
    scores = pd.read_parquet(results(tiny) / "scores/simclr/seed0.parquet")
    own = scores[(scores["probe"] == "knn") & (scores["budget"] == 20)]
    own = own[(own["metric"] == "accuracy") & (own["screen"] == "tiny022")]
    assert last.to_dict() == pytest.approx(own.set_index("draw")["value"].to_dict())


def test_snakemake_report_is_one_file_without_a_network(tiny):
    done = tiny.study("--report", "report.zip")
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tiny.folder / "report.zip").stat().st_size > 100_000


# What the tiny study has no use for, and where else it runs.
RUN_ELSEWHERE = {
    "crops/derive_plate.py": "the next test",
    "crops/plot_nuclei.py": "the test of its target",
    "download/download_file.py": "test_download.py",
    "download/plan_downloads.py": "test_download.py",
    "download/unpack_plate.py": "test_download.py",
    "encoders/describe_features.py": "the test of encoders of one's own",
    "encoders/import_module.py": "the test of encoders of one's own",
    "encoders/join_encoders.py": "test_pooling.py",
    "encoders/pool_encoder.py": "test_pooling.py",
    "features/import_features.py": "the test of encoders of one's own",
    "qc/check_planted.py": "test_qc_workflow.py",
    "qc/compare_published.py": "test_qc_workflow.py",
    "qc/filter_load_data.py": "test_filter_load_data.py",
    "qc/find_suspicious_labels.py": "test_qc_workflow.py",
    "qc/fit_detector.py": "test_qc_workflow.py",
    "qc/flag_plate.py": "test_qc_workflow.py",
    "qc/flag_screen.py": "test_qc_workflow.py",
    "qc/join_flags.py": "test_join_flags.py",
    "qc/make_qc_report.py": "test_qc_workflow.py",
    "qc/open_field.py": "test_field_view.py",
    "qc/package_detector.py": "test_qc_workflow.py",
    "qc/score_plate.py": "test_qc_workflow.py",
    "qc/set_threshold.py": "test_qc_workflow.py",
    "qc/write_label_page.py": "test_qc_workflow.py",
    "screens/list_plates.py": "the next test",
    "screens/refresh_plate.py": "test_reruns.py",
    "start/add_plates.py": "test_more_plates.py",
    "start/new_study.py": "test_new_study.py",
    "tracking/compare_runs.py": "test_tracking.py",
}
SCRIPTS_OF_THE_STUDY = {
    str(path.relative_to(ROOT / "scripts"))
    for path in (ROOT / "scripts").glob("*/*.py")
    if path.parent.name != "hcsqc"
} - set(RUN_ELSEWHERE)


def by_hand(project: Project, command: str) -> subprocess.CompletedProcess:
    """Run a command as Snakemake prints it."""
    environment = os.environ | {
        "HCSQC": str(project.folder / "scripts" / "run.sh"),
        "HCSQC_PYTHON": sys.executable,
    }
    return subprocess.run(
        ["bash", "-c", command],
        cwd=project.folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.long
def test_each_script_runs_by_hand_and_gives_the_same_again(changed):
    """The commands that Snakemake prints are what a person would type, with $HCSQC set once."""
    printed = changed.study("--dry-run", "--forceall", "--printshellcmds").stdout
    # Of all jobs only the one that fetches weights may open a connection.
    commands = re.findall(r'Shell command: (?:HCSQC_HUB_OFFLINE=0 )?("\$HCSQC" .*)', printed)
    one_each = {shlex.split(command)[3]: command for command in commands}
    assert set(one_each) == SCRIPTS_OF_THE_STUDY
    folders = ("predictions", "scores", "replicates", "analyses", "shift", "tables")
    tables = {
        path: path.read_bytes()
        for folder in (*folders, "search/finetuning")
        for path in (results(changed) / folder).rglob("*.*")
        if path.name != "recommendation.json"  # it says how long the jobs took
    }
    assert {path.relative_to(results(changed)).parts[0] for path in tables} == {*folders, "search"}
    for command in one_each.values():
        done = by_hand(changed, command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert [path for path, content in tables.items() if path.read_bytes() != content] == []


def test_scripts_that_the_tiny_study_does_not_need_run_by_hand(tiny, tmp_path):
    parent, scale = "crops/tiny022/1001.parquet", "screens/tiny022/1001.scale.parquet"
    outputs = {
        name: tmp_path / f"{name}.parquet" for name in ("crops", "nuclei", "summary", "truth")
    }
    derive = ["crops/derive_plate.py", "--screen", "derived", "--scale-knee", "0.9"]
    derive += ["--parent-crops", str(results(tiny) / parent), "--scale", str(results(tiny) / scale)]
    derive += [
        "--nucleus-channel",
        "w1",
        "--nucleus-diameter-px",
        "25",
        "--copies",
        "1",
        "--record",
        str(tmp_path / "run.json"),
    ]
    for name, path in outputs.items():
        derive += [f"--{name}", str(path)]
    images = str(results(tiny) / "simulated/tiny022/images")
    plates = ["screens/list_plates.py", "--layout", "bbbc022", "--images", images]
    for command in (derive, plates):
        done = by_hand(tiny, f'"$HCSQC" {shlex.join(command)}')
        assert done.returncode == 0, done.stderr
    assert done.stdout == 'plates: ["1001", "1002"]\n'
    parents = len(pd.read_parquet(results(tiny) / parent))
    assert len(pd.read_parquet(outputs["crops"])) == 2 * parents > 0
    assert (pd.read_parquet(outputs["truth"])["artefact"] == "none").sum() == parents


def test_fine_tuning_without_a_search_is_given_the_settings_of_the_config(changed):
    study_with(changed, study={"probes": ["finetune_paper"]})
    printed = changed.study("--dry-run", "--printshellcmds").stdout
    commands = re.findall(r'"\$HCSQC" --log \S+ probes/finetune\.py .*', printed)
    assert len(commands) == 3  # of three networks
    assert all("--epochs 2" in command and "--choice" not in command for command in commands)


def test_nuclei_are_pictured_for_every_plate_that_has_images(changed):
    command = "nuclei_figures", "--cores", "2", "--configfile", "tests/tiny/study.yaml"
    done = changed.run(*command)
    assert done.returncode == 0, done.stdout
    found = sorted((results(changed) / "figures/nuclei").rglob("*.png"))
    plates = sorted(results(changed).glob("crops/*/*.summary.parquet"))
    named = [f"{path.parent.name}/{path.name.split('.')[0]}" for path in plates]
    assert [f"{path.parent.name}/{path.stem}" for path in found] == named
    assert "Nothing to be done" in changed.run(*command).stdout


@pytest.mark.long
def test_whole_screens_are_embedded_plate_by_plate(changed):
    plates = sorted((results(changed) / "crops").glob("*/*.nuclei.parquet"))
    encoders = len(list((results(changed) / "encoders").glob("*/seed*/encoder.safetensors")))
    planned = {"extract_plate_features": len(plates) * encoders, "screen_features": 1}
    assert changed.planned("screen_features") == planned

    def embed():
        targets = [str(path.relative_to(changed.folder)) for path in embedded]
        return changed.run(*targets, "--cores", "2", "--configfile", "tests/tiny/study.yaml")

    folder = results(changed) / "features/random_resnet18/seed0"
    places = [(path.parent.name, path.name.split(".")[0]) for path in plates]
    embedded = [folder / screen / f"{plate}.parquet" for screen, plate in places]
    done = embed()
    assert done.returncode == 0, done.stdout
    assert re.search(r"features random_resnet18 \S+: 100%.* crops/s", done.stdout)
    few = {}
    for path, (screen, plate) in zip(embedded, places, strict=True):
        table = pq.read_table(path)
        crops = pq.read_table(results(changed) / f"crops/{screen}/{plate}.parquet")
        assert table["crop_id"].to_pylist() == crops["crop_id"].to_pylist()
        few |= dict(zip(table["crop_id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    for screen in {screen for screen, _ in places}:
        labelled = pq.read_table(folder / f"{screen}.parquet").to_pylist()
        for row in labelled:
            np.testing.assert_allclose(few[row["crop_id"]], row["vector"], rtol=1e-3, atol=1e-4)
    embedded[-1].unlink()
    again = embed()
    assert re.search(r"extract_plate_features +1\b", again.stdout), "done plates stay done"


@pytest.mark.long
def test_few_labels_are_cross_validated_and_the_tables_say_what_is_not_carried(changed):
    few = {"budgets": [200, 10], "test_crops": 400, "encoders": ["random_resnet18"]}
    study_with(changed, study=few)
    tables = [f"results/tiny/tables/table{number}.csv" for number in (1, 2)]
    command = "--cores", "2", "--configfile", "tests/tiny/study.yaml"
    done = changed.run(*tables, "results/tiny/report/index.html", *command)
    assert done.returncode == 0, done.stdout[-3000:]
    first, second = (pd.read_csv(changed.folder / path) for path in tables)
    assert set(first["budget"]) == {10}
    missing = second[(second["budget"] == 200) & (second["probe"] == "knn")]
    assert set(missing["reason"]) == {"not enough labels", "no hub in tests"}
    page = (results(changed) / "report/index.html").read_text()
    assert "cross-validation by well" in " ".join(page.split())


@pytest.mark.long
def test_a_network_and_a_table_of_ones_own_are_encoders_like_any_other(changed):
    (changed.folder / "my_nets.py").write_text(
        "import os, torch\n\ndef make():\n    torch.manual_seed(0)\n"
        "    assert os.environ['HF_HUB_OFFLINE'] == '1', 'jobs open no connection'\n"
        "    return torch.nn.Sequential("
        "torch.nn.Conv2d(3, 8, 5), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())\n"
    )
    for screen in ("tiny022", "tiny021"):
        source = results(changed) / f"features/image_quality/seed0/{screen}.parquet"
        pd.read_parquet(source).to_parquet(changed.folder / f"own_{screen}.parquet")
    own = {
        "mine": {"kind": "transfer", "module": "my_nets:make", "input_px": 32},
        "table": {"kind": "transfer", "features": "own_{screen}.parquet"},
    }
    study_with(changed, encoders=own, study={"encoders": ["image_quality", *own]})
    done = changed.study()
    assert done.returncode == 0, done.stdout[-3000:]
    scores = results(changed) / "scores"
    same, other = (
        pd.read_parquet(scores / f"{name}/seed0.parquet").set_index(["probe", "draw", "metric"])
        for name in ("table", "image_quality")
    )
    assert same["value"].tolist() == other["value"].tolist()
    assert "finetune_searched" not in same.index.get_level_values("probe")
    mine = pd.read_parquet(scores / "mine/seed0.parquet")
    assert set(mine["probe"]) == PROBES
    edit(changed, "my_nets.py", "8, 5", "9, 5")
    assert changed.planned()["import_module"] == 1


@pytest.mark.long
def test_registered_models_go_through_all_tables_with_their_own_channels_and_terms(changed):
    """Random weights in the published form: five channels by role, and one channel at a time."""
    torch.manual_seed(0)
    for name, file in (("cell_dino_cp", "cells.pth"), ("morphem", "weights/morphem.safetensors")):
        model = REGISTRY[name]
        own = build_backbone(
            model.architecture, model.network_channels, model.input_px, model.network_options
        ).state_dict()
        (changed.folder / "weights").mkdir(exist_ok=True)
        if file.endswith(".pth"):  # in four chunks of blocks
            own = {re.sub(r"^blocks\.(\d+)", _in_chunk, key): value for key, value in own.items()}
            torch.save(own | {"mask_token": torch.zeros(1, 384)}, changed.folder / file)
        else:
            save_file(own, changed.folder / file)
    models = {
        "cells": {
            "kind": "transfer",
            "model": "cell_dino_cp",
            "file": "cells.pth",
            "input_px": 32,
            "missing_roles": {"RNA": "zero", "ER": "zero", "AGP": "actin", "Mito": "tubulin"},
        },
        "morphem": {"kind": "transfer", "model": "morphem", "input_px": 32},
    }
    study_with(
        changed,
        encoders=models,
        study={"encoders": ["image_quality", *models], "probes": ["knn", "logistic"]},
    )
    tables = [f"results/tiny/tables/table{number}.csv" for number in (1, 2, 3)]
    done = changed.study("--", *tables)
    assert done.returncode == 0, done.stdout[-3000:]
    for path in tables:
        table = pd.read_csv(changed.folder / path)
        assert set(models) <= set(table[table["status"] == "run"]["encoder"])
    for name, width in (("cells", 384), ("morphem", 3 * 384)):
        about = json.loads((results(changed) / f"encoders/{name}/seed0/encoder.json").read_text())
        assert about["width"] == width
        assert about["input"]["normalisation"] == "per_image_zscore"
        model = REGISTRY[models[name]["model"]]
        assert about["provenance"]["licence"] == model.licence
        weights = list((changed.folder / "results/weights").glob(f"model.{model.name}*/fetch.log"))
        assert f"licence of model {model.name}: {model.licence}" in weights[0].read_text()
    assert changed.planned("--", *tables) == {}


def _in_chunk(match: re.Match) -> str:
    return f"blocks.{int(match[1]) // 3}.{match[1]}"


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("study", {"budgte": [10]}, "study: unknown key 'budgte'; did you mean 'budgets'?"),
        ("study", {"train": "tiny22"}, "unknown name 'tiny22'; did you mean 'tiny022'?"),
        ("study", {"encoders": ["simcrl"]}, "unknown name 'simcrl'; did you mean 'simclr'?"),
    ],
)
def test_a_wrong_config_ends_with_one_message(tmp_path, section, values, message):
    project = Project(tmp_path / "project")
    study_with(project, **{section: values})
    done = project.study("--dry-run")
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_a_broken_image_is_listed_and_the_other_fields_go_on(changed):
    images = sorted((results(changed) / "simulated/tiny022/images").rglob("IXMtest_B03_*_w3*.tif"))
    images[0].write_bytes(images[0].read_bytes()[:1000])
    plate = re.search(r"images_(\d+)w3", str(images[0]))[1]
    crops = f"results/tiny/crops/tiny022/{plate}.parquet"
    done = changed.study("--forcerun", "crop_plate", "--", crops)
    assert done.returncode == 0, done.stdout[-3000:]
    summary = pd.read_parquet(results(changed) / f"crops/tiny022/{plate}.summary.parquet")
    failed = summary[summary["status"] == "failed"]
    assert failed["well"].tolist() == ["B03"]
    assert images[0].name in failed["reason"].iloc[0]
    assert (summary["found"] == summary["kept"] + summary["dropped"]).all()


def test_a_screen_without_labels_stops_with_one_message_and_the_encoders_run(changed):
    """Real screens have no labels of their own: the paper's were never published."""
    csv = results(changed) / "simulated/tiny022/1001.image.csv"
    path = changed.folder / "tests/tiny/study.yaml"
    study = yaml.safe_load(path.read_text())
    screen = study["screens"]["tiny022"]
    del screen["simulate"]
    screen |= {"images": str(results(changed) / "simulated/tiny022/images"), "image_csv": str(csv)}
    screen |= {"labels": [], "plates": ["1001"]}
    study["study"] |= {"name": "unlabelled", "test": [], "encoders": ["simclr"]}
    path.write_text(yaml.safe_dump(study))
    done = changed.study("--keep-going")
    assert done.returncode != 0
    assert "error: screen tiny022 has no labels" in done.stdout
    assert "docs/labels.md" in done.stdout
    assert (changed.folder / "results/unlabelled/encoders/simclr/seed0/encoder.json").exists()
    failed = changed.folder / "results/unlabelled/runs/labels/tiny022/failed.json"
    assert json.loads(failed.read_text())["status"] == "FAILED"


def test_weights_that_cannot_be_had_stop_the_job_with_the_ways_to_provide_them(changed):
    study_with(
        changed,
        encoders={
            "mine": {
                "kind": "transfer",
                "architecture": "resnet18",
                "input_px": 32,
                "file": "nowhere.safetensors",
            }
        },
    )
    study_with(changed, study={"encoders": ["mine"]})
    done = changed.study("--", "results/tiny/encoders/mine/seed0/encoder.safetensors")
    assert done.returncode != 0
    assert "rule fetch_weights" in done.stdout
    assert "error: nowhere.safetensors: no such file of weights for resnet18" in done.stdout
    assert not (results(changed) / "encoders/mine/seed0/encoder.safetensors").exists()


def test_the_slurm_profile_plans_the_study_with_gpus_where_they_are_used(tmp_path):
    project = Project(tmp_path / "project")
    done = project.run(
        "--profile", "profiles/slurm", "--configfile", "tests/tiny/study.yaml", "--dry-run"
    )
    assert done.returncode == 0, done.stdout[-3000:]
    jobs = re.split(r"\n *(?:local)?rule ", done.stdout)  # those of a group are indented
    pretraining = [text for text in jobs if text.startswith("pretrain:")]
    cropping = [text for text in jobs if text.startswith("crop_plate:")]
    assert len(pretraining) == 1 and len(cropping) == 3
    assert all("gpu=1" in text and "runtime=720" in text for text in pretraining)
    assert not any("gpu=" in text for text in cropping)


def test_the_slurm_profile_is_found_by_its_bare_name_after_the_documented_step(tmp_path):
    project = Project(tmp_path / "project")
    documented = (ROOT / "docs/cluster.md").read_text()
    step = re.search(r"^ +(mkdir -p ~/.config/snakemake && ln -s .*)$", documented, re.MULTILINE)[1]
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    subprocess.run(["bash", "-c", step], cwd=project.folder, env=os.environ | home, check=True)
    words = ("--profile", "slurm", "--configfile", "tests/tiny/study.yaml", "--dry-run")
    done = project.run(*words, **home)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Using profiles slurm" in done.stdout
    groups = re.findall(r"Group job (\w+)", done.stdout)
    assert groups.count("plate") == 3 and groups.count("scores") == 1
    assert len([name for name in groups if name.startswith("probes_")]) == 4


def test_the_papers_study_plans_without_its_images_and_each_plate_then_says_what_it_lacks(tmp_path):
    project = Project(tmp_path / "project")
    done = project.run("--cores", "1", "--dry-run")
    assert done.returncode == 0, done.stdout[-3000:]
    jobs = int(re.search(r"^total +(\d+)$", done.stdout, re.MULTILINE)[1])
    assert jobs < 800  # by plate, encoder and budget, never by field: 69,120 fields
    planned = project.run("--profile", "profiles/slurm", "--dry-run")
    assert planned.returncode == 0, planned.stdout[-3000:]
    _, submissions = count(planned.stdout)
    assert 150 < submissions < 400
    done = project.run("--cores", "1", "results/masud2022/screens/BBBC022/20585.fields.parquet")
    assert done.returncode != 0
    assert "error: screen BBBC022: plate 20585 has no images" in done.stdout


@pytest.mark.long
def test_a_node_without_a_network_trains_embeds_and_probes(changed):
    """No hub, no index: in a network namespace of its own, without even a loopback."""
    alone = ["unshare", "--net", "--"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("network namespaces cannot be made here")
    rules = ("pretrain", "extract_features", "probe", "finetune")
    encoders = ("simclr", "efficientnet_lite0")
    targets = [f"results/tiny/scores/{encoder}/seed0.parquet" for encoder in encoders]
    words = [sys.executable, "-m", "snakemake", "--cores", "2", "--max-threads", "1"]
    words += ["--forcerun", *rules, "--configfile", "tests/tiny/study.yaml", "--", *targets]
    done = subprocess.run(
        [*alone, *words],
        cwd=changed.folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    for rule in rules:
        assert f"(Rule: {rule})" in done.stdout
