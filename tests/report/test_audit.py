"""The audit: all 192 figures once, and its page."""

import json
import sys
from collections import Counter
from html.parser import HTMLParser

import pandas as pd
import pytest

from hcsqc.core.config import shuffles_labels
from hcsqc.core.errors import InputError
from hcsqc.core.schema import write_table
from hcsqc.report.audit import cells, costs_of_records, render_audit
from hcsqc.report.tables import PAPER_TABLES
from scripts.report import make_audit
from tests.made_study import MEANS, costs, paired, paired_tables, study, tables

PAPER = pd.read_csv(PAPER_TABLES)
EVIL = "<script>alert('x')</script>"


# The cells.


def records(*keys: str) -> list[dict]:
    return [
        {"key": key, "cost": {"wall_s": 10.0 * (place + 1), "device": "cuda"}}
        for place, key in enumerate(keys)
    ]


def test_costs_are_those_of_the_probes_jobs():
    (row,) = costs_of_records(records("probes/simclr/seed0/knn/budget25")).to_dict("records")
    assert row == {
        "encoder": "simclr",
        "probe": "knn",
        "budget": 25,
        "seconds": 10.0,
        "device": "cuda",
    }


@pytest.mark.parametrize("key", ["features/simclr/seed0/BBBC022", "budget25", "probes/a/knn"])
def test_records_of_other_jobs_are_refused(key):
    with pytest.raises(InputError, match=f"record '{key}': not of a probe"):
        costs_of_records(records(key))


def cell_of(found: list[dict], **wanted) -> dict:
    (one,) = (row for row in found if all(row[key] == wanted[key] for key in wanted))
    return one


def test_each_figure_of_the_paper_has_one_cell_with_ours():
    config = study()
    found = cells(PAPER, tables(config), costs(config), config)
    assert len(found) == 192
    columns = ["table", "encoder", "probe", "budget", "screen", "metric", "percent"]
    pd.testing.assert_frame_equal(pd.DataFrame(found)[columns], PAPER[columns])
    assert all(len(cell["ours"]) == 1 and cell["reason"] is None for cell in found)
    one = cell_of(found, table=1, encoder="simclr", probe="linear", metric="f1")
    (own,) = one["ours"]
    assert one["percent"] == 90.56 and own["percent"] == pytest.approx(88)
    assert (own["probe"], own["screen"]) == ("linear_paper", "BBBC022")
    assert (own["low"], own["high"]) == pytest.approx((86, 90), abs=0.1)
    assert (own["seconds"], own["device"], own["jobs"]) == (12.34, "cpu", 1)
    shift = cell_of(found, table=3, encoder="swav", metric="auc")
    assert shift["ours"][0]["screen"] == "BBBC021"


def test_seconds_of_several_seeds_are_added():
    config = study(probes=["knn"])
    spent = costs_of_records(
        records("probes/simclr/seed0/knn/budget350", "probes/simclr/seed1/knn/budget350")
    )
    found = cells(PAPER, tables(config), spent, config)
    (own,) = cell_of(found, encoder="simclr", probe="knn", metric="f1")["ours"]
    assert (own["seconds"], own["jobs"], own["device"]) == (30.0, 2, "cuda")
    (other,) = cell_of(found, encoder="swav", probe="knn", metric="f1")["ours"]
    assert other["seconds"] is None and other["percent"] is not None


def test_a_cell_without_ours_says_why():
    config = study(
        encoders=["resnet18", "simclr"],
        not_run={"vgg16": "no hub here"},
        probes=["knn", "finetune_paper"],
        budgets=[350, 25],
        test=[],
    )
    config["probes"]["finetune_paper"] |= {"budgets": [25]}
    found = cells(PAPER, tables(config), costs(config), config)

    def reason(**wanted) -> str:
        cell = cell_of(found, metric="f1", **wanted)
        return cell["reason"] or cell["ours"][0]["reason"]

    assert reason(table=1, encoder="vgg16", probe="knn") == "not run: no hub here"
    assert "no encoder of this study is named swav" in reason(table=1, encoder="swav", probe="knn")
    assert "no probe of kind linear" in reason(table=1, encoder="simclr", probe="linear")
    assert "at 350, 25 labels" in reason(table=2, encoder="simclr", budget=100)
    assert "runs finetune_paper at 25 labels" in reason(table=2, encoder="simclr", budget=350)
    assert "tests on no other screen" in reason(table=3, encoder="simclr")
    assert reason(table=2, encoder="simclr", budget=25) is None
    for cell in found:
        assert cell["reason"] or cell["ours"]


def test_two_probes_of_a_kind_and_two_screens_all_stand_beside_the_papers_figure():
    config = study(probes=["knn", "finetune_paper", "again"], test=["BBBC021", "third"])
    config["probes"]["again"] = config["probes"]["finetune_paper"]
    config["screens"]["third"] = config["screens"]["BBBC021"]
    found = cells(PAPER, tables(config), costs(config), config)
    ours = cell_of(found, table=3, encoder="simclr", metric="f1")["ours"]
    assert {(own["probe"], own["screen"]) for own in ours} == {
        (probe, screen) for probe in ("finetune_paper", "again") for screen in ("BBBC021", "third")
    }


def test_shuffled_labels_stand_beside_no_figure():
    config = study(probes=["knn_shuffled"])
    assert shuffles_labels(config, "knn_shuffled")
    found = cells(PAPER, tables(config), costs(config), config)
    assert not any(cell["ours"] for cell in found)


# The page.


