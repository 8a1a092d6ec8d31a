"""The screen that tests of the report share."""

import pytest

from tests.qc.report.made_screen import (
    WELLS,
    make_cells,
    make_features,
    make_folder,
    make_shards,
    render,
)


@pytest.fixture(scope="session")
def screen(tmp_path_factory):
    """A screen of two plates, with everything: its folder, cells, shards, features and pages."""
    folder = tmp_path_factory.mktemp("qc")
    cells = make_cells(["p1", "p2"], WELLS, 2, 12)
    make_folder(folder, cells, 2)
    shards = make_shards(folder / "crops.parquet", cells)
    features = make_features(folder / "features.parquet", cells)
    return {
        "folder": folder,
        "cells": cells,
        "shards": shards,
        "features": features,
        "page": render(folder, shards, features=[features]),
        "plate": render(folder, shards, "p1", features=[features]),
    }
