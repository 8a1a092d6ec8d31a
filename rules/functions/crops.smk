"""Published nuclei, and the screens that others are derived from."""


def locations(screen, plate):
    """Return the table of a plate's published nuclei, None where nuclei are found."""
    path = config["screens"][screen].get("locations")
    return path and path.replace("{plate}", plate)


def locations_input(wildcards):
    """Return the table of published nuclei as an input, unless it is missing: as for images."""
    path = locations(wildcards.screen, wildcards.plate)
    return those_here([path] if path else [])


def locations_flag(wildcards):
    """Return the flag that names the table of published nuclei."""
    path = locations(wildcards.screen, wildcards.plate)
    return flags({"locations": path} if path else {})


def derived_from(screen):
    """Return the screen that a derived one takes its crops from."""
    return config["screens"][screen]["derived_from"]


def nucleus_diameter_of_crops(screen):
    """Return a screen's typical nucleus diameter, in pixels of its crops."""
    size = settings.nucleus_size(config, screen)
    return size["nucleus_diameter_px"] * settings.crop_px_per_px(config, screen)


def source_window(wildcards):
    """Return the side of a screen's crops, in pixels of its images."""
    return config["crops"]["window_px"] / settings.crop_px_per_px(config, wildcards.screen)
