"""The study's configuration: checked once, early, and looked up in one way.

Light enough to import while the DAG is built.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import PurePath

import jsonschema

from hcsqc.core.errors import InputError

# Channels of layouts that leave no choice: name in the screen -> what it shows.
CHANNELS = {
    "bbbc022": {"w1": "DNA", "w2": "ER", "w3": "RNA", "w4": "actin, Golgi", "w5": "mitochondria"},
    "bbbc021": {"w1": "DNA", "w2": "tubulin", "w4": "actin"},
}

# Kinds of probe that train the encoder too; the others read its features.
FINETUNING = ("finetune", "finetune_search")
# Given weights are for photographs: red, green and blue.
TRANSFER_CHANNELS = 3


def check_config(config: dict, schema: Mapping) -> None:
    """Check `config` against the JSON schema and its names against each other.

    Expands environment variables in the paths of the screens and encoders, in place.
    Raises InputError naming the first key that is wrong and its place.
    """
    _validate(config, schema, "")
    study = config["study"]
    for kind, names in (
        ("screens", [study["train"], *study["test"]]),
        ("encoders", [*study["encoders"], *study["not_run"]]),
        ("probes", study["probes"]),
    ):
        for name in names:
            lookup(config[kind], name, f"study: {kind}")
    both = set(study["encoders"]) & set(study["not_run"])
    if both:
        raise InputError(f"config: encoder '{min(both)}' is in study.encoders and in study.not_run")
    for name in chosen_screens(config):
        _check_screen(config, name)
    _check_qc(config)
    _check_composites(config)
    if study["train"] in study["test"]:
        raise InputError(
            f"config: study.test: '{study['train']}' is the training screen; its own test set is "
            "always scored, list other screens here"
        )
    if not config["screens"][study["train"]]["evaluation_wells"] and not config["qc"]["detector"]:
        raise InputError(
            f"config: screens.{study['train']}.evaluation_wells is empty; labels that test come "
            "from these wells, list some"
        )
    if config["crops"]["scale_low"] >= config["crops"]["scale_high"]:
        raise InputError("config: crops.scale_low must be below crops.scale_high")
    for preset, parts in config["presets"].items():
        for method in (part for part in parts if part != "common"):
            merged = parts["common"] | parts[method]
            _check_pretraining(merged, method, schema, f"presets.{preset}.{method}")
    for name in study["encoders"]:
        _check_encoder(config, schema, name)
    for name in study["probes"]:
        beyond = set(probe_budgets(config, name)) - set(study["budgets"])
        if beyond:
            raise InputError(
                f"config: probes.{name}.budgets: {max(beyond)} is not one of study.budgets"
            )


def lookup(catalogue: Mapping, name: str, where: str) -> dict:
    """Return an entry of a catalogue; raise InputError with near names if it has none."""
    if name not in catalogue:
        raise InputError(f"config: {where}: unknown name '{name}'{_near(name, catalogue)}")
    return catalogue[name]


def chosen_screens(config: Mapping) -> list[str]:
    """Return the screens that the study needs: train, test, what these are derived from, and QC."""
    names = [config["study"]["train"], *config["study"]["test"]]
    parents = [config["screens"][name].get("derived_from") for name in names]
    names += [parent for parent in parents if parent]
    if config["qc"]["screens"] != "all":
        for name in config["qc"]["screens"]:
            lookup(config["screens"], name, "qc.screens")
            names.append(name)
    return list(dict.fromkeys(names))


def qc_screens(config: Mapping) -> list[str]:
    """Return the screens that quality control flags: those named, or all that have images."""
    names = chosen_screens(config) if config["qc"]["screens"] == "all" else config["qc"]["screens"]
    return [name for name in names if "derived_from" not in config["screens"][name]]


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


def channels(config: Mapping, screen: str) -> list[str]:
    """Return the channel names of a screen."""
    entry = config["screens"][screen]
    imaged = config["screens"][entry.get("derived_from", screen)]
    return list(imaged.get("channels") or CHANNELS[imaged["layout"]])


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
            f"{_near(unknown[0], [*inherited, 'preset', 'search'])}"
        )
    return inherited | entry


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
    """Return the name under which the weights of a transfer encoder are kept, for all studies."""
    if "file" in entry:
        digest = hashlib.sha256(entry["file"].encode()).hexdigest()[:8]
        return f"{entry['architecture']}.{PurePath(entry['file']).stem}-{digest}"
    if "package" in entry:
        return f"{entry['architecture']}.{entry['package']}"
    return entry["architecture"]


def channel_mode(entry: Mapping) -> str:
    """Return how a transfer encoder sees the channels of a composite."""
    return entry.get("channels", "composite")


def is_trainable(config: Mapping, encoder: str) -> bool:
    """Return whether an encoder can be fine-tuned: not where there is no network."""
    return not {"measures", "features"} & set(config["encoders"][encoder])


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


def _validate(value: object, schema: Mapping, where: str) -> None:
    errors = sorted(_leaves(jsonschema.Draft202012Validator(schema).iter_errors(value)), key=_order)
    if errors:
        raise InputError(_describe(errors[0], where))


def _order(error: jsonschema.ValidationError) -> tuple:
    """Sort errors so that the one that explains the others comes first: a missing kind."""
    return "'kind' is" not in error.message, error.validator != "additionalProperties", str(error)


def _check_screen(config: Mapping, name: str) -> None:
    entry = config["screens"][name]
    where = f"config: screens.{name}"
    parent = entry.get("derived_from")
    if parent:
        lookup(config["screens"], parent, f"screens.{name}.derived_from")
        if config["screens"][parent].get("derived_from"):
            raise InputError(f"{where}: '{parent}' is itself derived; derive from an imaged screen")
        for plate in entry["plates"]:
            if plate not in config["screens"][parent]["plates"]:
                raise InputError(f"{where}.plates: '{plate}' is not a plate of {parent}")
    for key in ("images", "image_csv", "table", "locations", "illumination"):
        if key in entry:
            entry[key] = _expand(entry[key], f"{where}.{key}")
    if entry.get("illumination", "retrospective") != "retrospective":
        try:
            entry["illumination"].format(plate="", channel="")
        except (LookupError, ValueError) as error:
            raise InputError(
                f"{where}.illumination: '{entry['illumination']}' is neither retrospective nor a "
                "path with {plate} and {channel}"
            ) from error
    if not parent and config["crops"]["window_um"] is not None and "pixel_um" not in entry:
        raise InputError(f"{where}: crops.window_um needs the size of its pixels, pixel_um")
    if "archives" in entry and "{plate}" in entry.get("images", ""):
        raise InputError(
            f"{where}.images: a screen with archives has one folder, without {{plate}}"
        )
    if isinstance(entry["labels"], list):
        entry["labels"] = [_expand(path, f"{where}.labels") for path in entry["labels"]]
    elif not parent and "simulate" not in entry:
        raise InputError(
            f"{where}.labels: only a simulated or derived screen has a truth; give label files"
        )
    known = channels(config, name)
    for channel in [entry["nucleus_channel"], *entry["composite"]]:
        if channel not in known:
            raise InputError(f"{where}: channel '{channel}' is not one of {', '.join(known)}")
    for plate in entry["pretrain_plates"]:
        if plate not in entry["plates"]:
            raise InputError(f"{where}.pretrain_plates: '{plate}' is not one of its plates")


def _check_qc(config: Mapping) -> None:
    entry = config["qc"]
    entry["detector"] = _expand(entry["detector"], "config: qc.detector")
    for name in qc_screens(config) if entry["screens"] == "all" else entry["screens"]:
        if "derived_from" in config["screens"][name]:
            raise InputError(
                f"config: qc.screens: '{name}' is derived and has no images of its own to flag; "
                f"name {config['screens'][name]['derived_from']}"
            )
    encoder = entry["encoder"]
    if encoder != "best":
        if encoder not in config["study"]["encoders"]:
            raise InputError(
                f"config: qc.encoder: '{encoder}' is not one of study.encoders"
                f"{_near(encoder, ['best', *config['study']['encoders']])}"
            )
        if "features" in config["encoders"][encoder]:
            raise InputError(
                f"config: qc.encoder: '{encoder}' is a table of features and cannot see other crops"
            )


def _check_composites(config: Mapping) -> None:
    """Check that an encoder of the training screen can be used on the others."""
    train = config["study"]["train"]
    wanted = len(config["screens"][train]["composite"])
    for name in config["study"]["test"]:
        found = len(config["screens"][name]["composite"])
        if found != wanted:
            raise InputError(
                f"config: screens.{train}.composite and screens.{name}.composite differ in length, "
                f"{wanted} and {found}; an encoder sees both screens, list as many channels"
            )


def _check_encoder(config: Mapping, schema: Mapping, name: str) -> None:
    entry = config["encoders"][name]
    for key in ("file", "features"):
        if key in entry:
            entry[key] = _expand(entry[key], f"config: encoders.{name}.{key}")
    if "{screen}" not in entry.get("features", "{screen}"):
        raise InputError(
            f"config: encoders.{name}.features: '{entry['features']}' holds no {{screen}}; each "
            "screen has a table of its own"
        )
    train = config["study"]["train"]
    channels = len(config["screens"][train]["composite"])
    composite = "architecture" in entry and channel_mode(entry) == "composite"
    composite = composite and entry["kind"] == "transfer"
    if composite and channels != TRANSFER_CHANNELS:
        raise InputError(
            f"config: weights of encoder '{name}' are for three channels, but "
            f"screens.{train}.composite has {channels}; state channels: each or channels: adapted "
            f"in encoders.{name}, list three channels, or leave it out of study.encoders"
        )
    if entry["kind"] == "ssl":
        merged = encoder_settings(config, name)
        _check_pretraining(merged, merged["method"], schema, f"encoders.{name}")
        _check_course(merged, merged["method"], f"encoders.{name}")
        crops = entry.get("search", merged | {"crops": merged["batch_size"]})["crops"]
        if crops < merged["batch_size"]:
            raise InputError(
                f"config: encoders.{name}.search.crops is {crops}, less than a batch of "
                f"{merged['batch_size']}"
            )
    learns = entry["kind"] == "ssl" or "measures" in entry
    if learns and not config["screens"][train]["pretrain_plates"] and not config["qc"]["detector"]:
        raise InputError(
            f"config: encoder '{name}' trains on crops, but screens.{train}.pretrain_plates "
            "is empty; list plates there"
        )


def _check_pretraining(values: Mapping, method: str, schema: Mapping, where: str) -> None:
    """Check all that a method and its training need, given together."""
    parts = [schema["$defs"][part] for part in ("pretraining", f"method_{method}")]
    known = {"kind", "method"}.union(*(part["properties"] for part in parts))
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InputError(f"config: {where}: unknown key '{unknown[0]}'{_near(unknown[0], known)}")
    for part in parts:
        own = {key: values[key] for key in values if key in part["properties"]}
        _validate(own, {**part, "$defs": schema["$defs"]}, where)


def _check_course(values: Mapping, method: str, where: str) -> None:
    """Check what an encoder's pretraining would only stumble over when it runs."""
    for wrong, problem in (
        (
            values["warmup_epochs"] > values["epochs"],
            f"warmup_epochs is {values['warmup_epochs']}, more than epochs, {values['epochs']}",
        ),
        (
            values["scale_min"] > values["scale_max"],
            f"scale_min is {values['scale_min']}, above scale_max, {values['scale_max']}",
        ),
        (
            method == "deepcluster_v2" and values["epochs"] < 2,
            "epochs is 1, but deepcluster_v2 learns from the second on",
        ),
    ):
        if wrong:
            raise InputError(f"config: {where}: {problem}")


