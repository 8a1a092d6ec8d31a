"""Paths, wildcard constraints, the config's check and digests of code. No rules."""

import os
import shlex
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

SCRIPTS = Path(workflow.basedir) / "scripts"
sys.path.insert(0, str(SCRIPTS))

from hcsqc import config as settings
from hcsqc.digest import code_digest, pretraining_digest
from hcsqc.errors import InputError
from hcsqc.files import text_digest

with open(Path(workflow.basedir) / "rules" / "config.schema.yaml") as schema_file:
    try:
        settings.check_config(config, yaml.safe_load(schema_file))
    except InputError as error:
        raise WorkflowError(str(error)) from None

# Weights are fetched by one local rule; no other job may open a connection for them.
shell.prefix("set -euo pipefail; export HF_HUB_OFFLINE=1; ")

STUDY = f"results/{config['study']['name']}"
TRACKING_URI = (
    config["tracking"]["uri"]
    or os.environ.get("MLFLOW_TRACKING_URI")
    or f"sqlite:///{STUDY}/mlflow.db"
)
# Jobs on nodes show live curves on a server alone: many writers would break a database file.
TRACKING_SERVER = TRACKING_URI if TRACKING_URI.startswith("http") else ""
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
TABLES = [f"{STUDY}/tables/table{number}.csv" for number in (1, 2, 3)]
METRICS = f"{STUDY}/tables/metrics.csv"


def one_of(names):
    """Return a wildcard constraint that matches just these names."""
    names = list(names)
    return "|".join(names) if names else "(?!)"


def encoders_of(*kinds):
    """Return the study's encoders of these kinds."""
    return [
        name for name in config["study"]["encoders"] if config["encoders"][name]["kind"] in kinds
    ]


def probes_of(kind):
    """Return the study's probes of a kind."""
    return [name for name in config["study"]["probes"] if config["probes"][name]["kind"] == kind]


SEARCHED = [name for name in encoders_of("ssl") if settings.search_trials(config, name)]


def encoders_with(key):
    """Return the study's encoders whose entry has a key."""
    return [name for name in config["study"]["encoders"] if key in config["encoders"][name]]


# Weights of trained networks, for all studies: name -> the entry of an encoder that has them.
WEIGHTS = {
    settings.weights_name(config["encoders"][name]): config["encoders"][name]
    for name in encoders_of("transfer")
    if name in encoders_with("architecture")
}
MEASURED = encoders_with("measures")
# A table of features of one's own sees no crops.
EMBEDDING = [name for name in config["study"]["encoders"] if name not in encoders_with("features")]
# Only what is trained or drawn at random has seeds; weights that are given are seed 0.
SEEDED = [name for name in encoders_of("ssl", "control") if name not in MEASURED]
ENCODER_SEEDS = [
    (encoder, seed)
    for encoder in config["study"]["encoders"]
    for seed in (config["study"]["seeds"] if encoder in SEEDED else [0])
]


wildcard_constraints:
    screen=one_of(SCREENS),
    plate="[^/]+",
    encoder=one_of(config["study"]["encoders"]),
    probe=one_of(config["study"]["probes"]),
    seed=r"\d+",
    budget=r"\d+",


def plate_file(folder, screen, plate, ending):
    """Return the path of one plate's file: `screens` or `crops`, `fields.parquet` and the like."""
    return f"{STUDY}/{folder}/{screen}/{plate}.{ending}"


def crop_files(screen, ending, plates=None):
    """Return the crops (or nuclei, summary) of a screen's plates."""
    plates = config["screens"][screen]["plates"] if plates is None else plates
    return [plate_file("crops", screen, plate, ending) for plate in plates]


def about_encoder(encoder, seed):
    """Return the path of what is known of an encoder; its weights, if any, lie beside it."""
    return f"{STUDY}/encoders/{encoder}/seed{seed}/encoder.json"


def flags(values):
    """Return settings as command-line flags: `{"batch_size": 32}` as `--batch-size 32`.

    Sorted, so that keys in another order are no change.
    """
    words = []
    for name, value in sorted(values.items()):
        dashed = name.replace("_", "-")
        words.append(f"--{dashed}")
        words += [str(item) for item in (value if isinstance(value, list) else [value])]
    return shlex.join(words)


def growing(amount):
    """Return a resource that grows with each attempt: MB of memory."""
    return lambda wildcards, attempt: amount * attempt


def minutes(amount):
    """Return a runtime that grows with each attempt, up to the day that most partitions allow."""
    return lambda wildcards, attempt: min(amount * attempt, 24 * 60)


