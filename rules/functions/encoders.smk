"""Files of weights and networks that users bring."""

import json

from hcsqc.encoders.registry import registered

# Weights of trained networks, for all studies: name -> the entry of an encoder that has them.
WEIGHTS = {
    settings.weights_name(config["encoders"][name]): config["encoders"][name]
    for name in encoders_of("transfer")
    if name in encoders_with("architecture")
}


def weights_source(entry, file):
    """Return the flags that say where weights are found, and for which network."""
    known = pick_given(entry, "architecture", "model", "file", "package")
    if file:
        known["file"] = file  # a copy, if it is kept elsewhere
    if entry.get("options"):
        known["options"] = json.dumps(entry["options"], sort_keys=True)
    return flags(known)


def published_input(entry):
    """Return mean and standard deviation of a registered model's input, empty for others."""
    if "model" not in entry:
        return []
    model = registered(entry["model"])
    return [*model.mean, *model.std]


def module_file(wildcards):
    """Return the file of a network of one's own as an input, if it lies where Snakemake runs."""
    stem = encoder_settings(wildcards)["module"].split(":")[0].replace(".", "/")
    places = [Path(f"{stem}.py"), Path(stem) / "__init__.py"]
    return [local(str(path)) for path in places if path.exists()]


def weights_file(wildcards):
    """Return the file of a network's weights as an input, unless it is missing: as for images."""
    path = WEIGHTS[wildcards.weights].get("file")
    return given(path) if path and (is_stored(path) or Path(path).exists()) else []


def kept_weights(wildcards):
    """Return the weights of an encoder as all studies keep them; what is known lies beside."""
    return f"results/weights/{settings.weights_name(encoder_settings(wildcards))}.safetensors"


def own_weights(wildcards):
    """Return the file of weights for a network of one's own, if the config names one."""
    path = encoder_settings(wildcards).get("file")
    return given(path) if path else []


def sight(wildcards):
    """Return what the config says of how a given network sees crops, for flags."""
    own = pick_given(encoder_settings(wildcards), "normalisation", "roles", "missing_roles")
    if "missing_roles" in own:
        own["missing_roles"] = [f"{role}:{other}" for role, other in own["missing_roles"].items()]
    return own


def part_encoders(wildcards):
    """Return the encoders that an encoder is made of; those that have no seeds are seed 0."""
    return [
        f"{STUDY}/encoders/{part}/seed{wildcards.seed if part in SEEDED else 0}/encoder.safetensors"
        for part in settings.parts(config, wildcards.encoder)
    ]


def about_parts(wildcards):
    """Return what is known of the encoders that an encoder is made of."""
    return [path.replace(".safetensors", ".json") for path in part_encoders(wildcards)]
