"""The check of a config: what each key may hold, and whether its names agree with each other.

Imports pydantic, so only the process that builds the DAG first imports this, not its jobs.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hcsqc.core.config import (
    ALONE,
    CHANNELS,
    TRANSFER_CHANNELS,
    built_encoders,
    channel_mode,
    channel_roles,
    check_path,
    chosen_screens,
    encoder_settings,
    expand_paths,
    is_trainable,
    join_with,
    listed_channels,
    lookup,
    near,
    parts,
    probe_budgets,
    qc_screens,
    seen_channels,
)
from hcsqc.core.config_model import METHODS, PLATE, WORD, Config, Section
from hcsqc.core.errors import InputError
from hcsqc.core.places import by_role

# What pydantic finds -> the rest of "config: place: value ..."; `{x}` are its context.
MESSAGES = {
    "no_scheme": "is not a path or a URL of s3://, gs:// or https://",
    "greater_than_equal": "is less than the minimum of {ge}",
    "greater_than": "is less than or equal to the minimum of {gt}",
    "less_than_equal": "is greater than the maximum of {le}",
    "less_than": "is greater than or equal to the maximum of {lt}",
    "multiple_of": "is not a multiple of {multiple_of}",
    "string_pattern_mismatch": "does not match '{pattern}'{meaning}",
    "string_too_long": "is longer than {max_length} characters; give it a shorter name",
    "too_short": "should be non-empty",
    "repeated": "has non-unique elements",
    "no_channel": "begins with - or a space, or holds one of , : / \\ {{ }} \" ' $ `",
    "no_well": "is not a well such as A01",
    "finite_number": "is not a finite number",
    "int_type": "is not of type 'integer'",
    "float_type": "is not of type 'number'",
    "bool_type": "is not of type 'boolean'",
    "string_type": "is not of type 'string'",
    "list_type": "is not of type 'array'",
    "dict_type": "is not of type 'object'",
    "model_type": "is not of type 'object'",
}
# What patterns mean to a person.
MEANINGS = {
    WORD: ": letters, digits, _ and -, not beginning with -",
    PLATE: ": no /, braces or line breaks, and not beginning with - . = + @ or a space",
}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
# Pools that weigh the pixels of a network's maps.
OF_MAPS = ("last", "stages")
# Folders of results/ that belong to no study.
SHARED_FOLDERS = ("weights",)
LONGEST_SHOWN = 60  # characters of a wrong value
# An error that explains others comes first.
FIRST = ("unknown_kind", "unknown_key")
# Layouts whose tables say which compound is in a well.
NAMING_COMPOUNDS = ("bbbc021", "bbbc022", "loaddata", "cell_painting_gallery")


def check_config(config: dict) -> None:
    """Check `config` against its model and its names against each other.

    Expands environment variables in its paths, and encoders that have `with`, in place. Raises
    InputError naming the first key that is wrong and its place, in one line.
    """
    try:
        _check(config)
    except InputError as error:  # names may hold what breaks lines
        shown = (one if one.isprintable() else repr(one)[1:-1] for one in str(error))
        raise InputError("".join(shown)) from error


def _check(config: dict) -> None:
    _validate(Config, config, "")
    join_with(config)
    _check_study(config)
    expand_paths(config)
    for name in chosen_screens(config):
        _check_screen(config, name)
    _check_qc(config)
    _check_composites(config)
    for preset, values in config["presets"].items():
        for method in (part for part in values if part != "common"):
            merged = values["common"] | values[method]
            _validate(METHODS[method], merged, f"presets.{preset}.{method}")
    for name in built_encoders(config):
        _check_encoder(config, name)
    for name in config["study"]["probes"]:
        beyond = set(probe_budgets(config, name)) - set(config["study"]["budgets"])
        if beyond:
            raise InputError(
                f"config: probes.{name}.budgets: {max(beyond)} is not one of study.budgets"
            )


def _validate(model: type[Section], value: object, where: str) -> None:
    try:
        model.model_validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = min(errors, key=lambda found: found["type"] not in FIRST)
        raise InputError(_describe(first, value, where)) from None


def _describe(error: ErrorDetails, value: object, where: str) -> str:
    """Return the one line that says what is wrong: its place, then the problem."""
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    place = [where] if where else []
    for part in _keys(error["loc"], value, kind == "missing"):
        place.append(str(part))
    if kind == "unknown_kind" and isinstance(given, Mapping):
        key = context["key"]
        if key in given:
            place.append(key)
            problem = f"unknown value '{given[key]}'{near(given[key], context['known'])}"
        else:
            problem = f"'{key}' is missing"
    elif kind == "missing":
        problem = f"'{error['loc'][-1]}' is missing"
    elif kind in ("unknown_key", "absent", "secret"):
        problem = error["msg"]
    elif kind == "literal_error":
        problem = _about_literal(given, context["expected"])
    else:
        kind = "model_type" if kind == "unknown_kind" else kind
        meaning = MEANINGS.get(str(context.get("pattern")), "")
        rest = (
            MESSAGES[kind].format(**context, meaning=meaning)
            if kind in MESSAGES
            else f": {error['msg']}"
        )
        if kind == "string_type":
            rest += _about_quotes(given)
        shown = repr(given)
        if len(shown) > LONGEST_SHOWN:
            shown = f"{shown[:LONGEST_SHOWN]}..."
        problem = f"{shown} {rest}"
    return f"config: {'.'.join(place) or 'top level'}: {problem}"


def _about_quotes(given: object) -> str:
    """Return what to do about a name that YAML takes for something else."""
    if isinstance(given, bool):
        return "; YAML reads yes, no, on and off as true and false: quote the name, as in 'no'"
    if isinstance(given, int | float):
        return (
            "; YAML converts numbers (0042 as 34, 12:30 as 750, 1.0e+3 as 1000.0): quote "
            "the name, as in '0042'"
        )
    if isinstance(given, date):
        return "; YAML reads it as a date: quote the name, as in '2024-01-31'"
    return ""


def _keys(loc: Sequence[int | str], value: Any, is_missing: bool) -> Iterable[int | str]:
    """Yield those parts of an error's place that are keys of the config, not members of a union."""
    known = loc[:-1] if is_missing else loc[:-2] if loc[-1:] == ("[key]",) else loc
    for part in known:
        inside = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(inside, Mapping) and part in inside:
            value = inside[part]
            yield part


