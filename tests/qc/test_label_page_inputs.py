"""What a page for labelling is made from: crops not labelled yet, scores, contexts."""

import numpy as np
import pandas as pd
import pytest

from hcsqc.core.errors import InputError
from hcsqc.core.schema import write_table
from hcsqc.qc.label_page.inputs import (
    check_places,
    contexts,
    labelled_crops,
    read_scores,
)


def labels_file(path, *selections):
    """Write a label for each way in which a crop was chosen."""
    crops = [f"s/p/B02/s1/x{place:04d}y0001" for place in range(len(selections))]
    table = pd.DataFrame({"crop_id": crops, "selection": selections}).assign(
        plate="p", well="B02", label="normal", artefact=None, strength=np.nan, annotator="a"
    )
    write_table(table.assign(source="a.csv", compound=None), path, "labels")
    return path


@pytest.mark.parametrize(("picked", "warned"), [(0, False), (1, False), (2, True)])
def test_many_labels_that_are_not_random_are_warned_of(tmp_path, capsys, picked, warned):
    ways = ["diverse", "uncertain"][:picked]
    path = labels_file(tmp_path / "l.parquet", *ways, *["random"] * 50)
    labelled = labelled_crops(path, "s", 100)
    assert len(labelled) == 50 + picked and labelled[0] == "s/p/B02/s1/x0000y0001"
    told = capsys.readouterr().err
    text = "warning: 2 of 100 crops of s were labelled because they were diverse or uncertain; "
    assert told.startswith(text) if warned else told == ""


def test_scores_of_another_table_are_refused(tmp_path):
    with pytest.raises(InputError, match="l.parquet: is not a 'crop_scores' table"):
        read_scores([labels_file(tmp_path / "l.parquet", "random")])


def test_crops_at_one_place_of_one_field_are_refused():
    crops = pd.DataFrame({"field_id": ["a", "b", "a"], "x_px": [1, 1, 1], "y_px": [2, 2, 3]})
    check_places(crops, "s")
    with pytest.raises(InputError, match="screen s has several crops at one place, as derived"):
        check_places(pd.concat([crops, crops.iloc[1:2]]), "s")


def test_without_a_source_no_crop_has_a_context(capsys):
    chosen = pd.DataFrame({"crop_id": ["a", "b"]})
    assert contexts(None, chosen, ["w1"], None) == [None, None]
    assert capsys.readouterr().out == ""