def pick(values, *names):
    """Return some entries of a mapping."""
    return {name: values[name] for name in names}


def pick_given(values, *names):
    """Return those entries of a mapping that it has."""
    return pick(values, *(name for name in names if name in values))


def screen_entry(wildcards):
    """Return the config of a rule's screen."""
    return config["screens"][wildcards.screen]


def image_folder(screen, plate="{plate}"):
    """Return the folder of a screen's images; without a plate it may hold `{plate}`."""
    if screen in SIMULATED:
        return f"{STUDY}/simulated/{screen}/images"
    return config["screens"][screen]["images"].replace("{plate}", plate)


def source_tables(screen, plate):
    """Return the tables that say of a plate's images what their names do not, by config key."""
    if screen in SIMULATED:
        return {"image_csv": f"{STUDY}/simulated/{screen}/{plate}.image.csv"}
    entry = config["screens"][screen]
    keys = [key for key in ("image_csv", "table") if key in entry]
    return {key: entry[key].replace("{plate}", plate) for key in keys}


def source_tables_input(wildcards):
    """Return these tables as inputs, unless they are missing: a dry run needs no images."""
    paths = source_tables(wildcards.screen, wildcards.plate).values()
    return [path for path in paths if wildcards.screen in SIMULATED or Path(path).exists()]


def source_flags(wildcards):
    """Return the flags that say where a plate's images lie and how they are named."""
    screen, entry = wildcards.screen, screen_entry(wildcards)
    given = pick_given(entry, "layout", "table_prefix", "pattern")
    given |= source_tables(screen, wildcards.plate)
    given |= {"images": image_folder(screen), "channels": settings.channels(config, screen)}
    return flags(given)


def locations(screen, plate):
    """Return the table of a plate's published nuclei, None where nuclei are found."""
    path = config["screens"][screen].get("locations")
    return path and path.replace("{plate}", plate)


def locations_input(wildcards):
    """Return the table of published nuclei as an input, unless it is missing: as for images."""
    path = locations(wildcards.screen, wildcards.plate)
    return path if path and Path(path).exists() else []


def illumination_input(wildcards):
    """Return a plate's illumination functions as inputs, unless they are missing: as for images."""
    template = screen_entry(wildcards).get("illumination", "retrospective")
    if template == "retrospective":
        return []
    channels = settings.channels(config, wildcards.screen)
    paths = [template.format(plate=wildcards.plate, channel=channel) for channel in channels]
    return [path for path in paths if Path(path).exists()]


def locations_flag(wildcards):
    """Return the flag that names the table of published nuclei."""
    path = locations(wildcards.screen, wildcards.plate)
    return flags({"locations": path} if path else {})


def derived_from(screen):
    """Return the screen that a derived one takes its crops from."""
    return config["screens"][screen]["derived_from"]


def truth_files(wildcards):
    """Return the truth of a screen's plates, where the config says that labels come from it."""
    if screen_entry(wildcards)["labels"] != "truth":
        return []
    if wildcards.screen in DERIVED:
        return crop_files(wildcards.screen, "truth.parquet")
    return [
        f"{STUDY}/simulated/{wildcards.screen}/{plate}.truth.parquet"
        for plate in screen_entry(wildcards)["plates"]
    ]


def label_files(wildcards):
    """Return the label files of a screen."""
    labels = screen_entry(wildcards)["labels"]
    return [] if labels == "truth" else labels


def encoder_settings(wildcards):
    """Return everything that the config says of a rule's encoder."""
    return settings.encoder_settings(config, wildcards.encoder)


def module_file(wildcards):
    """Return the file of a network of one's own as an input, if it lies where Snakemake runs."""
    stem = encoder_settings(wildcards)["module"].split(":")[0].replace(".", "/")
    places = [Path(f"{stem}.py"), Path(stem) / "__init__.py"]
    return [str(path) for path in places if path.exists()]


def weights_file(wildcards):
    """Return the file of a network's weights as an input, unless it is missing: as for images."""
    path = WEIGHTS[wildcards.weights].get("file")
    return path if path and Path(path).exists() else []


def features_table(encoder, screen):
    """Return the table of features of one's own for a screen."""
    return config["encoders"][encoder]["features"].replace("{screen}", screen)


def pretraining_crops(wildcards):
    """Return the crops of the plates that are pretrained on."""
    return crop_files(TRAIN, "parquet", config["screens"][TRAIN]["pretrain_plates"])