def _about_literal(given: object, expected: str) -> str:
    """Return what is wrong with a value that is none of pydantic's `'a', 'b' or 'c'`."""
    values = ast.literal_eval(f"[{expected.replace(' or ', ', ')}]")
    if len(values) == 1:
        return f"{values[0]!r} was expected"
    return f"unknown value '{given}'{near(given, values)}"


def _check_study(config: Mapping) -> None:
    """Check that the study's names are those of screens, encoders and probes."""
    study = config["study"]
    if study["name"] in SHARED_FOLDERS:
        raise InputError(
            f"config: study.name: '{study['name']}' is the folder of results/ that all studies "
            "share; choose another name"
        )
    for kind, names in (
        ("screens", [study["train"], *study["test"]]),
        ("encoders", [*study["encoders"], *study["not_run"]]),
        ("probes", study["probes"]),
    ):
        for name in names:
            lookup(config[kind], name, f"study: {kind}")
    for name in study["encoders"]:
        _check_parts(config, name, ())
    both = set(study["encoders"]) & set(study["not_run"])
    if both:
        raise InputError(f"config: encoder '{min(both)}' is in study.encoders and in study.not_run")
    if study["train"] in study["test"]:
        raise InputError(
            f"config: study.test: '{study['train']}' is the training screen; its own test set is "
            "always scored, list other screens here"
        )
    if not config["screens"][study["train"]]["evaluation_wells"] and not config["qc"]["detector"]:
        raise InputError(
            f"config: screens.{study['train']}.evaluation_wells is empty; test labels come from "
            "these wells; list some"
        )
    _check_groups(config)