class Reader(HTMLParser):
    """Collect the tags, the cells and the text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.cells, self.links, self.words, self.open = [], [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.cells += [value for name, value in attrs if name == "data-cell"]
        self.links += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page(config: dict, **given) -> str:
    made = {"tables": tables, "scores": paired, "costs": costs}
    missing = {name: make(config) for name, make in made.items() if name not in given}
    return render_audit(config, PAPER, **missing, **given)


@pytest.mark.parametrize("everything", [True, False])
def test_each_of_the_192_figures_is_on_the_page_once(everything):
    config = study() if everything else study(encoders=["simclr"], probes=["knn"], test=[])
    text = page(config)
    expected = Counter(
        f"{row.table}/{row.encoder}/{row.probe}/{row.budget}/{row.metric}"
        for row in PAPER.itertuples()
    )
    assert Counter(Reader(text).cells) == expected and len(expected) == 192
    assert f'data-cell="2/vicreg/finetune/10/accuracy">{66.4:.2f}<' in text
    assert ("192 have one of ours" in Reader(text).text) == everything


def test_the_page_says_first_what_data_it_is_about():
    text = Reader(page(study())).text
    sentence = "Trained on BBBC022, tested on it and on BBBC021: BBBC022 is a real screen;"
    assert sentence in text
    assert text.index(sentence) < text.index("The paper and this study are on different data.")
    assert text.index("are on different data.") < text.index("Rule:")


def test_the_page_shows_ours_with_interval_cost_and_reasons():
    config = study(not_run={"vgg16": "no hub here"}, encoders=list(MEANS)[1:])
    text = Reader(page(config)).text
    assert text.count("paper (other data), BBBC022") == 3
    assert text.count("paper (other data), BBBC021") == 1
    assert "SimCLR, 5 epochs 350 90.62 89.63 90.30 88.0 86.1 to 89.9" in text
    assert "kNN BBBC022 12.3 s cpu" in text
    assert "ImageNet VGG16 350 96.09 95.94 95.38 not run: no hub here" in text
    unpriced = Reader(page(config, costs=costs(config).iloc[:0])).text
    assert "kNN BBBC022 not recorded" in unpriced


def test_too_few_draws_are_said_and_no_interval_shown():
    config = study()
    text = Reader(page(config, tables=tables(config, enough_draws=False))).text
    assert "too few draws for an interval" in text and "to 89.9" not in text


def test_the_page_gives_verdicts_quotes_and_checks_in_words():
    text = Reader(page(study())).text
    assert "4 are supported, 1 not supported and 0 undecided" in text
    assert "3. SimCLR is the best self-supervised method at 10 labels: not supported" in text
    assert "none of the SSL methods outperforms the three TL encoders" in text
    assert "0 of 56 accuracies can be k/130" in text


def test_nothing_is_fetched_and_every_tag_is_closed():
    text = page(study())
    found = Reader(text)
    assert found.open == []
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert all(link.startswith("#") for link in found.links)


@pytest.mark.parametrize("where", ["encoder", "study", "reason", "device"])
def test_text_from_outside_is_escaped(where):
    config, given = study(), {}
    if where == "encoder":
        config["encoders"].pop("swav")
        config["encoders"][EVIL] = {"kind": "transfer", "features": "own_{screen}.parquet"}
        config["study"]["encoders"] = [EVIL if name == "swav" else name for name in MEANS]
        given = {
            "tables": tables(study()),
            "scores": paired(config, lambda name, **cell: MEANS.get(name, MEANS["swav"])),
            "costs": costs(study()),
        }
    elif where == "study":
        config["study"]["name"] = EVIL
        given["tables"] = tables(study())
    elif where == "reason":
        config = study(encoders=list(MEANS)[1:], not_run={"vgg16": EVIL})
    else:
        given["costs"] = costs(config).assign(device=EVIL)
    text = page(config, **given)
    found = Reader(text)
    assert "script" not in found.tags and "<script" not in text
    assert "&lt;script&gt;" in text and EVIL in found.text


def test_a_smoke_test_says_so():
    text = Reader(page(study(smoke_test=True), tables=tables(study()))).text
    assert "This is a smoke test." in text and "0 are supported" in text


def test_the_script_writes_the_page_from_files(tmp_path, monkeypatch):
    config = study()
    paths = [str(tmp_path / f"table{number}.csv") for number in (1, 2, 3)]
    for path, table in zip(paths, tables(config).values(), strict=True):
        table.to_csv(path, index=False)
    flags = {name: tmp_path / f"{name}.parquet" for name in ("scores", "left_out", "splits")}
    scores, left_out = paired_tables(config)
    write_table(scores, flags["scores"], "scores")
    write_table(left_out, flags["left_out"], "left_out")
    chosen = [
        (draw, f"s/p/B0{draw}/s1/x{crop:04d}y0000", ("normal", "abnormal")[crop % 2], "train", crop)
        for draw in range(5)
        for crop in range(10)
    ]
    splits = pd.DataFrame(chosen, columns=["draw", "crop_id", "label", "part", "rank"])
    splits["group"] = splits["crop_id"].str.split("/").str[1:3].str.join("/")
    write_table(splits, flags["splits"], "splits")
    (tmp_path / "config.json").write_text(json.dumps({"config": config, "changed": []}))
    (tmp_path / "run.json").write_text(json.dumps(records("probes/simclr/seed0/knn/budget350")[0]))
    flags |= {"records": tmp_path / "run.json", "config": tmp_path / "config.json"}
    flags |= {"output": tmp_path / "report" / "audit.html"}
    flags |= {"record": tmp_path / "audit" / "run.json"}
    words = [
        word
        for name, value in flags.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    monkeypatch.setattr(sys, "argv", [make_audit.__file__, "--tables", *paths, *words])
    make_audit.main()
    spent = costs_of_records(records("probes/simclr/seed0/knn/budget350"))
    assert flags["output"].read_text() == page(config, costs=spent)
    assert json.loads(flags["record"].read_text())["status"] == "FINISHED"
