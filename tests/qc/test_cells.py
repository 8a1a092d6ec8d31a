"""The table of cells, drift of plates, and the calibration of a screen."""

import numpy as np
import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.core.schema import write_table
from hcsqc.qc import calibration
from hcsqc.qc.calibration import calibrate, estimate_prevalence, held_out_of
from hcsqc.qc.cells import cells_of, drift_warnings

THRESHOLD = {"threshold": 0.5, "assumed_prevalence": 0.1, "training_share": 0.5}


def nuclei(n: int = 6) -> pd.DataFrame:
    """Return nuclei of two wells; the last lies at the border."""
    field = [f"sim/p1/B0{2 + i % 2}/s1" for i in range(n)]
    return pd.DataFrame(
        {
            "crop_id": [f"{place}/x{10 * i:04d}y0007" for i, place in enumerate(field)],
            "field_id": field,
            "x_px": np.arange(n) * 10,
            "y_px": 7,
            "area_px": 200,
            "kept": np.arange(n) < n - 1,
            "reason": [None] * (n - 1) + ["border"],
        }
    )


def scores_of(rows: pd.DataFrame, values) -> pd.DataFrame:
    kept = rows[rows["kept"]]
    return pd.DataFrame(
        {
            "crop_id": kept["crop_id"],
            "score": values,
            "artefact": "blur",
            "focus": 0.5,
            "edge": 0.2,
            "saturated": 0.0,
        }
    )


def test_every_nucleus_has_a_row_scored_or_with_the_reason_why_not(tmp_path):
    rows = nuclei()
    cells = cells_of(rows, scores_of(rows, [0.1, 0.5, 0.500001, 0.9, 1.0]), THRESHOLD)
    assert cells["crop_id"].tolist() == rows["crop_id"].tolist()
    assert cells["flagged"].tolist() == [False, False, True, True, True, pd.NA]
    assert cells["artefact"].fillna("").tolist() == ["", "", "blur", "blur", "blur", ""]
    assert cells["Metadata_Well"].tolist() == ["B02", "B03"] * 3
    assert cells["Nuclei_Location_Center_X"].tolist() == [0, 10, 20, 30, 40, 50]
    assert "border" in cells["reason"].iloc[5] and cells["reason"][:5].isna().all()
    write_table(cells, tmp_path / "cells.parquet", "cells")


def test_probabilities_are_those_at_the_screens_prevalence():
    rows = nuclei()
    cells = cells_of(rows, scores_of(rows, [0.5, 0, 1, 0.9, 0.2]), THRESHOLD)
    # Bayes: odds of .5 fall from 1 to 1/9.
    assert cells["probability"][0] == pytest.approx(0.1)
    assert cells["probability"][[1, 2]].tolist() == [0, 1]
    assert cells["probability"][3] == pytest.approx(9 / (9 + 9))
    unknown = cells_of(rows, scores_of(rows, [0.5] * 5), THRESHOLD | {"assumed_prevalence": None})
    assert unknown["probability"].isna().all()


@pytest.mark.parametrize("change", ["missing", "strange"])
def test_scores_of_other_nuclei_are_an_error(change):
    rows = nuclei()
    scores = scores_of(rows, [0.1] * 5)
    if change == "missing":
        scores = scores[1:]
    else:
        scores.loc[0, "crop_id"] = "sim/p1/B02/s1/x9999y0000"
    with pytest.raises(InputError, match="score the plates again"):
        cells_of(rows, scores, THRESHOLD)


def test_a_plate_that_drifts_is_warned_of_by_name_and_measure():
    plates = pd.DataFrame(
        {
            "Metadata_Plate": ["p1", "p2", "p3"],
            "feature_shift": [0.4, 0.6, 0.1],
            "score_shift": [0.1, 0.1, 0.3],
        }
    )
    told = drift_warnings(plates, 0.5, 0.2, "sim")
    assert told[0] == ""
    assert told[1].startswith("its cells look different")
    assert "0.60 standard deviations from those of sim" in told[1]
    assert told[2].startswith("its scores are distributed differently")


ABOUT = {"study": "study", "screen": "sim", "trained_on": "labels"}


