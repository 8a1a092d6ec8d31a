"""The study's configuration, looked up in one way; `config_check` checks it.

Light enough to import while the DAG is built.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path, PurePath

from hcsqc.core.errors import InputError, in_one_line
from hcsqc.core.places import parse_well, role_by_name

# Channels of layouts that leave no choice: name in the screen -> what it shows.
CHANNELS = {
    "bbbc022": {"w1": "DNA", "w2": "ER", "w3": "RNA", "w4": "actin, Golgi", "w5": "mitochondria"},
    "bbbc021": {"w1": "DNA", "w2": "tubulin", "w4": "actin"},
}
# Roles of the channels of layouts that leave no choice.
LAYOUT_ROLES = {
    "bbbc022": {"w1": "DNA", "w2": "ER", "w3": "RNA", "w4": "AGP", "w5": "Mito"},
    "bbbc021": {"w1": "DNA", "w2": "tubulin", "w4": "actin"},
}
# What the network of an entry with `with` is called: an encoder joined with the others there.
ALONE = "_alone"
# Kinds of probe that train the encoder too; the others read its features.
FINETUNING = ("finetune", "finetune_search")
# Given weights are for photographs: red, green and blue.
TRANSFER_CHANNELS = 3
WELLS = ("evaluation_wells", "wells")
# Whose values may hold environment variables, with what is filled in; labels of a screen too.
SCREEN_PATHS: dict[str, tuple[str, ...]] = {
    "images": ("{plate}",),
    "image_csv": ("{plate}",),
    "table": ("{plate}",),
    "locations": ("{plate}",),
    "dates": (),
    "illumination": ("{plate}", "{channel}"),
}
ENCODER_PATHS: dict[str, tuple[str, ...]] = {"file": (), "features": ("{screen}",)}
# Of the stem of a file, in the name that its weights are kept by.
LONGEST_STEM = 80
# Where the Cell Painting Gallery is, if a screen of its layout does not say where a copy is.
GALLERY = "s3://cellpainting-gallery"
SECRET = (
    "holds a password or signature, which records would keep; set credentials in the environment, "
    "see docs/screens.md"
)


def read_defaults(path: Path) -> dict:
    """Return `config.yaml`; raises InputError if it cannot be read, or is no mapping in UTF-8."""
    import yaml  # environments of jobs need not have it

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it has no keys")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: cannot be read as YAML in UTF-8 ({in_one_line(error)}); restore it from the "
            "repository, and write your settings into your study's file"
        ) from error
    return found


def near(name: object, known: Iterable[object]) -> str:
    """Return the end of a message about an unknown name: the likely one, else the known ones."""
    names = [str(value) for value in known]
    likely = get_close_matches(str(name), names, n=1)
    return f"; did you mean '{likely[0]}'?" if likely else f"; known: {', '.join(names)}"


def lookup(catalogue: Mapping, name: str, where: str) -> dict:
    """Return an entry of a catalogue; raise InputError with near names if it has none."""
    if name not in catalogue:
        raise InputError(f"config: {where}: unknown name '{name}'{near(name, catalogue)}")
    return catalogue[name]


def chosen_screens(config: Mapping) -> list[str]:
    """Return the screens that the study needs: train, test, what these are derived from, and QC."""
    names = [config["study"]["train"], *config["study"]["test"]]
    for name in list(names):
        parent = config["screens"][name].get("derived_from")
        if parent:
            lookup(config["screens"], parent, f"screens.{name}.derived_from")
            names.append(parent)
    if config["qc"]["screens"] != "all":
        for name in config["qc"]["screens"]:
            lookup(config["screens"], name, "qc.screens")
            names.append(name)
    return list(dict.fromkeys(names))


def qc_screens(config: Mapping) -> list[str]:
    """Return the screens that quality control flags: those named, or all that have images."""
    names = chosen_screens(config) if config["qc"]["screens"] == "all" else config["qc"]["screens"]
    return [name for name in names if "derived_from" not in config["screens"][name]]


def holds_secret(path: str) -> bool:
    """Return whether a path is a URL that holds a user, a password or a signature."""
    if not re.match("(?i)[a-z0-9]+://", path):
        return False
    signed = path.lower().startswith("http") and re.search("[?#]", path)
    return "@" in path.split("/")[2] or bool(signed)


def refuse_secret(path: str, where: object) -> None:
    """Raise InputError for a path that a table lists if it holds a secret, which it leaves out."""
    if holds_secret(path):
        shown = re.sub("[?#].*", "?...", re.sub("://[^/]*@", "://...@", path))
        raise InputError(f"{where}: {shown} {SECRET}")


def expand_paths(config: dict) -> None:
    """Expand environment variables in the paths of the study's screens, encoders and detector.

    In place. Wells of its screens are written alike, as A01. Raises InputError for a variable that
    is not set, and for a path that Snakemake or a command would take for something else.
    """
    for kind, names, keys in (
        ("screens", chosen_screens(config), SCREEN_PATHS),
        ("encoders", built_encoders(config), ENCODER_PATHS),
    ):
        for name in names:
            entry = config[kind][name]
            if entry.get("layout") == "cell_painting_gallery":
                entry.setdefault("images", GALLERY)
            for key in (key for key in keys if key in entry):
                where = f"config: {kind}.{name}.{key}"
                entry[key] = _expand(entry[key], where, keys[key])
            if holds_secret(entry.get("table_prefix", "")):
                raise InputError(f"config: screens.{name}.table_prefix: {SECRET}")
            if published := entry.get("published_flags") if kind == "screens" else None:
                where = f"config: screens.{name}.published_flags.table"
                published["table"] = _expand(published["table"], where, ("{plate}",))
            for section in (entry, entry.get("simulate", {})) if kind == "screens" else ():
                for key in (key for key in WELLS if key in section):
                    section[key] = [parse_well(well) or well for well in section[key]]
            if kind == "screens" and isinstance(entry["labels"], list):
                where = f"config: screens.{name}.labels"
                entry["labels"] = [_expand(path, where) for path in entry["labels"]]
    config["qc"]["detector"] = _expand(config["qc"]["detector"], "config: qc.detector")
    if copies := config["remote_images"]["copies"]:
        config["remote_images"]["copies"] = _expand(copies, "config: remote_images.copies")


def describe_data(config: Mapping) -> str:
    """Return one sentence that says what data the study's figures are about."""
    kinds = []
    for name in chosen_screens(config):
        entry = config["screens"][name]
        if "simulate" in entry:
            kinds.append(f"{name} is simulated")
        elif "derived_from" in entry:
            kinds.append(f"{name} is {entry['derived_from']} with simulated artefacts")
        else:
            kinds.append(f"{name} is a real screen")
    return (
        f"Trained on {config['study']['train']}, tested on it and on "
        f"{', '.join(config['study']['test']) or 'no other screen'}: {'; '.join(kinds)}."
    )


