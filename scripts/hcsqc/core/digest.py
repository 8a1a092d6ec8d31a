"""Digests of code: what a job would do, without comments and docstrings.

A module declares the data files that it reads, beside it, in a constant of literals:
`DATA_FILES = ("page.html",)`. They are part of its code.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.files import atomic

SCRIPTS = Path(__file__).resolve().parents[2]


def code_digest(
    script: str | Path, plugin: str | Path | None = None, without: Iterable[str | Path] = ()
) -> str:
    """Return a digest of a script and of every project module it imports, transitively.

    It is taken from the syntax trees without comments and docstrings, so that only code that
    runs changes it, and from the data files that the modules declare. `script` and the other paths
    are relative to `scripts/`. Of the folder of `plugin`, a module of a registry such as
    `METHODS`, only the plugin and what it imports counts. `without` lists modules to leave out.
    Raises InputError if a module has a relative import, which would be missed, or lacks data.
    """
    skipped = {SCRIPTS / path for path in without}
    wanted = [SCRIPTS / script]
    if plugin:
        own = SCRIPTS / plugin
        registry = own.parent / "__init__.py"
        skipped |= set(own.parent.glob("*.py")) - _closure([own], {registry})
        wanted.append(own)
    digest = hashlib.sha256()
    for path in sorted(_closure(wanted, skipped)):
        module = _module(path)
        digest.update(path.relative_to(SCRIPTS).as_posix().encode())
        digest.update(module.code.encode())
        for name in module.data:
            digest.update(_data(path, name))
    _remember()
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Module:
    """What a module's text says; `text` and `code` are digests with and without its comments."""

    text: str
    code: str
    imports: list[str]
    data: list[str]


def _closure(wanted: list[Path], skipped: set[Path]) -> set[Path]:
    found, waiting = set(), list(wanted)
    while waiting:
        path = waiting.pop()
        if path not in found and path not in skipped:
            found.add(path)
            waiting += [file for name in _module(path).imports for file in _files(name)]
    return found


@cache
def _files(module: str) -> tuple[Path, ...]:
    """Return the project's files that importing `module` runs: it and its packages'."""
    parts = module.split(".")
    bases = [SCRIPTS.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    candidates = [
        file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py")
    ]
    return tuple(file for file in candidates if file.is_file())


@cache
def _module(path: Path) -> _Module:
    content = path.read_bytes()
    text, key = hashlib.sha256(content).hexdigest(), path.relative_to(SCRIPTS).as_posix()
    known = _known().get(key)
    if known and known["text"] == text:
        return _Module(**known)
    tree = ast.parse(content)
    imports, data = list(_imports(tree, path)), list(_declared_data(tree))
    code = hashlib.sha256(_without_docstrings(tree).encode()).hexdigest()
    made = _Module(text, code, imports, data)
    _new[key] = asdict(made)
    return made


def _imports(tree: ast.Module, path: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise InputError(
                    f"{path}, line {node.lineno}: a relative import, which digests of code do not "
                    "follow; write the module's whole name"
                )
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _declared_data(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and "DATA_FILES" in map(ast.unparse, node.targets):
            yield from ast.literal_eval(node.value)


def _data(path: Path, name: str) -> bytes:
    try:
        return hashlib.sha256((path.parent / name).read_bytes()).digest()
    except OSError as error:
        raise InputError(f"{path} declares {name} in DATA_FILES: {error.strerror}") from error


def _without_docstrings(tree: ast.Module) -> str:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body.pop(0)
    return _dump(tree)


def _dump(node: object) -> str:
    """Return what `ast.dump` does, the same in every version of Python.

    Empty fields are left out: which there are, and whether `ast.dump` has them, differs. So are the
    empty strings that Python 3.12 puts into nested formats.
    """
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.JoinedStr):
        fields["values"] = [part for part in node.values if getattr(part, "value", None) != ""]
    said = [f"{name}={_dump(value)}" for name, value in fields.items() if value not in (None, [])]
    return f"{type(node).__name__}({', '.join(said)})"


# Syntax trees cost a second in every job of a cluster. What they said is kept where Python keeps
# its own bytecode: by the digests of the texts.
_new: dict[str, dict] = {}


def _kept() -> Path:
    """Return the file, another one for each version of Python and of this module."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    return SCRIPTS / "__pycache__" / f"code_digests.{sys.implementation.cache_tag}.{own}.json"


@cache
def _known() -> dict[str, dict]:
    try:
        known = json.loads(_kept().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember() -> None:
    if not _new:
        return
    _known().update(_new)
    _new.clear()
    # An installation that jobs may not write to is slower, nothing else.
    with suppress(OSError):
        _kept().parent.mkdir(exist_ok=True)
        with atomic(_kept()) as temporary:
            temporary.write_text(json.dumps(_known()), encoding="utf-8")