def held_out(n: int = 400, abnormal: float = 0.2) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    is_abnormal = rng.random(n) < abnormal
    return pd.DataFrame(
        {
            "crop_id": [f"sim/p1/B02/s1/x{i:04d}y0001" for i in range(n)],
            "plate": "p1",
            "well": [f"{'BCDEFGH'[i % 7]}{2 + i % 10:02d}" for i in range(n)],
            "group": [f"p1/{'BCDEFGH'[i % 7]}{2 + i % 10:02d}" for i in range(n)],
            "label": np.where(is_abnormal, "abnormal", "normal"),
            "selection": "random",
            "random": np.arange(n) % 2 == 0,
            "score": np.clip(rng.normal(0.2 + 0.6 * is_abnormal, 0.1), 0, 1),
        }
    )


def test_labels_of_the_screen_itself_promise_and_others_do_not():
    labels = held_out()
    own, unproven = held_out_of("study", "sim", ABOUT, labels, labels, labels, labels)
    # Those drawn by class leave out good cells that are hard to tell.
    assert unproven == "" and own.equals(labels[labels["random"]])
    _, unproven = held_out_of("study", "next", ABOUT, labels, None, None, labels)
    assert unproven.startswith("No promise: the labels of next set no threshold")
    _, unproven = held_out_of(
        "study",
        "sim",
        ABOUT | {"trained_on": "simulated artefacts"},
        labels,
        labels,
        labels,
        labels,
    )
    assert "simulated artefacts, not on labels that people gave" in unproven


def test_another_screens_own_labels_are_joined_to_its_scores_by_crop():
    labels = held_out()
    random = labels[:10].drop(columns=["score", "random"])
    rest = labels[5:50].drop(columns=["score", "random"])
    scores = labels[["crop_id", "score"]].sample(frac=1, random_state=0)
    found, unproven = held_out_of("study", "other", ABOUT, labels[:0], rest, random, scores)
    assert unproven == "" and found["crop_id"].tolist() == random["crop_id"].tolist()
    both = found.merge(labels, on="crop_id")
    np.testing.assert_array_equal(both["score_x"], both["score_y"])


def test_only_random_labels_with_a_held_out_score_set_a_threshold():
    labels = held_out()
    labels["random"] = np.arange(len(labels)) >= 100
    labels.loc[100:149, "score"] = np.nan
    own, _ = held_out_of("study", "sim", ABOUT, labels, labels, labels, labels)
    assert own.index.tolist() == list(range(150, 400))
    with pytest.raises(InputError, match="none of its 100 labels was chosen at random"):
        held_out_of("study", "sim", ABOUT, labels[:100], labels, labels, labels)
    with pytest.raises(InputError, match="50 random labels lie in too few wells"):
        held_out_of("study", "sim", ABOUT, labels[100:150], labels, labels, labels)


def test_labels_of_a_screen_that_the_detector_never_saw_set_its_threshold():
    labels = held_out()
    own = labels.drop(columns=["score", "random"])
    of_artefacts = ABOUT | {"screen": "degraded", "trained_on": "simulated artefacts"}
    for about in (of_artefacts, ABOUT | {"study": "november"}):
        found, unproven = held_out_of("study", "sim", about, labels[:0], own, own[:30], labels)
        assert unproven == "" and len(found) == 30 and found["random"].all()


def test_a_crop_chosen_in_both_ways_was_chosen_at_random():
    labels = held_out().drop(columns=["score", "random"])
    both = labels.assign(selection="uncertain")
    found, _ = held_out_of("study", "other", ABOUT, held_out(), both, labels[:40], held_out())
    assert len(found) == 40 and found["random"].all()


def test_calibration_reports_prevalence_and_precision_of_the_random_labels():
    labels = held_out()
    found = calibrate(labels, 0.5, 0.05, 0.95, "")
    at_random = labels[labels["random"]]
    share = (at_random["label"] == "abnormal").mean()
    assert found["prevalence"][0] == pytest.approx(share)
    assert found["prevalence"][1] < share < found["prevalence"][2]
    assert found["promise"] and found["bound"] <= 0.05
    flagged = labels["score"] > found["threshold"]
    assert (labels["label"][flagged] == "abnormal").mean() == pytest.approx(
        found["precision"][0], abs=0.05
    )