def _check_groups(config: Mapping) -> None:
    """Check that the screens of the study may have several plates or compounds to tell apart."""
    group_by, train = config["evaluation"]["group_by"], config["study"]["train"]
    entry = config["screens"][train]
    plates = entry.get("labelled_plates", entry["plates"])
    if group_by == "plate" and len(plates) == 1 and not config["qc"]["detector"]:
        raise InputError(
            f"config: evaluation.group_by is plate, but screens.{train} has one plate with labels, "
            f"{plates[0]}, so that none is left to test; set it to well or compound"
        )
    flagged = qc_screens(config) if config["qc"]["screens"] == "all" else config["qc"]["screens"]
    compared = [train, *config["study"]["test"]]
    names = dict.fromkeys([*compared, *flagged])
    for name in names if group_by == "compound" else ():
        entry = config["screens"][name]
        if not entry["labels"] and (name not in compared or config["qc"]["detector"]):
            continue  # none is grouped
        layout = config["screens"][entry.get("derived_from", name)]["layout"]
        if layout not in NAMING_COMPOUNDS:
            raise InputError(
                f"config: evaluation.group_by is compound, but screens.{name} has the layout "
                f"{layout}, which names no compounds: describe it by a LoadData table with "
                "Metadata_Compound (layout loaddata), or set group_by to well or plate"
            )


def _check_parts(config: Mapping, name: str, within: tuple[str, ...]) -> None:
    """Check that the encoders that one is made of are there, can be, and are not itself."""
    if name in within:
        raise InputError(f"config: encoders.{name} refers to itself: {' -> '.join(within)}")
    key = "encoders" if config["encoders"][name]["kind"] == "joined" else "encoder"
    for part in parts(config, name):
        entry = lookup(config["encoders"], part, f"encoders.{name}.{key}")
        if key == "encoder" and not is_trainable(config, part):
            raise InputError(
                f"config: encoders.{name}.encoder: '{part}' has no network whose feature maps "
                "could be pooled"
            )
        if "features" in entry:
            raise InputError(
                f"config: encoders.{name}.encoders: '{part}' is a table of features and cannot "
                "see other crops"
            )
        _check_parts(config, part, (*within, name))


def _check_screen(config: Mapping, name: str) -> None:
    entry = config["screens"][name]
    where = f"config: screens.{name}"
    parent = entry.get("derived_from")
    if parent:
        if config["screens"][parent].get("derived_from"):
            raise InputError(f"{where}: '{parent}' is itself derived; derive from an imaged screen")
        for plate in entry["plates"]:
            if plate not in config["screens"][parent]["plates"]:
                raise InputError(f"{where}.plates: '{plate}' is not a plate of {parent}")
    simulated = config["screens"][parent or name].get("simulate", {}).get("wells")
    for well in entry["evaluation_wells"] if simulated else ():
        if well not in simulated:
            raise InputError(
                f"{where}.evaluation_wells: '{well}' is not one of the simulated wells"
                f"{near(well, simulated)}"
            )
    if not parent and config["crops"]["window_um"] is not None and "pixel_um" not in entry:
        raise InputError(f"{where}: crops.window_um needs the size of its pixels, pixel_um")
    if "archives" in entry and "://" in entry.get("images", ""):
        raise InputError(
            f"{where}.images: archives are unpacked into a folder, but this is a URL; leave "
            "archives out, or give a folder"
        )
    if "archives" in entry and "{plate}" in entry.get("images", ""):
        raise InputError(
            f"{where}.images: a screen with archives has one folder, without {{plate}}"
        )
    if entry["labels"] == "truth" and not parent and "simulate" not in entry:
        raise InputError(
            f"{where}.labels: only a simulated or derived screen has a ground truth; give label "
            "files"
        )
    if "archives" in entry:
        for key, filled in (("plate", ["{plate}"]), ("files", [])):
            for file in entry["archives"][key]:
                check_path(file, f"{where}.archives.{key}", filled)
    known = listed_channels(config, parent or name)
    for channel in entry.get("channel_roles", ()):
        if channel not in known:
            raise InputError(f"{where}.channel_roles: '{channel}' is not one of {', '.join(known)}")
    published = CHANNELS.get(entry.get("layout"), known)
    for channel in known:
        if channel not in published:
            raise InputError(f"{where}.channels: '{channel}' is not one of {', '.join(published)}")
    for channel in [entry["nucleus_channel"], *entry["composite"]]:
        if channel not in known:
            raise InputError(f"{where}: channel '{channel}' is not one of {', '.join(known)}")
    for plate in entry["plates"]:
        check_path(plate, f"{where}.plates")
    for key in ("pretrain_plates", "labelled_plates"):
        for plate in entry.get(key, ()):
            if plate not in entry["plates"]:
                raise InputError(f"{where}.{key}: '{plate}' is not one of its plates")


