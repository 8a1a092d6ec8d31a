"""The choice of the detector's encoder: recall first, then other screens, then size."""

import json
from pathlib import Path

import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.qc.choice import choose_encoder

RECALL = "recall_at_5_percent"
SIZES = {"vgg": 60_000_000, "simclr": 45_000_000, "measures": 2_000, "unranked": 1}


def write_ranking(folder: Path, *rows) -> Path:
    """Write a ranking from (encoder, probe, screen, metric, budget, mean[, verdict])."""
    columns = ["encoder", "probe", "screen", "metric", "budget", "mean", "verdict"]
    table = pd.DataFrame([(*row, "tie")[:7] for row in rows], columns=columns)
    table.assign(low=table["mean"] - 0.1, high=table["mean"] + 0.1).to_csv(
        folder / "ranking.csv", index=False
    )
    return folder / "ranking.csv"


def recalls(**means) -> list[tuple]:
    """Return rows of the recall on screen sim with 100 labels."""
    return [(name, "knn", "sim", RECALL, 100, mean) for name, mean in means.items()]


def choose(path: Path, lost: float = 0.05):
    return choose_encoder(path, "knn", "sim", SIZES, lost)


def test_the_highest_recall_with_the_most_labels_counts_and_nothing_else(tmp_path):
    path = write_ranking(
        tmp_path,
        *recalls(vgg=0.81, simclr=0.9351, table=0.99),  # a table sees no crops
        ("vgg", "knn", "sim", RECALL, 25, 0.97),
        ("vgg", "linear", "sim", RECALL, 100, 0.98),
        ("vgg", "knn", "sim", "f1", 100, 0.98),
        ("vgg", "knn", "sim", "recall_at_1_percent", 100, 0.98),
        ("simclr", "knn", "sim", "recall_at_1_percent", 100, 0.7),
    )
    found = choose(path)
    assert found.encoder == "simclr"
    assert found.why == (
        "finds 93.5% of the aberrant crops where 5% of the normal ones are lost, under knn with "
        "100 labels"
    )
    assert [row["encoder"] for row in found.candidates] == ["simclr", "vgg"]
    assert json.loads(json.dumps(found.candidates))[1] == {
        "encoder": "vgg",
        "recall": 0.81,
        "low": 0.71,
        "high": 0.91,
        "elsewhere": None,
        "megabytes": 60.0,
    }
    assert choose(path, lost=0.012).encoder == "vgg"


def test_a_tie_goes_to_the_encoder_that_holds_up_on_the_other_screens(tmp_path):
    path = write_ranking(
        tmp_path,
        *recalls(vgg=0.900, simclr=0.890, measures=0.885),
        ("vgg", "knn", "other", RECALL, 100, 0.30),
        ("simclr", "knn", "other", RECALL, 100, 0.80),
        ("measures", "knn", "other", RECALL, 100, 0.70),
    )
    found = choose(path)
    assert found.encoder == "simclr"
    assert found.why.endswith(", and 80.0% on the other screens; 2 others are within two points")


def test_a_tie_everywhere_goes_to_the_smallest(tmp_path):
    rows = recalls(vgg=0.90, simclr=0.89, measures=0.885)
    assert choose(write_ranking(tmp_path, *rows)).encoder == "measures"
    others = [(name, "knn", "other", RECALL, 100, 0.5) for name in ("vgg", "simclr", "measures")]
    assert choose(write_ranking(tmp_path, *rows, *others)).encoder == "measures"


@pytest.mark.parametrize("moved", [-0.004, 0.0, 0.004])
def test_another_processors_rounding_changes_no_choice(moved, tmp_path):
    """A tie of two encoders by less than what bfloat16 moves is decided elsewhere."""
    path = write_ranking(
        tmp_path,
        *recalls(vgg=0.90 + moved, simclr=0.90 - moved),
        ("vgg", "knn", "other", RECALL, 100, 0.3 - moved),
        ("simclr", "knn", "other", RECALL, 100, 0.8 + moved),
    )
    assert choose(path).encoder == "simclr"


def test_what_the_labels_tell_to_be_worse_is_no_tie(tmp_path):
    rows = recalls(vgg=0.90, simclr=0.89)
    worse = (*rows[1], "worse")
    assert choose(write_ranking(tmp_path, rows[0], worse)).encoder == "vgg"


@pytest.mark.parametrize(
    "row",
    [
        ("table", "knn", "sim", RECALL, 100, 0.9),
        ("vgg", "linear", "sim", RECALL, 100, 0.9),
        ("vgg", "knn", "other", RECALL, 100, 0.9),
        ("vgg", "knn", "sim", RECALL, 100, None),  # labels too few to score anything
    ],
    ids=["encoder", "probe", "screen", "score"],
)
def test_a_ranking_without_any_of_the_encoders_names_what_to_set(tmp_path, row):
    message = "ranking.csv ranks no encoder .* probe knn; name one in qc.encoder, .* more wells"
    with pytest.raises(InputError, match=message):
        choose(write_ranking(tmp_path, row))