def test_a_prevalence_of_none_found_leaves_probabilities_above_nought():
    labels = held_out()
    labels["random"] &= labels["label"] == "normal"
    found = calibrate(labels, 0.5, 0.05, 0.95, "")
    assert found["prevalence"][0] == 0
    of_cells = estimate_prevalence(found, None, labels["score"].to_numpy(), labels["well"], True)
    assumed = 0.5 / (labels["random"].sum() + 1)
    assert of_cells["assumed_prevalence"] == pytest.approx(assumed)
    flagged = (labels["score"] > found["threshold"]).mean()
    assert of_cells["flagged_share"] == pytest.approx(flagged)


def test_without_a_promise_the_prevalence_is_estimated_from_the_scores(monkeypatch):
    monkeypatch.setattr(calibration, "RESAMPLES", 5)  # quick
    labels = held_out()
    rare = labels[(labels["label"] == "normal") | (labels.index % 10 == 0)]
    threshold = calibrate(labels, 0.5, 0.05, 0.95, "No promise: unlabelled")
    assert threshold["prevalence"] is None and not threshold["promise"]
    cells = rare["score"].to_numpy(), rare["well"].to_numpy()
    found = estimate_prevalence(threshold, labels, *cells, True)
    planted = (rare["label"] == "abnormal").mean()
    assert found["assumed_prevalence"] == pytest.approx(planted, abs=0.03)


def test_where_nothing_is_promised_few_labels_still_give_a_threshold():
    labels = held_out(60)
    found = calibrate(labels, 0.5, 0.05, 0.95, "No promise: simulated")
    normal = labels["score"][labels["label"] == "normal"]
    assert 0 < (normal > found["threshold"]).mean() <= 0.05
    assert found["bound"] is None and not found["promise"] and found["wells_for_stricter"] == {}


def test_crops_that_nobody_has_looked_at_are_not_taken_for_good_cells():
    labels = held_out()
    found = calibrate(labels, 0.5, 0.05, 0.95, "No promise: simulated", False)
    strict = calibrate(labels, 0.5, 0.05, 0.95, "No promise: of another screen")
    normal = labels["score"][labels["label"] == "normal"]
    assert (normal > found["threshold"]).sum() == int(0.05 * len(normal))
    assert found["threshold"] < strict["threshold"] and found["bound"] is None


def test_labels_of_too_few_wells_promise_nothing_and_say_how_many_it_takes():
    labels = held_out()
    labels["well"] = [f"B{2 + i % 9:02d}" for i in range(len(labels))]
    labels["group"] = labels["plate"] + "/" + labels["well"]
    found = calibrate(labels, 0.5, 0.05, 0.95, "")
    normal = labels["score"][labels["label"] == "normal"]
    assert not found["promise"] and (found["wells"], found["wells_needed"]) == (9, 59)
    assert found["note"].startswith(
        f"No promise: {len(normal)} random normal labels lie in 9 wells"
    )
    assert "at least 59 wells with random normal labels, 50 more: 9 wells allow" in found["note"]
    assert found["note"].endswith("the threshold flags 4.7% of these labels")
    assert 0.04 < (normal > found["threshold"]).mean() <= 0.05
    # What the labels say beside the promise still counts.
    assert found["prevalence"] and found["precision"]
    assert all(other["promise"] is None for other in found["others"])
    assert found["bound"] is None and found["wells_for_stricter"] == {}


def test_every_promise_that_is_written_holds_for_the_labels_wells():
    labels = held_out()
    found = calibrate(labels, 0.5, 0.05, 0.95, "")
    promised = [other["promise"] for other in found["others"] if other["promise"] is not None]
    assert min(promised) > 1 - 0.05 ** (1 / found["wells"]) - 1e-9
    assert found["supported"] == pytest.approx(min(promised), abs=0.001)


def test_labels_too_few_for_any_threshold_are_refused():
    with pytest.raises(InputError, match="label at least 100 .* a promise needs 299 wells"):
        calibrate(held_out(40), 0.5, 0.01, 0.95, "")
