"""Figures: what is drawn where, read back from matplotlib, and files that are pictures."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from hcsqc.core.config_model import ENCODER_KINDS
from hcsqc.core.files import atomic
from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.figures.crops import plot_crops
from hcsqc.figures.nuclei import plot_nuclei
from hcsqc.figures.scores import plot_budgets, plot_shift
from hcsqc.figures.style import KIND_STYLE, save_figure
from hcsqc.report.tables import COLUMNS


@pytest.fixture
def drawn(monkeypatch) -> list:
    """Collect the figures that are saved, and keep them open until the test ends."""
    seen = []

    def keep(figure, path):
        seen.append(figure)
        save_figure(figure, path)

    for module in ("crops", "nuclei", "scores"):
        monkeypatch.setattr(f"hcsqc.figures.{module}.save_figure", keep)
    return seen


def is_picture(path: Path) -> bool:
    """Return whether the file is a PNG that shows something."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    image = plt.imread(path)
    return image.shape[0] > 50 and image.std() > 0.01


def table(
    number: int, screens=("BBBC022",), budgets=(350, 25), interval=True, draws=5
) -> pd.DataFrame:
    rows = []
    for screen in screens:
        for probe in ("knn", "linear_paper"):
            for budget in budgets:
                for place, (encoder, kind) in enumerate(
                    [("resnet18", "transfer"), ("simclr", "ssl"), ("random", "control")]
                ):
                    for metric in ("accuracy", "f1", "auc"):
                        percent = 50 + 10 * place + budget / 100 + (0.5 if metric == "f1" else 0)
                        row = dict.fromkeys(COLUMNS)
                        row |= {"table": number, "encoder": encoder, "kind": kind, "probe": probe}
                        row |= {"budget": budget, "screen": screen, "metric": metric}
                        row |= {"percent": percent, "status": "run", "draws": draws}
                        row |= {"low": percent - 2, "high": percent + 1} if interval else {}
                        rows.append(row)
    left_out = dict.fromkeys(COLUMNS) | {"table": number, "encoder": "vgg16", "kind": "transfer"}
    left_out |= {"probe": "knn", "budget": budgets[0], "screen": screens[0], "metric": "f1"}
    rows.append(left_out | {"status": "not run", "reason": "no hub"})
    numbers = dict.fromkeys(("percent", "low", "high"), float)
    return pd.DataFrame(rows, columns=COLUMNS).astype(numbers)


def test_score_against_budget_has_a_panel_per_probe_and_a_line_per_encoder(tmp_path, drawn):
    plot_budgets(table(2), tmp_path / "budget.png")
    assert is_picture(tmp_path / "budget.png")
    (figure,) = drawn
    assert [axis.get_title() for axis in figure.axes] == ["knn", "linear_paper"]
    for axis in figure.axes:
        assert [line.get_label() for line in axis.lines] == ["resnet18", "simclr", "random"]
        line = axis.lines[1]
        np.testing.assert_array_equal(line.get_xdata(), [25, 350])
        np.testing.assert_allclose(line.get_ydata(), [60.75, 64.0])  # F1, in percent
        assert len({line.get_linestyle() for line in axis.lines}) == 3, "kinds read without colour"
        assert len(axis.collections) == 3, "an interval around each line"


def test_without_intervals_no_band_is_drawn(tmp_path, drawn):
    plot_budgets(table(2, interval=False), tmp_path / "budget.png")
    assert all(not axis.collections for axis in drawn[0].axes)


@pytest.mark.parametrize(
    ("draws", "mark"), [(1, " (1 draw: no mean)"), (2, " (2 draws: no mean)"), (3, "")]
)
def test_a_panel_of_too_few_draws_says_so(draws, mark, tmp_path, drawn):
    plot_budgets(table(2, draws=draws), tmp_path / "budget.png")
    plot_shift(table(2, draws=draws), table(3, ("OTHER",), (350,), draws=draws), tmp_path / "s.png")
    for figure in drawn:
        assert [axis.get_title() for axis in figure.axes] == [f"knn{mark}", f"linear_paper{mark}"]