def pretraining_flags(wildcards, trial=None):
    """Return the settings of an ssl encoder, or of one trial of its search."""
    own = {key: value for key, value in encoder_settings(wildcards).items() if key != "kind"}
    changed = settings.search_trials(config, wildcards.encoder)[trial] if trial else {}
    return flags(own | changed)


def pretraining_code(wildcards):
    """Return the digest of the code that pretrains a rule's encoder."""
    return pretraining_digest(encoder_settings(wildcards)["method"])


def finetuning_choice(wildcards):
    """Return the choice of settings that fine-tuning waits for, if its probe has a search."""
    if config["probes"][wildcards.probe]["kind"] != "finetune_search":
        return []
    return (
        f"{STUDY}/search/finetuning/{wildcards.encoder}/seed{wildcards.seed}/"
        f"{wildcards.probe}/budget{wildcards.budget}.json"
    )


def finetuning_flags(wildcards):
    """Return the settings of fine-tuning, or the file that a search put them in."""
    choice = finetuning_choice(wildcards)
    if choice:
        return f"--choice {shlex.quote(choice)}"
    return flags(settings.probe_settings(config, wildcards.probe))


FROZEN = ("knn", "linear", "linear_search", "logistic")


def probe_script(wildcards):
    """Return the script of a probe on frozen features."""
    return f"probe_{config['probes'][wildcards.probe]['kind']}.py"


# The analyses beside the tables train one kind of probe, the converged one.
DIAGNOSTIC_PROBE = flags(pick(config["evaluation"], "penalties", "folds"))
DIAGNOSTIC_DRAWS = min(config["evaluation"]["draws"], config["study"]["draws"])


def shuffle_flag(wildcards):
    """Return the flag of a probe that trains on shuffled labels."""
    return "--shuffle-labels" if settings.shuffles_labels(config, wildcards.probe) else ""


def pixel_factor_flag(wildcards):
    """Return the flag with a screen's pixel size over the training screen's, if both are known."""
    if config["crops"]["window_um"] is not None:
        return "--pixel-factor 1"  # crops have been resampled to one size
    sizes = [config["screens"][name].get("pixel_um") for name in (wildcards.screen, TRAIN)]
    return f"--pixel-factor {sizes[0] / sizes[1]!r}" if all(sizes) else ""


def probe_jobs(encoder, seed, probes):
    """Return the wildcards of an encoder's jobs: every probe at every budget."""
    return [
        {"encoder": encoder, "seed": seed, "probe": probe, "budget": budget}
        for probe in probes
        if settings.probed(config, encoder, probe)
        for budget in settings.probe_budgets(config, probe)
    ]


def all_features(wildcards):
    """Return an encoder's features of the training screen, then of the shift screens."""
    return [
        f"{STUDY}/features/{wildcards.encoder}/seed{wildcards.seed}/{screen}.parquet"
        for screen in LABELLED
    ]


def detector_encoders():
    """Return the encoders that the detector's is one of: those that see crops, of the first seed."""
    names = EMBEDDING if config["qc"]["encoder"] == "best" else [config["qc"]["encoder"]]
    seeds = {name: seed for name, seed in reversed(ENCODER_SEEDS)}
    return [
        f"{STUDY}/encoders/{name}/seed{seeds[name]}/encoder.safetensors"
        for name in names
        if name in seeds
    ]


def has_labels(screen):
    """Return whether a screen's labels can be looked up: from files or from its truth."""
    return bool(config["screens"][screen]["labels"])


def screen_labels(wildcards):
    """Return the labels of a screen that may set its threshold, if it has any."""
    if not has_labels(wildcards.screen):
        return []
    return [
        f"{STUDY}/labels/{wildcards.screen}.parquet",
        f"{STUDY}/labels/{wildcards.screen}.random.parquet",
    ]


def plate_scores(screen):
    """Return the scores of a screen's plates."""
    plates = config["screens"][screen]["plates"]
    return [f"{STUDY}/qc/{screen}/scores/{plate}.parquet" for plate in plates]


def sampled_features(screen):
    """Return the features of some random crops of each of a screen's plates."""
    return [path.replace(".parquet", ".features.parquet") for path in plate_scores(screen)]


def filtered_tables(screen):
    """Return a screen's LoadData tables without the bad wells, where it came as such tables."""
    entry = config["screens"][screen]
    if entry.get("layout") != "loaddata":
        return []
    return [f"{STUDY}/qc/{screen}/load_data/{plate}.csv" for plate in entry["plates"]]