def _check_qc(config: Mapping) -> None:
    entry = config["qc"]
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
                f"{near(encoder, ['best', *config['study']['encoders']])}"
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


def _check_encoder(config: Mapping, name: str) -> None:
    entry = config["encoders"][name]
    if "{screen}" not in entry.get("features", "{screen}"):
        raise InputError(
            f"config: encoders.{name}.features: '{entry['features']}' does not contain {{screen}}; "
            "each screen needs its own table"
        )
    train = config["study"]["train"]
    _check_roles(config, name)
    channels = seen_channels(config, name)
    composite = "architecture" in entry and channel_mode(entry) == "composite"
    composite = composite and entry["kind"] == "transfer"
    needed = entry.get("options", {}).get("in_chans", TRANSFER_CHANNELS)
    if composite and channels != needed:
        seen = f"encoders.{name}.roles" if "roles" in entry else f"screens.{train}.composite"
        number = NUMBERS.get(needed, str(needed))
        raise InputError(
            f"config: weights of encoder '{name}' are for {number} channels, but {seen} has "
            f"{channels}; state channels: each or channels: adapted in encoders.{name}, list "
            f"{number} channels, or leave it out of study.encoders"
        )
    if entry["kind"] == "pooled" and entry["region"] == "cell" and entry["pool"] not in OF_MAPS:
        raise InputError(
            f"config: encoders.{name}.region: the cell is for pool {' and '.join(OF_MAPS)}, not "
            f"{entry['pool']}, which has no maps; state region: window"
        )
    if entry["kind"] == "ssl":
        merged = encoder_settings(config, name)
        method = merged["method"]
        values = {key: merged[key] for key in merged if key not in ("kind", "method")}
        _validate(METHODS[method], values, f"encoders.{name}")
        _check_course(values, method, f"encoders.{name}")
        crops = entry.get("search", values | {"crops": values["batch_size"]})["crops"]
        needed = [("batch", values["batch_size"])]
        if method == "moco_v2_plus" and "search" in entry:
            needed.append(("queue", values["queue_size"]))
        for what, number in needed:
            if crops < number:
                raise InputError(
                    f"config: encoders.{name}.search.crops is {crops}, less than a {what} of "
                    f"{number}"
                )
    learns = entry["kind"] == "ssl" or "measures" in entry
    if learns and not config["screens"][train]["pretrain_plates"] and not config["qc"]["detector"]:
        raise InputError(
            f"config: encoder '{name}' trains on crops, but screens.{train}.pretrain_plates "
            "is empty; list plates there"
        )


def _check_roles(config: Mapping, name: str) -> None:
    """Check that every screen that an encoder sees has the channels that it asks for by role."""
    entry, study = config["encoders"][name], config["study"]
    roles, missing = entry.get("roles", []), entry.get("missing_roles", {})
    for role in missing:
        if role not in roles:
            raise InputError(
                f"config: encoders.{name}.missing_roles: '{role}' is not one of its roles; known: "
                f"{', '.join(roles) or 'none'}"
            )
    screens = [study["train"], *study["test"]]
    if config["qc"]["encoder"] in (name, name.removesuffix(ALONE)):
        screens += qc_screens(config)
    for screen in dict.fromkeys(screens) if roles else ():
        where = f"config: encoders.{name}.roles: screen {screen}"
        by_role(roles, missing, channel_roles(config, screen), where)


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
            values.get("tau_start", 0) > values.get("tau_end", 1),
            f"tau_start is {values.get('tau_start')}, above tau_end, {values.get('tau_end')}",
        ),
        (
            method == "deepcluster_v2" and values["epochs"] < 2,
            "epochs is 1, but deepcluster_v2 learns from the second on",
        ),
    ):
        if wrong:
            raise InputError(f"config: {where}: {problem}")
