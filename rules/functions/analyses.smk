"""Settings of the analyses."""

DIAGNOSTIC_DRAWS = min(config["evaluation"]["draws"], config["study"]["draws"])


def pixel_factor_flag(wildcards):
    """Return the flag with a screen's pixel size over the training screen's, if both are known."""
    if config["crops"]["window_um"] is not None:
        return "--pixel-factor 1"  # crops have been resampled to one size
    sizes = [config["screens"][name].get("pixel_um") for name in (wildcards.screen, TRAIN)]
    return f"--pixel-factor {sizes[0] / sizes[1]!r}" if all(sizes) else ""
