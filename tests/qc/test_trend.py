"""The trend over plates: what leaves the band of those before it, and how often by chance."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t

from hcsqc.core.errors import InputError
from hcsqc.qc.trend import (
    COLUMNS,
    GIVEN,
    IMAGES,
    LISTED,
    RATIO,
    ROOT,
    SHARE,
    Measure,
    TrendSettings,
    _band,
    changed_on,
    measures,
    ordered,
    read_dates,
    trend,
    trend_told,
)

SETTINGS = TrendSettings(trend_plates=10, trend_sds=3.0)
DAY = pd.Timestamp("2026-11-02")


def names(count: int) -> list[str]:
    return [f"P{number + 1:02d}" for number in range(count)]


def followed(values, of=None, settings: TrendSettings = SETTINGS, name="width of edges"):
    """Return the trend of one measure over plates of following days."""
    plates = names(len(values))
    index = pd.Index(plates, name="Metadata_Plate")
    dated = ordered(
        plates, {plate: DAY + pd.Timedelta(days=n) for n, plate in enumerate(plates)}, {}
    )
    scale, unit = (RATIO, "nucleus diameters") if of is None else (SHARE, SHARE)
    counted = None if of is None else pd.Series(of, index)
    return trend(dated, [Measure(name, unit, scale, pd.Series(values, index), counted)], settings)


def edges(count: int, seed: int = 0, spread: float = 0.03) -> np.ndarray:
    return 0.25 * np.exp(np.random.default_rng(seed).normal(0, spread, count))


def test_a_planted_drop_of_focus_lies_outside_and_is_told():
    values = edges(25)
    values[24] *= 1.5
    table = followed(values)
    assert list(table) == COLUMNS and table["order"].tolist() == list(range(1, 26))
    assert table.loc[table["outside"] != "", "Metadata_Plate"].tolist() == ["P25"]
    last = table.iloc[24]
    assert last["outside"] == "above" and last["band_plates"] == 24
    assert last["low"] < last["centre"] < last["high"] < last["value"]
    assert last["centre"] == pytest.approx(np.exp(np.median(np.log(values[:24]))))
    (line,) = trend_told("mine", table)
    assert line.startswith("warning: mine, plate P25 leaves the band of the 24 plates before it: ")
    assert f"width of edges {last['value']:.3g} nucleus diameters (" in line


def test_the_band_is_that_of_the_median_and_students_t():
    # Ten values whose median is 1 and median deviation .1 on the scale of logarithms.
    logs = np.array([-0.3, -0.2, -0.1, -0.1, 0.0, 0.0, 0.1, 0.1, 0.2, 0.3])
    row = followed(np.exp([*logs, 0.0])).iloc[10]
    reach = t.ppf(norm.cdf(3), 0.37 * 9) * 1.4826 * 0.1 * np.sqrt(1 + np.pi / 20)
    assert np.log([row["low"], row["high"]]) == pytest.approx([-reach, reach], rel=1e-3)


def test_the_first_plates_have_no_band_and_a_bad_one_widens_none():
    values = edges(30)
    before = followed(values)
    assert before["low"].isna().tolist() == [True] * 10 + [False] * 20
    values[15] *= 2
    after = followed(values)
    assert after.loc[after["outside"] != "", "Metadata_Plate"].tolist() == ["P16"]
    width = [np.log(table["high"] / table["low"]).iloc[20:] for table in (before, after)]
    assert (width[1] / width[0]).between(0.7, 1.5).all()
    # An earlier one is counted, not warned of again.
    assert trend_told("mine", after) == [
        "mine: 1 earlier plate left the band too (trend.csv, column outside)"
    ]


def test_what_is_said_of_a_plate_stays_when_others_follow():
    values = edges(30, seed=4)
    values[12] *= 1.4
    whole, part = followed(values), followed(values[:20])
    pd.testing.assert_frame_equal(whole.iloc[:20], part)


def test_plates_in_control_lie_outside_as_often_as_stated():
    """docs/qc.md: at most .27% of the values of a measure, from ten plates on."""
    rng = np.random.default_rng(1)
    for plates in (10, 20, 40):
        outside = 0
        for _ in range(3000):
            values = np.exp(rng.normal(0, 0.05, plates + 1))
            _, low, high, count = _band(values, None, plates, RATIO, SETTINGS)
            outside += not low <= values[-1] <= high
            assert count == plates
        assert outside <= 15  # of 3000: 8 are .27%, more than 15 have p < .01


def test_a_share_of_few_wells_varies_by_chance_alone():
    wells = np.full(13, 384)
    none = np.zeros(13)
    assert (followed(none, wells)["outside"] == "").all()
    none[12] = 1 / 384
    assert (followed(none, wells)["outside"] == "").all()
    none[12] = 60 / 384
    row = followed(none, wells).iloc[12]
    assert row["outside"] == "above" and row["low"] == 0 and 4 < 384 * row["high"] < 5


def test_values_that_are_all_the_same_have_no_band():
    table = followed([*[0.25] * 12, 0.3])
    assert table["low"].isna().all() and (table["outside"] == "").all()


def test_a_plate_without_a_value_is_in_no_band():
    values = edges(14)
    values[3] = np.nan
    table = followed(values)
    assert table["band_plates"].tolist()[:6] == [0, 1, 2, 3, 3, 4]
    assert np.isnan(table["value"][3]) and table["outside"][3] == ""


def test_plates_are_in_the_order_of_their_days_and_of_the_config_within_one():
    changed = {"a": DAY, "b": DAY - pd.Timedelta(days=3), "c": DAY}
    table = ordered(["c", "a", "b"], {}, changed)
    assert table["Metadata_Plate"].tolist() == ["b", "c", "a"]
    assert set(table["dated_by"]) == {IMAGES} and table["order"].tolist() == [1, 2, 3]
    given = ordered(["c", "a", "b"], {"a": DAY - pd.Timedelta(days=9)}, changed)
    assert given["Metadata_Plate"].tolist() == ["a", "b", "c"]
    assert given["dated_by"].tolist() == [GIVEN, IMAGES, IMAGES]
    unknown = ordered(["c", "a", "b"], {}, {"a": DAY, "b": DAY - pd.Timedelta(days=3)})
    assert unknown["Metadata_Plate"].tolist() == ["c", "a", "b"]
    assert unknown["dated_by"].tolist() == [LISTED, IMAGES, IMAGES]


def test_the_day_of_a_plate_is_that_of_its_median_image():
    day = int(DAY.value)
    later = day + 40 * 86400 * 10**9  # one image was replaced
    summary = pd.DataFrame({"image_changed_ns": [[day, day + 5], [day, -1], [later]]})
    absent = pd.DataFrame({"image_changed_ns": [[-1, -1]]})
    assert changed_on({"a": summary, "b": absent}) == {"a": DAY}


def dates_of(tmp_path: Path, text: str) -> dict:
    (tmp_path / "dates.csv").write_text(text)
    return read_dates(tmp_path / "dates.csv", "mine", ["0042", "P2"])


def test_dates_come_from_a_table_that_may_have_other_plates(tmp_path):
    found = dates_of(
        tmp_path, "Metadata_Plate,date\n0042,2026-11-02\nP9,soon\nP2,2026-11-03 08:15\n"
    )
    assert found == {"0042": DAY, "P2": DAY + pd.Timedelta(days=1)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Metadata_Plate,day\nP2,2026-11-02\n", "column 'date' is missing"),
        ("Metadata_Plate,date\nP2,soon\n", "row 1: date of plate P2 is 'soon'; write it as 2026-"),
        ("Metadata_Plate,date\nP2,2026-11-02\nP2,2026-11-03\n", "plate P2 has two dates"),
    ],
)
def test_a_table_of_dates_that_is_none_is_named(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        dates_of(tmp_path, text)


@pytest.mark.parametrize(
    "date",
    ["03.11.2026", "03/04/2026", "10-11-12", "2026", "now", "Nov", "3000-01-01", "2026-13-01"],
)
def test_a_date_that_could_be_read_in_two_ways_is_refused(tmp_path, date):
    with pytest.raises(InputError, match="write it as 2026-11-30"):
        dates_of(tmp_path, f"Metadata_Plate,date\nP2,{date}\n")


def test_a_plate_that_is_nearer_to_the_detector_than_those_before_is_not_told():
    values = pd.Series([*np.random.default_rng(1).normal(0.3, 0.02, 30), 0.0])
    plates = [f"p{number:02d}" for number in range(31)]
    values.index = pd.Index(plates, name="Metadata_Plate")
    dated = ordered(plates, {}, {})
    for value, outside in ((0.0, ""), (0.9, "above")):
        values.iloc[-1] = value
        table = trend(dated, [Measure("shift of scores", "", ROOT, values)], TrendSettings(10, 3.0))
        assert table["outside"].iloc[-1] == outside and table["low"].iloc[-1] == 0


def test_every_measure_is_of_the_tables_of_flags():
    plates = pd.DataFrame(
        {"Metadata_Plate": ["a", "b"], "wells": 4, "bad_wells": [1, 0], "fields": 8}
        | {"bad_fields": [2, 0], "nuclei": [80, 40], "scored": [50, 0], "flagged": [5, 0]}
        | {"feature_shift": 0.2, "score_shift": 0.1}
    )
    fields = pd.DataFrame(
        {"Metadata_Plate": ["a", "a", "a", "b"], "edge": [0.2, 0.3, 0.4, np.nan]}
        | {"empty": [True, False, False, False]}
    )
    light = pd.DataFrame({"Metadata_Plate": ["a", "b"], "channel": "w1", "gain": [1.1, np.nan]})
    found = {one.name: one.values.to_dict() for one in measures(plates, fields, light)}
    assert found["width of edges"]["a"] == pytest.approx(0.3)
    assert found["flagged cells"]["a"] == 0.1 and np.isnan(found["flagged cells"]["b"])
    assert found["bad fields"] == {"a": 0.25, "b": 0} and found["bad wells"]["a"] == 0.25
    assert found["nuclei per field"] == {"a": 10, "b": 5}
    assert found["empty fields"]["a"] == 1 / 8
    assert found["correction of light: w1"]["a"] == 1.1
    assert found["shift of scores"]["a"] == 0.1 and np.isnan(found["shift of scores"]["b"])


def test_a_narrower_band_is_left_more_often():
    rng = np.random.default_rng(2)
    narrow = TrendSettings(20, 1.0)
    outside = 0
    for _ in range(1000):
        values = np.exp(rng.normal(0, 0.05, 21))
        _, low, high, _ = _band(values, None, 20, RATIO, narrow)
        outside += not low <= values[-1] <= high
    assert 0.25 < outside / 1000 < 0.38  # 32% of a normal distribution
