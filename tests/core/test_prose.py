"""The check of `make lint` finds turns of phrase to avoid wherever a reader meets them."""

import runpy

import pytest

from tests.conftest import ROOT

PROSE = runpy.run_path(str(ROOT / ".github" / "prose.py"))
TURNS = PROSE["turns_to_avoid"]((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))

KINDS = {
    "page.md": "# Title\n\nOne line.\nThen {}.\n",
    "caption.rst": "One line.\n\n\nThen {}.\n",
    "page.html": "<p>One</p>\n<p>\n\n{}</p>",
    "spoken.html": '<p>\n</p>\n\n<button aria-label="And {}">x</button>',
    "script.html": "<script>\nlet x = 1\n\nsay('And then {}')</script>",
    "page.js": 'let x = 1\n\n\nsay("And then {}")',
    "study.yaml.j2": "a: 1\n# One\n\nb: 2  # {}\n",
    "config.yaml": "a: 1\nb: 2\n\nc: 3  # {}\n",
    "rule.smk": "rule x:\n    # One\n\n    # {}\n",
    "message.py": "x = 1\n\n\nraise ValueError(f'{{x}} and then {}')\n",
    "help.py": '"""One."""\n\n\nhelp = (\n    "{} "\n    "and more"\n)\n',
}


def found(path, text):
    path.write_text(text, encoding="utf-8")
    return PROSE["findings"](path, TURNS)


@pytest.mark.parametrize("name", KINDS)
def test_a_planted_turn_is_found_with_its_line_in_every_kind_of_file(tmp_path, name):
    assert found(tmp_path / name, KINDS[name].format("all is well")) == []
    [finding] = found(tmp_path / name, KINDS[name].format("It wants labels"))
    assert finding.text == "wants"
    assert finding.instead == "needs, expects"
    assert finding.line == (5 if name == "help.py" else 4)


@pytest.mark.parametrize(
    "sentence",
    [
        "Of labels alike the first counts.",
        "what has come\nof the file is kept",
        "random weights are told from it",
        "tell the two encoders from each other",
        "budgets that the labels do not carry",
        "a network of one's own",
        "a spoilt field",
        "it is made anew, by hand, without a word",
        "that correction goes not all the way",
        "removed for looking different",
        "a labeled crop",
    ],
)
def test_turns_of_the_list_are_found(tmp_path, sentence):
    assert found(tmp_path / "page.md", sentence)


@pytest.mark.parametrize(
    "text",
    [
        "Use `wants` as a key.",
        "As a block:\n\n    it wants labels\n\nAnd so on.",
        "```\nit wants labels\n```\n",
        "[Labels](what/wants/labels.md)",
        "It needs what it wanted.",
        "## Words\n\n| not | but |\n|---|---|\n| wants | needs |\n\n## Next\n",
    ],
)
def test_code_addresses_and_the_list_itself_are_no_prose(tmp_path, text):
    assert found(tmp_path / "page.md", "# Title\n" + text) == []


def test_keys_names_and_expressions_are_no_messages(tmp_path):
    assert found(tmp_path / "keys.py", "x = {'wants': 1, 'it wants': 2}\n") == []
    assert found(tmp_path / "page.html", "<p>{{ one.wants }}</p><style>wants {}</style>") == []


def test_doubled_words_and_what_proselint_knows_are_found(tmp_path):
    text = "Read the the log.\n\nThis is a very unique plate.\n"
    assert [finding.line for finding in found(tmp_path / "page.md", text)] == [1, 3]


def test_docs_templates_messages_and_configs_are_read():
    names = {path.relative_to(ROOT).as_posix() for path in PROSE["files"](ROOT)}
    assert {
        "README.md",
        "docs/qc.md",
        "config.yaml",
        "rules/crops.smk",
        "scripts/hcsqc/qc/label_page/page.html",
        "scripts/hcsqc/start/study.yaml.j2",
        "scripts/crops/crop_plate.py",
        "scripts/hcsqc/crops/cut.py",
    } <= names
    assert "docs/config.md" not in names
