"""Results in a bucket: a study from an empty folder and from another, a detector for others."""

import logging
import os
import re
import shutil
from pathlib import Path

import boto3
import pytest
import yaml

from tests.conftest import ROOT, Project
from tests.screens.image_server import Faults, s3_app, serving
from tests.snakemake_starts import start

pytestmark = [pytest.mark.dag, pytest.mark.server, pytest.mark.long]
BUCKET, PREFIX = "lab", "screens"
SECRET = "a-made-secret-key"
# From images to pages: given weights, pretraining, a probe, the report, flags.
STUDY = {
    "study": {
        "test": [],
        "encoders": ["efficientnet_lite0", "deepcluster_v2"],
        "probes": ["logistic"],
        "budgets": [20],
        "draws": 2,
    },
    "evaluation": {"replicates": 20, "draws": 2},
    "screens": {"tiny022": {"plates": ["1001"]}},
}
# Another screen, flagged by the detector of the first study, which lies in the bucket.
NEXT = {
    "study": {"name": "next", "test": []},
    "qc": {"detector": "results/tiny/qc/detector"},
    "screens": {"tiny022": {"labels": [], "plates": ["1003"], "pretrain_plates": []}},
}
LOCAL = ("mlflow", "mlartifacts", ".mlflow", "qc/mlflow", "simulated", "logs")  # of a study


