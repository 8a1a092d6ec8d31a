"""Settings and code of a pretraining, and of the trials of its search."""

from hcsqc.pretraining.digest import pretraining_digest

# Jobs on nodes show live curves on a server alone: many writers would break a database file.
TRACKING_SERVER = TRACKING_URI if TRACKING_URI.startswith("http") else ""
SEARCHED = [name for name in encoders_of("ssl") if settings.search_trials(config, name)]


def pretraining_flags(wildcards, trial=None):
    """Return the settings of an ssl encoder, or of one trial of its search."""
    own = {key: value for key, value in encoder_settings(wildcards).items() if key != "kind"}
    changed = settings.search_trials(config, wildcards.encoder)[trial] if trial else {}
    return flags(own | changed)


def pretraining_code(wildcards):
    """Return the digest of the code that pretrains a rule's encoder."""
    return pretraining_digest(encoder_settings(wildcards)["method"])
