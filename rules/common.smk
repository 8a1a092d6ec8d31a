"""What the rules of all stages share: where the code lies, the config, paths. No rules.

A stage's own input functions are in `functions/`.
"""

import os
import sys
from copy import deepcopy
from dataclasses import replace
from math import ceil
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import update_config


include: "functions/project.smk"


SCRIPTS = PROJECT / "scripts"
if {"{", "}"} & set(str(PROJECT)):
    raise WorkflowError(
        f"{PROJECT}: braces in the name of the project's folder are names to fill in for "
        "Snakemake; rename the folder"
    )
# The code beside this file is what the digests are of, whichever copy of it is installed.
sys.path.insert(0, str(SCRIPTS))

from hcsqc.core import config as settings
from hcsqc.core.cli import flags
from hcsqc.core.digest import code_digest
from hcsqc.core.errors import InputError
from hcsqc.core.files import check_writable
from hcsqc.encoders.registry import resolve_models
from hcsqc.figures.words import study_words
from hcsqc.terminal.handler import take_terminal

# Where results are kept instead of on this disk: `s3://bucket/prefix`, by Snakemake's own option.
BUCKET = (
    workflow.storage_settings.default_storage_provider
    and workflow.storage_settings.default_storage_prefix
)


def check_bucket():
    """Ask the bucket once; Snakemake would do so for hundreds of files, with a traceback of each."""
    asked = workflow.storage_registry.default_storage_provider.object(f"{BUCKET}/results")
    try:
        validity = asked.is_valid_query()
        why = "" if validity else validity.reason
        if not why:
            asked.exists()
    except Exception as error:
        why = str(error)
    if why:
        raise InputError(
            f"{BUCKET}: results cannot be kept there ({why}); check its name, the endpoint and "
            "the keys: docs/cluster.md, Results in a bucket"
        )


# From here on a person sees a line per stage; a workflow that imports this one keeps its own lines.
TERMINAL = (
    take_terminal(workflow.output_settings, os.environ)
    if workflow.is_main_process and workflow.modifier.is_main_snakefile()
    else None
)

try:
    # No `configfile:`, which Snakemake looks for in the folder where it runs, and leaves out of a
    # module that is given a config.
    DEFAULTS = settings.read_defaults(PROJECT / "config.yaml")
    given, config = config, deepcopy(DEFAULTS)
    update_config(config, given)
    resolve_models(config)
    if workflow.is_main_process:
        check_writable(Path(".snakemake"))
        if BUCKET:
            check_bucket()
        from hcsqc.core.config_check import check_config

        check_config(config)
    else:  # a job of a workflow whose config has passed
        settings.join_with(config)
        settings.expand_paths(config)
except InputError as error:
    raise WorkflowError(str(error)) from None

# Every command starts with "$HCSQC", which runs a script of this project by the Python that runs
# Snakemake, or by that of the job's conda environment or container. It is no part of the
# command's text, so that a project that moves runs nothing again.
DEPLOYED = getattr(workflow.deployment_settings, "deployment_method", set())
OWN_PYTHON = {DeploymentMethod.CONDA, DeploymentMethod.APPTAINER} & set(DEPLOYED)
os.environ.update(
    HCSQC=str(SCRIPTS / "run.sh"),
    HCSQC_PYTHON="python" if OWN_PYTHON else sys.executable,
    # Whether a job prints to the terminal, too; on a cluster, to the log of its submission.
    HCSQC_ECHO="no" if TERMINAL else "yes",
    # Files of encoders are data; the code that they ask for runs only if the config names it.
    HCSQC_NETWORKS=" ".join(
        {*os.environ.get("HCSQC_NETWORKS", "").split(), *settings.named_networks(config)}
    ),
    HCSQC_CONNECTIONS=str(config["remote_images"]["connections"]),
    HCSQC_IMAGE_COPIES=config["remote_images"]["copies"] or "",
    HCSQC_IMAGE_COPIES_GIB=str(config["remote_images"]["copies_gib"]),
)

STUDY = f"results/{config['study']['name']}"
if TERMINAL:
    TERMINAL.study = Path(STUDY)
TRACKING_URI = (
    config["tracking"]["uri"]
    or os.environ.get("MLFLOW_TRACKING_URI")
    or f"sqlite:///{STUDY}/mlflow.db"
)
TRAIN = config["study"]["train"]
TEST = config["study"]["test"]
SCREENS = settings.chosen_screens(config)
SIMULATED = [name for name in SCREENS if "simulate" in config["screens"][name]]
DERIVED = [name for name in SCREENS if "derived_from" in config["screens"][name]]
LABELLED = [TRAIN, *TEST]
# A control on shuffled labels is no classifier to choose an encoder by.
JUDGED = [
    probe for probe in config["study"]["probes"] if not settings.shuffles_labels(config, probe)
]
PREDICTIONS = f"{STUDY}/predictions/{{encoder}}/seed{{seed}}/{{probe}}/budget{{budget}}.parquet"
PROBE_RECORD = f"{STUDY}/runs/probes/{{encoder}}/seed{{seed}}/{{probe}}/budget{{budget}}/run.json"
# Functions, because Snakemake would take braces in a plain value for wildcards.
WORDS = study_words(config)


def words(wildcards):
    """Return the names of encoders and probes in words, for a figure of both."""
    return WORDS.text


def encoder_words(wildcards):
    """Return the names of encoders in words, for a figure that one more probe does not change."""
    return replace(WORDS, probes={}).text


TABLES = [f"{STUDY}/tables/table{number}.csv" for number in (1, 2, 3)]
METRICS = f"{STUDY}/tables/metrics.csv"


