"""The house of docs/design.md: a room per stage, knowledge that flows one way, small folders."""

import ast
import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from hcsqc.core.digest import SCRIPTS
from tests.conftest import ROOT

LIBRARY = SCRIPTS / "hcsqc"
STAGES = (
    "download",
    "screens",
    "crops",
    "labels",
    "encoders",
    "pretraining",
    "features",
    "probes",
    "analyses",
    "report",
    "tracking",
    "qc",
)
# Whose `__init__` has an entry for each of its modules.
REGISTRIES = ("screens/layouts", "pretraining/methods")
MOST_FILES = 20
MODULES = sorted(LIBRARY.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the whole names of all that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str:
    """Return the room of a module of the library: `crops` of `hcsqc.crops.shards`."""
    return module.split(".")[1]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_word_in_five_places(stage):
    assert (ROOT / "rules" / f"{stage}.smk").is_file()
    assert list((SCRIPTS / stage).glob("*.py"))
    assert (LIBRARY / stage / "__init__.py").is_file()
    assert list((ROOT / "tests" / stage).glob("test_*.py"))
    assert (ROOT / "docs" / f"{stage}.md").is_file()


def test_rooms_use_each_other_in_one_direction():
    uses = defaultdict(set)
    for path in MODULES:
        own = path.relative_to(LIBRARY).parts[0]
        for name in imports(path):
            if name.startswith("hcsqc.") and len(name.split(".")) > 2 and room(name) != own:
                uses[own].add(room(name))
    # In the order of the table of docs/design.md: a room uses those above it.
    text = (ROOT / "docs" / "design.md").read_text()
    order = re.findall(r"^\| `(\w+)` \|", text.split("| room | holds |")[1], re.MULTILINE)
    assert sorted(order) == sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))
    below = {
        (own, used)
        for own, others in uses.items()
        for used in others
        if order.index(used) > order.index(own)
    }
    assert below == set()


def test_modules_of_a_room_import_each_other_in_one_direction():
    by_name = {path.relative_to(SCRIPTS).with_suffix("").as_posix(): path for path in MODULES}
    names = {
        name.removesuffix("/__init__").replace("/", "."): path for name, path in by_name.items()
    }
    uses = {
        own: {
            known
            for name in imports(path)
            for known in (name, name.rpartition(".")[0])
            if known in names and known != own
        }
        for own, path in names.items()
    }
    assert len(list(TopologicalSorter(uses).static_order())) >= len(MODULES)


def test_packages_only_say_what_they_are():
    """A digest follows them: one import more would make a metric's edit train models again."""
    for path in LIBRARY.rglob("__init__.py"):
        package = path.parent.relative_to(LIBRARY).as_posix()
        body = ast.parse(path.read_text()).body
        assert ast.get_docstring(ast.parse(path.read_text())), path
        if package not in (*REGISTRIES, "."):
            assert len(body) == 1, f"{path} holds more than a docstring"


@pytest.mark.parametrize("top", ["scripts", "tests", "rules", "docs", "benchmarks", "profiles"])
def test_no_folder_is_a_heap(top):
    folders = [ROOT / top, *(path for path in (ROOT / top).rglob("*") if path.is_dir())]
    counts = {
        folder.relative_to(ROOT).as_posix(): len(files_in(folder))
        for folder in folders
        if folder.name != "__pycache__" and folder != ROOT / "docs" / "images"
    }
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_the_library_knows_neither_snakemake_nor_command_lines():
    for path in MODULES:
        heads = {name.split(".")[0] for name in imports(path)}
        assert "snakemake" not in heads, path
        if path not in (LIBRARY / "core/cli.py", LIBRARY / "terminal/given_files.py"):
            assert "argparse" not in heads, path


def test_only_tracking_and_the_detectors_model_know_mlflow():
    users = {
        path.relative_to(LIBRARY).as_posix()
        for path in MODULES
        if "mlflow" in {name.split(".")[0] for name in imports(path)}
    }
    allowed = {"qc/mlflow_model/model.py", "qc/mlflow_model/model_code.py"}
    assert {path for path in users if not path.startswith("tracking/")} == allowed


def test_scripts_import_the_library_and_never_each_other():
    stages = {path.name for path in SCRIPTS.iterdir() if path.is_dir()} - {"hcsqc"}
    for path in SCRIPTS.glob("*/*.py"):
        if path.parent != LIBRARY:
            heads = {name.split(".")[0] for name in imports(path)}
            assert not heads & (stages | {"scripts"}), path


def text_files_of_no_encoding(path: Path) -> list[str]:
    """Return where a module opens a text file in whatever encoding the machine prefers."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(key.arg == "encoding" for key in node.keywords):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        modes = [*node.args[1:2], *(key.value for key in node.keywords if key.arg == "mode")]
        is_binary = any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes)
        opens = name == "open" and isinstance(node.func, ast.Name) and not is_binary
        if name in ("read_text", "write_text") or opens:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_every_text_file_is_opened_in_a_stated_encoding():
    assert not [
        place for path in SCRIPTS.rglob("*.py") for place in text_files_of_no_encoding(path)
    ]