def test_the_shift_figure_shows_each_encoder_here_and_there(tmp_path, drawn):
    trained, shifted = table(2), table(3, ("BBBC021", "OTHER"), budgets=(350,))
    shifted["percent"] -= 20
    plot_shift(trained, shifted, tmp_path / "shift.png")
    assert is_picture(tmp_path / "shift.png")
    axis = drawn[0].axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["random", "simclr", "resnet18"]
    markers = [line for line in axis.lines if len(line.get_xdata()) == 3]
    assert [line.get_label() for line in markers] == ["BBBC022", "BBBC021", "OTHER"]
    np.testing.assert_allclose(markers[0].get_xdata(), [74, 64, 54])  # at the largest budget
    np.testing.assert_allclose(markers[1].get_xdata(), [54, 44, 34])


def test_an_encoder_that_a_probe_is_not_for_leaves_its_row_empty_in_the_shift_figure(
    tmp_path, drawn
):
    trained, shifted = (
        rows[(rows["encoder"] != "simclr") | (rows["probe"] == "knn")]
        for rows in (table(2), table(3, ("BBBC021",), budgets=(350,)))
    )
    plot_shift(trained, shifted, tmp_path / "shift.png")
    labels = [text.get_text() for text in drawn[0].axes[0].get_yticklabels()]
    assert labels == ["random", "simclr", "resnet18"]
    for axis, simclr in zip(drawn[0].axes[:2], (64, np.nan), strict=True):
        np.testing.assert_allclose(axis.lines[0].get_xdata(), [74, simclr, 54])
        assert axis.lines[0].get_ydata().tolist() == [0, 1, 2]


def test_a_study_without_other_screens_says_so(tmp_path, drawn):
    plot_shift(table(2), table(3).iloc[:0], tmp_path / "shift.png")
    assert is_picture(tmp_path / "shift.png")
    (text,) = drawn[0].axes[0].texts
    assert text.get_text() == "This study tests on no other screen."


def shards(folder: Path, n: int) -> Shards:
    """Return n crops of 3 channels; the DNA channel of crop i is i all over."""
    pixels = np.zeros((n, 3, 8, 8), np.uint8)
    pixels[:, 0] = np.arange(n)[:, None, None]
    crops = pd.DataFrame(
        {
            "crop_id": [f"s/p/B02/s1/x{i:04}y0000" for i in range(n)],
            "field_id": "s/p/B02/s1",
            "x_px": range(n),
            "y_px": 0,
            "nucleus_area_px": 9,
        }
    )
    path = folder / "p.parquet"
    with atomic(path) as temporary:
        writer = ShardWriter(temporary, ShardFormat(("w1", "w2", "w4"), 8, "uint8", {}))
        writer.add(crops, pixels)
        writer.close()
    return Shards([path])


def labels(made: Shards, artefacts: list[str | None]) -> pd.DataFrame:
    names = made.index["crop_id"].iloc[: len(artefacts)]
    kinds = [kind if kind else None for kind in artefacts]
    label = ["abnormal" if kind is not None else "normal" for kind in artefacts]
    return pd.DataFrame({"crop_id": names, "label": label, "artefact": kinds})


def test_abnormal_crops_take_turns_over_the_artefacts(tmp_path, drawn):
    made = shards(tmp_path, 20)
    kinds = ["debris"] * 4 + ["blur"] * 8 + ["dead"] + [""] + [None] * 4
    plot_crops(made, labels(made, kinds), ("w4", "w2", "w1"), tmp_path / "crops.png")
    assert is_picture(tmp_path / "crops.png")
    axes = drawn[0].axes
    above, below = axes[:10], axes[10:]
    assert [axis.get_title() for axis in above] == (
        ["blur", "debris", "dead", "abnormal"] + ["blur", "debris"] * 3
    )
    assert [axis.get_title() for axis in below] == ["normal"] * 4 + [""] * 6
    blue = [int(axis.images[0].get_array()[0, 0, 2]) for axis in above]
    assert blue == [4, 0, 12, 13, 5, 1, 6, 2, 7, 3], "the pictures are those of the titles"


