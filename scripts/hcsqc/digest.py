"""Digests of code: what a job would do, without comments and docstrings."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent


def code_digest(script: str | Path, without: Iterable[str | Path] = ()) -> str:
    """Return a digest of a script and of every project module it imports, transitively.

    It is taken from the syntax trees without comments and docstrings, so that only code that
    runs changes it. `script` and the modules to leave out are paths below `scripts/`.
    """
    skipped = {SCRIPTS / path for path in without}
    digest = hashlib.sha256()
    for path in sorted(_closure(SCRIPTS / script, skipped)):
        digest.update(path.relative_to(SCRIPTS).as_posix().encode())
        digest.update(_canonical(path).encode())
    return digest.hexdigest()[:16]


def _closure(script: Path, skipped: set[Path]) -> set[Path]:
    found, waiting = set(), [script]
    while waiting:
        path = waiting.pop()
        if path not in found and path not in skipped:
            found.add(path)
            waiting += _imports(path)
    return found


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [_module_files(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(_module_files(node.module))
            found += [_module_files(f"{node.module}.{alias.name}") for alias in node.names]
    return tuple(path for files in found for path in files)


def _module_files(name: str) -> Iterator[Path]:
    """Yield the project's files that importing module `name` runs."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        base = SCRIPTS.joinpath(*parts[:depth])
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                yield candidate


@cache
def _canonical(path: Path) -> str:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        is_documented = isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        if is_documented and ast.get_docstring(node, clean=False) is not None:
            body.pop(0)
    return ast.dump(tree)


def pretraining_digest(method: str) -> str:
    """Return the digest of the training loop and of one method's file, without the other methods.

    `method` is a key of the config, and its file's name.
    """
    folder = Path("hcsqc") / "methods"
    own = folder / f"{method}.py"
    others = [
        folder / path.name
        for path in (SCRIPTS / folder).glob("*.py")
        if path.name not in ("base.py", own.name)
    ]
    # Which shows the course of a training, and has no part in it.
    shown = Path("hcsqc/live_curves.py")
    return code_digest("pretrain.py", [*others, own, shown]) + code_digest(own, others)
