"""Figures of pretraining: what is drawn where, read back from matplotlib."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from hcsqc.figures import pretraining as pretraining_figures
from hcsqc.figures.pretraining import COURSE, plot_course, plot_epochs


@pytest.fixture
def drawn(monkeypatch) -> list:
    """Collect the figures that are saved."""
    seen, save = [], pretraining_figures.save_figure

    def keep(figure, path):
        seen.append(figure)
        save(figure, path)

    monkeypatch.setattr(pretraining_figures, "save_figure", keep)
    return seen


def test_ssl_course_shows_each_curve_in_a_panel_of_its_own(tmp_path, drawn):
    curves = pd.DataFrame({"step": range(5)} | {name: np.arange(5.0) + 1 for name in COURSE})
    curves["feature_rank"] *= 10
    plot_course(curves, "simclr, seed0", tmp_path / "a.png")
    panels = drawn[0].axes
    assert [axis.get_title() for axis in panels] == list(COURSE.values())
    for axis, name in zip(panels, COURSE, strict=True):
        (line,) = axis.get_lines()
        assert line.get_ydata().tolist() == curves[name].tolist()
        low, high = axis.get_ylim()
        assert low <= curves[name].min() and high >= curves[name].max()
    assert plt.imread(tmp_path / "a.png").std() > 0.01


def test_ssl_epochs_have_a_line_per_encoder_of_the_mean_and_a_band_of_all_draws(tmp_path, drawn):
    rows = [
        (encoder, 0, epoch, draw, base + 0.1 * epoch + 0.02 * draw)
        for encoder, base in (("simclr", 0.5), ("swav", 0.6))
        for epoch in (0, 1, 3)
        for draw in (0, 1, 2)
    ]
    columns = ["encoder", "seed", "epoch", "draw", "accuracy"]
    plot_epochs(pd.DataFrame(rows, columns=columns), tmp_path / "b.png")
    (axis,) = drawn[0].axes
    assert [line.get_label() for line in axis.get_lines()] == ["simclr", "swav"]
    first = axis.get_lines()[0]
    assert first.get_xdata().tolist() == [0, 1, 3]
    assert first.get_ydata() == pytest.approx([52, 62, 82])
    band = axis.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(50) and band[:, 1].max() == pytest.approx(84)