def listed_channels(config: Mapping, screen: str) -> list[str]:
    """Return the channel names of a screen with images, whether they are downloaded or not."""
    imaged = config["screens"][screen]
    return list(imaged.get("channels") or CHANNELS[imaged["layout"]])


def channels(config: Mapping, screen: str) -> list[str]:
    """Return the channel names of a screen.

    Of images at a URL only those that nuclei and composites are of, because each is downloaded.
    """
    name = config["screens"][screen].get("derived_from", screen)
    imaged = config["screens"][name]
    listed = listed_channels(config, name)
    # An encoder may see channels by their roles, in the composite or not.
    by_role = any("roles" in encoder for encoder in config.get("encoders", {}).values())
    by_role = by_role or bool(config.get("qc", {}).get("detector"))
    in_one_file = imaged["layout"] == "files" and "(?P<channel>" not in imaged["pattern"]
    if by_role or in_one_file or "://" not in imaged.get("images", ""):
        return listed
    used = {imaged["nucleus_channel"], *imaged["composite"]}
    for other in config["screens"].values():
        if other.get("derived_from") == name:
            used.update(other["composite"], [other["nucleus_channel"]])
    return [channel for channel in listed if channel in used]


def channel_roles(config: Mapping, screen: str) -> dict[str, str]:
    """Return what each channel of a screen shows: as the screen says, else as its name says."""
    entry = config["screens"][screen]
    imaged = config["screens"][entry.get("derived_from", screen)]
    known = LAYOUT_ROLES.get(imaged["layout"], {}) | imaged.get("channel_roles", {})
    return {name: known.get(name, role_by_name(name)) for name in channels(config, screen)}