def one_of(names):
    """Return a wildcard constraint that matches just these names."""
    names = list(names)
    return "|".join(names) if names else "(?!)"


# The study's, and those that they are made of.
ENCODERS = settings.built_encoders(config)


def encoders_of(*kinds):
    """Return the encoders of these kinds, of the study or a part of one."""
    return [name for name in ENCODERS if config["encoders"][name]["kind"] in kinds]


def encoders_with(key):
    """Return the encoders whose entry has a key, of the study or a part of one."""
    return [name for name in ENCODERS if key in config["encoders"][name]]


MEASURED = encoders_with("measures")
# A table of your own features sees no crops.
EMBEDDING = [name for name in config["study"]["encoders"] if name not in encoders_with("features")]
# Only what is trained or drawn at random has seeds; weights that are given are seed 0.
SEEDED = [name for name in ENCODERS if settings.is_seeded(config, name)]
ENCODER_SEEDS = [
    (encoder, seed)
    for encoder in config["study"]["encoders"]
    for seed in (config["study"]["seeds"] if encoder in SEEDED else [0])
]


wildcard_constraints:
    screen=one_of(SCREENS),
    plate="[^/]+",
    encoder=one_of(ENCODERS),
    probe=one_of(config["study"]["probes"]),
    seed=r"\d+",
    budget=r"\d+",


def is_stored(path):
    """Return whether a file that the config names is a URL, or a result in the bucket."""
    return "://" in path or bool(BUCKET) and str(Path(path)).startswith("results/")


def given(path):
    """Return a file that the config names as an input: a URL, a result, or a file on this disk."""
    if "://" in path:
        return storage(path)
    return local(path) if BUCKET and not is_stored(path) else path


def those_here(paths):
    """Return files beside the images as inputs, without the missing: a dry run needs no images."""
    return [local(path) for path in paths if Path(path).exists()]


def plate_file(folder, screen, plate, ending):
    """Return the path of one plate's file: `screens` or `crops`, `fields.parquet` and the like."""
    return f"{STUDY}/{folder}/{screen}/{plate}.{ending}"


def crop_files(screen, ending, plates=None):
    """Return the crops (or nuclei, summary) of a screen's plates."""
    plates = config["screens"][screen]["plates"] if plates is None else plates
    return [plate_file("crops", screen, plate, ending) for plate in plates]


def labelled_plates(screen):
    """Return the plates of a screen that its labels lie on: all, unless it says which."""
    entry = config["screens"][screen]
    return entry.get("labelled_plates", entry["plates"])


def labelled_crops(screen, ending):
    """Return the crops (or nuclei, summary) of a screen's labelled plates.

    What learns from labels, or is tested on them, has no other plate as an input: so nothing is
    trained again when plates are added.
    """
    return crop_files(screen, ending, labelled_plates(screen))


def about_encoder(encoder, seed):
    """Return the path of what is known of an encoder; its weights, if any, lie beside it."""
    return f"{STUDY}/encoders/{encoder}/seed{seed}/encoder.json"


def growing(amount):
    """Return a resource that grows with each attempt: MB of memory."""
    return lambda wildcards, attempt: amount * attempt


def minutes(amount):
    """Return a runtime that grows with each attempt, up to the day that most partitions allow."""
    return lambda wildcards, attempt: min(amount * attempt, 24 * 60)


def by_plates(resource, fixed, each):
    """Return `growing` or `minutes` of an amount that has a part for each plate of the screen."""
    return lambda wildcards, attempt: resource(
        fixed + ceil(each * len(screen_entry(wildcards)["plates"]))
    )(wildcards, attempt)


def pick(values, *names):
    """Return some entries of a mapping."""
    return {name: values[name] for name in names}


def pick_given(values, *names):
    """Return those entries of a mapping that it has."""
    return pick(values, *(name for name in names if name in values))


# The analyses beside the tables train one kind of probe, the converged one.
# What is independent: of the rules that read labels, and of none before them.
GROUP_BY = flags(pick(config["evaluation"], "group_by"))
DIAGNOSTIC_PROBE = flags(pick(config["evaluation"], "penalties", "folds"))


def screen_entry(wildcards):
    """Return the config of a rule's screen."""
    return config["screens"][wildcards.screen]


def channel_roles(screen, encoder=None):
    """Return what a screen's channels show, for commands; none if the encoder does not ask for it."""
    if encoder and not settings.asks_for_roles(config, encoder):
        return []
    return [f"{name}:{role}" for name, role in settings.channel_roles(config, screen).items()]


def image_folder(screen, plate="{plate}"):
    """Return the folder of a screen's images; without a plate it may hold `{plate}`."""
    if screen in SIMULATED:
        return f"{STUDY}/simulated/{screen}/images"
    return config["screens"][screen]["images"].replace("{plate}", plate)


def encoder_settings(wildcards):
    """Return everything that the config says of a rule's encoder."""
    return settings.encoder_settings(config, wildcards.encoder)


def probe_jobs(encoder, seed, probes):
    """Return the wildcards of an encoder's jobs: every probe at every budget."""
    return [
        {"encoder": encoder, "seed": seed, "probe": probe, "budget": budget}
        for probe in probes
        if settings.probed(config, encoder, probe)
        for budget in settings.probe_budgets(config, probe)
    ]


def features_table(encoder, screen):
    """Return the table of your own features for a screen."""
    return config["encoders"][encoder]["features"].replace("{screen}", screen)


def pretraining_crops(wildcards):
    """Return the crops of the plates that are pretrained on."""
    return crop_files(TRAIN, "parquet", config["screens"][TRAIN]["pretrain_plates"])
