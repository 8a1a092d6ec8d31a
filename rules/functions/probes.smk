"""Settings and inputs of probes."""

FROZEN = ("knn", "linear", "linear_search", "logistic")


def probe_script(wildcards):
    """Return the script of a probe on frozen features."""
    return f"probes/probe_{config['probes'][wildcards.probe]['kind']}.py"


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


def finetuning_flags(wildcards):
    """Return the settings of fine-tuning, or the file that a search put them in."""
    choice = finetuning_choice(wildcards)
    if choice:
        return flags({"choice": choice})
    return flags(settings.probe_settings(config, wildcards.probe))
