"""Settings and inputs of probes."""


def probes_of(kind):
    """Return the study's probes of a kind."""
    return [name for name in config["study"]["probes"] if config["probes"][name]["kind"] == kind]


# Probes on frozen features, each kind a module of the library's folder of them.
FROZEN = [
    name
    for name in config["study"]["probes"]
    if config["probes"][name]["kind"] not in settings.FINETUNING
]


def probe_kind(wildcards):
    """Return the kind of a rule's probe."""
    return config["probes"][wildcards.probe]["kind"]


def probe_code(wildcards):
    """Return the digest of the code of a probe on frozen features, without the other kinds."""
    kind = f"hcsqc/probes/frozen/{probe_kind(wildcards)}.py"
    return code_digest("probes/probe_features.py", plugin=kind)


def all_features(wildcards):
    """Return an encoder's features of the training screen, then of the shift screens."""
    return [
        f"{STUDY}/features/{wildcards.encoder}/seed{wildcards.seed}/{screen}.parquet"
        for screen in LABELLED
    ]


def shuffle_flag(wildcards):
    """Return the flag of a probe that trains on shuffled labels."""
    return "--shuffle-labels" if settings.shuffles_labels(config, wildcards.probe) else ""


def finetuning_choice(wildcards):
    """Return the choice of settings that fine-tuning waits for, if its probe has a search."""
    if config["probes"][wildcards.probe]["kind"] != "finetune_search":
        return []
    return (
        f"{STUDY}/search/finetuning/{wildcards.encoder}/seed{wildcards.seed}/"
        f"{wildcards.probe}/budget{wildcards.budget}.json"
    )


def finetuning_flags(wildcards, input):
    """Return the settings of fine-tuning, or the file that a search put them in."""
    if input.choice:
        return flags({"choice": input.choice})
    return flags(settings.probe_settings(config, wildcards.probe))