def asks_for_roles(config: Mapping, encoder: str) -> bool:
    """Return whether an encoder, or one that it is made of, chooses channels by role."""
    own = "roles" in config["encoders"][encoder]
    return own or any(asks_for_roles(config, part) for part in parts(config, encoder))


def seen_channels(config: Mapping, encoder: str) -> int:
    """Return the number of channels that an encoder that is given sees."""
    composite = config["screens"][config["study"]["train"]]["composite"]
    return len(config["encoders"][encoder].get("roles", composite))


def join_with(config: dict) -> None:
    """Make of each encoder with a key `with` a joined one of itself and those, in place.

    The network alone becomes the encoder NAME_alone. Raises InputError if that name is taken.
    """
    encoders = config["encoders"]
    for name in [name for name, entry in encoders.items() if "with" in entry]:
        alone = f"{name}{ALONE}"
        if alone in encoders:
            raise InputError(
                f"config: encoders.{alone}: encoders.{name} has `with`, so its network alone is "
                "called by this name; choose another"
            )
        entry = encoders[name]
        encoders[alone] = {key: entry[key] for key in entry if key != "with"}
        encoders[name] = {"kind": "joined", "encoders": [alone, *entry["with"]]}


def crop_px_per_px(config: Mapping, screen: str) -> float:
    """Return the pixels of a crop along one pixel of the screen's images: 1 without window_um."""
    crops, entry = config["crops"], config["screens"][screen]
    if crops["window_um"] is None:
        return 1.0
    imaged = config["screens"][entry.get("derived_from", screen)]
    return crops["window_px"] * imaged["pixel_um"] / crops["window_um"]


def nucleus_size(config: Mapping, screen: str) -> dict:
    """Return the size of nuclei on the screen's images: its own, else that of `crops`."""
    entry = config["screens"][config["screens"][screen].get("derived_from", screen)]
    names = "nucleus_diameter_px", "nucleus_smallest_px"
    return {name: entry.get(name, config["crops"][name]) for name in names}


def encoder_settings(config: Mapping, name: str) -> dict:
    """Return an encoder's entry with everything that its preset gives it, without its search."""
    entry = dict(config["encoders"][name])
    if entry["kind"] != "ssl":
        return entry
    entry.pop("search", None)
    preset = lookup(config["presets"], entry.pop("preset"), f"encoders.{name}.preset")
    method = lookup(preset, entry["method"], f"encoders.{name}.method")
    inherited = preset["common"] | method
    unknown = [key for key in entry if key not in inherited and key not in ("kind", "method")]
    if unknown:
        raise InputError(
            f"config: encoders.{name}: unknown key '{unknown[0]}' for method {entry['method']}"
            f"{near(unknown[0], [*inherited, 'preset', 'search'])}"
        )
    return inherited | entry


def parts(config: Mapping, name: str) -> list[str]:
    """Return the encoders that an encoder is made of: one that is pooled, or several joined."""
    entry = config["encoders"][name]
    if entry["kind"] == "joined":
        return entry["encoders"]
    return [entry["encoder"]] if entry["kind"] == "pooled" else []


def built_encoders(config: Mapping) -> list[str]:
    """Return the study's encoders and before each those that it is made of."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        for part in parts(config, name):
            add(part)
        found[name] = None

    for name in config["study"]["encoders"]:
        add(name)
    return list(found)


def named_networks(config: Mapping) -> list[str]:
    """Return your own networks, `module:function`, of all encoders, chosen or not."""
    entries = config["encoders"].values()
    return sorted({entry["module"] for entry in entries if "module" in entry})


def is_seeded(config: Mapping, name: str) -> bool:
    """Return whether an encoder, or one that it is made of, is trained or drawn at random."""
    own, of = config["encoders"][name], parts(config, name)
    if of:
        return any(is_seeded(config, part) for part in of)
    return own["kind"] in ("ssl", "control") and "measures" not in own


def search_trials(config: Mapping, name: str) -> dict[str, dict]:
    """Return what each trial of an encoder's line search changes, by the trial's name.

    Empty for an encoder that has none. Names are `lr0.001_wd0.0001`, in the config's order.
    """
    search = config["encoders"][name].get("search")
    if not search:
        return {}
    epochs = search["epochs"]
    warmup = min(encoder_settings(config, name)["warmup_epochs"], epochs // 2)
    budget = {"epochs": epochs, "warmup_epochs": warmup, "snapshots": 0}
    return {
        f"lr{rate!r}_wd{decay!r}": {"learning_rate": rate, "weight_decay": decay} | budget
        for rate in search["learning_rate"]
        for decay in search["weight_decay"]
    }


def probe_budgets(config: Mapping, probe: str) -> list[int]:
    """Return the label budgets of a probe: its own, the largest, or else the study's."""
    own = config["probes"][probe].get("budgets", config["study"]["budgets"])
    return [max(config["study"]["budgets"])] if own == "largest" else own