class Places:
    """A copy of the project, folders to start Snakemake in, and a bucket."""

    def __init__(self, folder: Path, url: str):
        self.project = Project(folder / "project")
        self.folder, self.url = folder, url
        self.bucket = boto3.resource(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key=SECRET,
        ).Bucket(BUCKET)

    def run(self, name: str, *words: str, stored: bool = True, **changes) -> str:
        """Start Snakemake in a folder; return what it printed if it ended well."""
        done = self.start(name, *words, stored=stored, **changes)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def start(self, name, *words: str, stored=True, prefix=PREFIX, base=STUDY, **changes):
        """Start Snakemake in a folder, with some sections of the study changed."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        files = [self.project.folder / "tests/tiny/study.yaml"]
        for number, section in enumerate((base, changes)):
            files.append(self.folder / f"{name}{number}.yaml")
            files[-1].write_text(yaml.safe_dump(section))
        line = [*words, "-s", self.project.folder / "Snakefile", "--cores", "2"]
        line += ["--max-threads", "1", "--configfile", *files]
        if stored:
            line += ["--default-storage-provider", "s3"]
            line += ["--default-storage-prefix", f"s3://{BUCKET}/{prefix}"]
        own = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": self.url,
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "key",
            "SNAKEMAKE_STORAGE_S3_SECRET_KEY": SECRET,
        }
        return start(line, folder, os.environ | own)

    def planned(self, name: str, *words: str, **changes) -> set[str]:
        """Return the rules of a dry run that have jobs."""
        printed = self.run(name, *words, "--dry-run", **changes)
        if "Nothing to be done" in printed:
            return set()
        table = printed.split("Job stats:")[1].split("\n\n")[0]
        names = {line.split()[0] for line in table.splitlines()[3:] if line.strip()}
        return names - {"total", "all", "qc"}

    def objects(self, study: str = "tiny") -> dict[str, bytes]:
        """Return what the bucket holds of a study, by path."""
        start = f"{PREFIX}/results/{study}/"
        found = self.bucket.objects.filter(Prefix=start)
        return {one.key.removeprefix(start): one.get()["Body"].read() for one in found}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An empty bucket, and folders."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # of thousands of requests
    with serving(Faults(forbidden=("/private/",)).wrap(s3_app())) as url:
        made = Places(tmp_path_factory.mktemp("bucket"), url)
        made.bucket.create()
        yield made


@pytest.fixture(scope="module")
def places(server):
    """The study twice: on this disk, and from an empty folder into the bucket."""
    server.run("local", "all", "qc", stored=False)
    server.run("first", "all", "qc")
    return server


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_the_bucket_holds_what_a_disk_would_and_the_tables_are_the_same(places):
    local = places.folder / "local/results/tiny"
    kept = places.objects()
    expected = {path for path in files_below(local) if not path.startswith(LOCAL)}
    expected.add("simulated/tiny022/1001.truth.parquet")
    found = {path for path in kept if not path.startswith("logs/")}
    assert found == expected
    assert {path for path in files_below(local) if path.startswith("logs/")} >= {
        path for path in kept if path.startswith("logs/")
    }
    tables = [path for path in expected if path.endswith(".csv") or "predictions/" in path]
    assert len(tables) > 15
    assert [path for path in tables if kept[path] != (local / path).read_bytes()] == []


def test_no_command_names_a_result_on_this_disk(server):
    """Of the whole tiny study, which has every kind of encoder and probe; nothing of it runs."""
    targets = ("all", "qc", "label_pages", "suspicious_labels", "nuclei_figures", "screen_features")
    words = ("--dry-run", "--printshellcmds")
    done = server.start("planned", *targets, *words, prefix="planned", base={})
    assert done.returncode == 0, done.stdout[-3000:]
    commands = [line for line in done.stdout.splitlines() if '"$HCSQC"' in line]
    assert len(commands) > 100
    named = {path for line in commands for path in re.findall(r"(?<![^\s'=])results/\S+", line)}
    images = {path for path in named if "/simulated/" in path}
    saved = {path for path in named if re.search(r"/checkpoints$|/search/simclr/lr[^/]+$", path)}
    assert images and saved and named == images | saved


def test_only_images_and_logs_stay_where_it_ran(places):
    first = places.folder / "first"
    left = [path for path in files_below(first / "results") if "/simulated/" not in f"/{path}"]
    assert left == []
    copies = files_below(first / ".snakemake/storage")
    assert [path for path in copies if not path.endswith(".log")] == []
    written = [path for path in first.rglob("*") if path.is_file()]
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []


def test_nothing_is_to_be_done_from_another_empty_folder(places):
    assert places.planned("first", "all", "qc") == set()
    assert places.planned("second", "all", "qc") == set()


def test_a_changed_setting_runs_again_where_snakemake_s_notes_are(places):
    changes = {"qc": {"good_cells_lost": 0.4}}
    again = {"set_threshold", "flag_plate", "flag_screen", "check_planted", "make_qc_report"}
    assert places.planned("first", "qc", **changes) == again
    # Elsewhere only times are known, until the notes are copied.
    assert places.planned("third", "qc", **changes) == set()
    notes = places.folder / "first/.snakemake/metadata"
    shutil.copytree(notes, places.folder / "third/.snakemake/metadata", dirs_exist_ok=True)
    assert places.planned("third", "qc", **changes) == again
    assert places.planned("third", "all", "qc") == set()


def test_another_study_elsewhere_takes_the_detector_from_the_bucket(places):
    flags = "results/next/qc/tiny022/cells.parquet"
    printed = places.run("elsewhere", flags, **NEXT)
    assert "rule fit_detector" not in printed and "rule score_plate" in printed
    assert "qc/tiny022/cells.parquet" in places.objects("next")
    # From a study on a disk, by its URL.
    url = f"s3://{BUCKET}/{PREFIX}/results/tiny/qc/detector"
    places.run("near", flags, stored=False, **NEXT | {"qc": {"detector": url}})
    assert (places.folder / "near" / flags).is_file()


def test_results_brought_home_are_those_of_an_ordinary_study(places):
    home = places.folder / "home"
    for one in places.bucket.objects.filter(Prefix=f"{PREFIX}/results/"):
        path = home / one.key.removeprefix(f"{PREFIX}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.get()["Body"].read())
        time = one.last_modified.timestamp()
        os.utime(path, (time, time))
    printed = places.run("home", "track_runs", stored=False)
    assert "1 of 1 steps (100%) done" in printed
    assert "'new': " in printed


def test_a_bucket_that_is_refused_is_one_line(server):
    done = server.start("refused", "--dry-run", prefix="private")
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "s3://lab/private: results cannot be kept there (An error occurred (403)" in done.stdout
    said = (ROOT / "docs/cluster.md").read_text()
    assert "Results in a bucket" in done.stdout and "## Results in a bucket" in said


def test_a_refresh_of_results_in_a_bucket_is_refused_with_what_to_do(server):
    done = server.start("first", "refresh")
    assert done.returncode != 0 and "--forcerun index_plate" in done.stdout


def test_a_job_alone_in_an_empty_folder_finds_all_that_it_reads(places):
    """What an earlier job left on this disk would hide an input that no rule states.

    The last test: what it makes again is newer than what was made of it.
    """
    for record in ("qc/detector", "encoders/efficientnet_lite0/seed0"):
        printed = places.run("alone", "--force", f"results/tiny/runs/{record}/run.json")
        assert "1 of 1 steps (100%) done" in printed
        shutil.rmtree(places.folder / "alone")