def _expand(path: str, where: str) -> str:
    expanded = os.path.expandvars(path)
    unset = re.search(r"\$\{?(\w+)", expanded)
    if unset:
        raise InputError(f"{where}: environment variable {unset[1]} is not set")
    return expanded


def _leaves(
    errors: Iterable[jsonschema.ValidationError],
) -> Iterator[jsonschema.ValidationError]:
    for error in errors:
        if error.context:
            yield from _leaves(error.context)
        else:
            yield error


def _describe(error: jsonschema.ValidationError, inside: str) -> str:
    path = [str(part) for part in error.absolute_path]
    where = ".".join([inside, *path] if inside else path) or "top level"
    schema, instance, allowed = error.schema, error.instance, error.validator_value
    if (
        error.validator == "additionalProperties"
        and isinstance(schema, Mapping)
        and isinstance(instance, Mapping)
    ):
        known = schema.get("properties", {})
        key = min(key for key in instance if key not in known)
        return f"config: {where}: unknown key '{key}'{_near(key, known)}"
    if error.validator == "enum" and isinstance(allowed, Iterable):
        near = _near(instance, [str(value) for value in allowed])
        return f"config: {where}: unknown value '{instance}'{near}"
    if error.validator == "required":
        return f"config: {where}: {error.message.replace(' is a required property', ' is missing')}"
    return f"config: {where}: {error.message}"


def _near(name: object, known: Iterable[str]) -> str:
    near = get_close_matches(str(name), list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