def probe_draws(config: Mapping, probe: str) -> int:
    """Return the number of draws of a probe: its own, or else the study's."""
    return config["probes"][probe].get("draws", config["study"]["draws"])


def probe_settings(config: Mapping, probe: str) -> dict:
    """Return what a probe does: its entry without kind, budgets and draws."""
    entry = config["probes"][probe]
    apart = ("kind", "budgets", "draws", "shuffle_labels")
    return {key: entry[key] for key in entry if key not in apart}


def shuffles_labels(config: Mapping, probe: str) -> bool:
    """Return whether a probe is the control that trains on labels of other crops."""
    return config["probes"][probe].get("shuffle_labels", False)


def weights_name(entry: Mapping) -> str:
    """Return the name under which the weights of a transfer encoder are kept, for all studies.

    It differs for networks with other options, whose tensors have other names or shapes.
    """
    of = f"model.{entry['model']}" if "model" in entry else entry["architecture"]
    options = json.dumps(entry["options"], sort_keys=True) if entry.get("options") else ""
    if "file" in entry:
        digest = hashlib.sha256((entry["file"] + options).encode()).hexdigest()[:8]
        return f"{of}.{PurePath(entry['file']).stem[:LONGEST_STEM]}-{digest}"
    if "package" in entry:
        of = f"{of}.{entry['package']}"
    return f"{of}.{hashlib.sha256(options.encode()).hexdigest()[:8]}" if options else of


def channel_mode(entry: Mapping) -> str:
    """Return how a transfer encoder sees the channels of a composite."""
    return entry.get("channels", "composite")


def is_trainable(config: Mapping, encoder: str) -> bool:
    """Return whether an encoder can be fine-tuned: one with a network of its own."""
    entry = config["encoders"][encoder]
    if {"measures", "features"} & set(entry) or parts(config, encoder):
        return False
    return entry.get("pool") != "stages"  # the gradient of a deviation has no limit


def probed(config: Mapping, encoder: str, probe: str) -> bool:
    """Return whether a probe is for an encoder: fine-tuning needs one that can be trained."""
    return config["probes"][probe]["kind"] not in FINETUNING or is_trainable(config, encoder)


def differences(
    config: Mapping, base: Mapping, prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Yield `(dotted key, value, value in base)` for each value of `config` that differs."""
    for key, value in config.items():
        other = base.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from differences(value, other, f"{prefix}{key}.")
        elif value != other:
            yield f"{prefix}{key}", value, other


def _expand(path: str, where: str, filled: Iterable[str] = ()) -> str:
    """Return a path with its environment variables; `filled` are the names that are filled in."""
    expanded = os.path.expandvars(path)
    unset = re.search(r"\$\{?(\w+)", expanded)
    if unset:
        raise InputError(f"{where}: environment variable {unset[1]} is not set")
    check_path(expanded, where, filled)
    if holds_secret(expanded):
        raise InputError(f"{where}: {SECRET}")
    return expanded


def check_path(path: str, where: str, filled: Iterable[str] = ()) -> None:
    """Raise InputError if a path holds other braces than `filled`, or what commands misread."""
    rest = path
    for name in filled:
        rest = rest.replace(name, "")
    problem = None
    if "{" in rest or "}" in rest:
        known = " and ".join(filled)
        problem = (
            f"contains braces, but only {known} can be filled in; correct or rename it"
            if known
            else "contains braces, which are placeholders; rename the file or folder"
        )
    elif path.startswith("-"):
        problem = "looks like a flag; write ./ before it"
    elif not path.isprintable():
        problem = "contains a line break or another unprintable character; rename it"
    if problem:
        raise InputError(f"{where}: {path!r} {problem}")