@pytest.mark.parametrize(
    ("chosen", "red_green_blue"),
    [
        (("w1",), (7, 7, 7)),
        (("w1", "w2"), (7, 0, 0)),
        (("w2", "w1"), (0, 7, 0)),
        (("w2", "w1", "w4", "w1"), (0, 7, 0)),
        (("w2", "w4", "w1", "w4", "w2"), (0, 0, 7)),
    ],
)
def test_crops_are_drawn_in_the_first_three_channels_or_two_or_in_grey(
    chosen, red_green_blue, tmp_path, drawn
):
    made = shards(tmp_path, 8)
    plot_crops(made, labels(made, [None] * 8), chosen, tmp_path / "crops.png")
    picture = drawn[0].axes[10 + 7].images[0].get_array()
    assert picture.shape == (8, 8, 3)
    assert tuple(picture[0, 0].tolist()) == red_green_blue


def test_a_screen_with_normal_crops_alone_is_drawn(tmp_path, drawn):
    made = shards(tmp_path, 3)
    plot_crops(made, labels(made, [None] * 3), ("w4", "w2", "w1"), tmp_path / "crops.png")
    assert [len(axis.images) for axis in drawn[0].axes].count(1) == 3


def test_figures_are_closed_and_leave_no_other_file(tmp_path):
    before = plt.get_fignums()
    plot_budgets(table(2), tmp_path / "budget.png")
    assert plt.get_fignums() == before
    assert [path.name for path in tmp_path.iterdir()] == ["budget.png"]


def nuclei(areas: list[int], kept: list[bool]) -> pd.DataFrame:
    places = 10 * np.arange(len(areas))
    return pd.DataFrame({"x_px": places + 3, "y_px": places, "area_px": areas, "kept": kept})


def test_nuclei_are_circled_with_their_area_and_by_whether_they_are_kept(tmp_path, drawn):
    image = np.arange(1200, dtype=np.uint16).reshape(30, 40)
    found = nuclei([314, 79], [True, False])
    plot_nuclei([("A01 s1", image, found)], (100.0, 900.0), tmp_path / "nuclei.png")
    assert is_picture(tmp_path / "nuclei.png")
    (axis,) = drawn[0].axes
    assert axis.get_title() == "A01 s1: 2 nuclei, 1 kept"
    assert axis.images[0].get_clim() == (100, 900)
    (circles,) = axis.collections
    np.testing.assert_array_equal(circles.get_offsets(), [[3, 0], [13, 10]])
    np.testing.assert_allclose(circles.get_widths(), [20, 10], atol=0.1)  # diameters
    kept, dropped = circles.get_edgecolors()
    assert kept[1] > kept[0] and dropped[0] > dropped[1]  # green, orange


def test_places_without_an_area_are_drawn_and_do_not_widen_the_field(tmp_path, drawn):
    found = nuclei([0, 0], [True, False]).assign(x_px=[3, 5000])
    plot_nuclei([("A01 s1", np.eye(30), found)], (0.0, 1.0), tmp_path / "nuclei.png")
    (axis,) = drawn[0].axes
    np.testing.assert_allclose(axis.collections[0].get_widths(), [20, 20])
    assert axis.get_xlim() == (-0.5, 29.5) and axis.get_ylim() == (29.5, -0.5)


def test_a_field_that_cannot_be_read_or_has_no_nucleus_has_its_place_in_the_figure(tmp_path, drawn):
    fields = [(f"A0{n} s1", np.eye(9), nuclei([], [])) for n in range(1, 6)]
    fields.append(("A06 s1", "a.tif: is empty", nuclei([], [])))
    plot_nuclei(fields, (0.0, 1.0), tmp_path / "nuclei.png")
    assert is_picture(tmp_path / "nuclei.png")
    assert drawn[0].axes[5].get_title() == "A06 s1: failed"
    shown = [axis for axis in drawn[0].axes if axis.get_title()]
    assert [axis.get_title()[:6] for axis in shown] == [name for name, *_ in fields]
    assert shown[5].texts[0].get_text() == "a.tif: is empty"


def test_every_kind_of_encoder_has_a_style():
    assert set(KIND_STYLE) == set(ENCODER_KINDS)
