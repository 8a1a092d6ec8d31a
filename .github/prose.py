"""Find turns of phrase to avoid in docs, page templates and messages: `python .github/prose.py`.

The table of CONTRIBUTING.md, under "Words", lists them; proselint adds its own.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIST = "CONTRIBUTING.md"
READ = (
    "*.md",
    "docs/*.md",
    "docs/captions/*.rst",
    "examples/*/*.md",
    "config.yaml",
    "profiles/**/*.yaml",
    "examples/**/*.yaml",
    "rules/**/*.smk",
    "Snakefile",
    "scripts/**/*.html",
    "scripts/**/*.j2",
    "scripts/**/*.js",
    "scripts/**/*.py",
)
# Made from config.yaml and the config's models.
MADE = ("docs/config.md",)
# proselint's checks that mistake names, numbers and code for prose, or that are a matter of taste.
UNUSED = (
    "dates_times",
    "lexical_illusions",
    "misc.capitalization",
    "misc.composition",
    "misc.preferred_forms",
    "redundancy.misc.after_the_deadline",
    "spelling.consistency",
    "typography",
    "weasel_words",
)
TWICE = re.compile(r"\b([a-z]{2,})[ \n]+\1\b(?!-)")
# Strings of fewer words are keys, names and units.
LEAST_WORDS = 3
HIDDEN = re.compile(
    r"(?s)<style.*?</style>|(?P<program><script.*?</script>)|<!--.*?-->|\{#.*?#\}|\{%.*?%\}"
    r"|\{\{.*?\}\}|(?P<tag><[^<>]*>)"
)
# What a browser shows or reads aloud of a tag.
SHOWN = re.compile(r"""\b(?:alt|aria-label|placeholder|title)="([^"]*)\"""")
QUOTED = re.compile(r"""(?s)(["'`])((?:\\.|(?!\1)[^\\])*)\1""")


class Finding(NamedTuple):
    """A turn of phrase at a place, and what to write instead."""

    path: Path
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: "{self.text}": {self.instead}'


def main(names: list[str]) -> int:
    """Print what is found in the files named, or in all; return 1 if anything is."""
    chosen = {Path(name).resolve() for name in names}
    paths = [path for path in files(ROOT) if not chosen or path in chosen]
    turns = turns_to_avoid((ROOT / LIST).read_text(encoding="utf-8"))
    found = [finding for path in paths for finding in findings(path, turns)]
    for finding in found:
        print(finding._replace(path=finding.path.relative_to(ROOT)))
    return int(bool(found))


def files(root: Path) -> list[Path]:
    """Return the files with prose below a folder of the project, in order."""
    made = {root / name for name in MADE}
    found = {path for pattern in READ for path in root.glob(pattern)}
    return sorted(path for path in found - made if not path.name.endswith(".min.js"))


def turns_to_avoid(contributing: str) -> list[tuple[re.Pattern[str], str]]:
    """Return a pattern for each turn in the table under "Words", with what to write instead."""
    _, _, after = contributing.partition("\n## Words\n")
    table, _, _ = after.partition("\n## ")
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    return [
        (pattern_of(turn), instead)
        for turns, instead in rows[1:]
        for turn in turns.split(", ")
        if not turns.startswith("---")
    ]


def pattern_of(turn: str) -> re.Pattern[str]:
    """Return a pattern that finds a turn at any line break; `...` stands for one to five words."""
    words = r"\s+".join(
        r"\S+(?:\s+\S+){0,4}?" if word == "..." else re.escape(word) for word in turn.split()
    )
    return re.compile(rf"\b{words}\b", re.IGNORECASE)


def findings(path: Path, turns: Iterable[tuple[re.Pattern[str], str]]) -> list[Finding]:
    """Return what one file holds of the turns, and what proselint says of it."""
    text = prose(path)
    found = [
        Finding(path, line_of(text, match.start()), " ".join(match[0].split()), instead)
        for pattern, instead in turns
        for match in pattern.finditer(text)
    ]
    twice = [
        Finding(path, line_of(text, match.start()), match[0], "a word too many")
        for match in TWICE.finditer(text)
    ]
    every = [*found, *twice, *by_proselint(path, text)]
    return sorted(every, key=lambda finding: finding.line)


def by_proselint(path: Path, text: str) -> Iterator[Finding]:
    """Yield what proselint finds in a text."""
    from proselint.checks import __register__
    from proselint.config import DEFAULT
    from proselint.registry import CheckRegistry
    from proselint.tools import LintFile

    registry = CheckRegistry()
    if not registry.checks:
        registry.register_many(__register__)
    # The first key that names a check or its group decides.
    checks = dict.fromkeys(UNUSED, False)
    checks |= {name: used for name, used in DEFAULT["checks"].items() if name not in checks}
    for result in LintFile(path.name, text).lint({"max_errors": 1000, "checks": checks}):
        start, end = result.check_result.span
        # proselint puts a line break before the text.
        said = " ".join(text[max(start - 1, 0) : end - 1].split())
        yield Finding(path, line_of(text, max(start - 1, 0)), said, result.check_result.message)


def line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def prose(path: Path) -> str:
    """Return the prose of a file, each word in the line where it stands, all else blank."""
    text = path.read_text(encoding="utf-8")
    readers: dict[str, Callable[[str], str]] = {
        ".md": markdown,
        ".rst": str,
        ".html": template,
        ".j2": comments if path.name.endswith(".yaml.j2") else template,
        ".py": messages,
        ".js": program,
    }
    return readers.get(path.suffix, comments)(text)


def markdown(text: str) -> str:
    """Return Markdown without code, addresses and the list of turns itself."""
    text = re.sub(r"(?s)(?<=\n## Words\n).*?(?=\n## |\Z)", blank, text)
    text = re.sub(r"(?ms)^```.*?^```$", blank, text)
    text = re.sub(r"(?m)(?<=\n\n)(?: {4}.*\n+)+", blank, text)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", blank, text)
    return re.sub(r"(?m)^(#.*)$", r"\1.", text)


def template(text: str) -> str:
    """Return a template's words, those of attributes and programs too, without expressions."""

    def shown(match: re.Match[str]) -> str:
        if match["program"]:
            return program(match["program"])
        return " . ".join(["", *SHOWN.findall(match["tag"] or "")]) + blank(match)

    return HIDDEN.sub(shown, text)


def program(text: str) -> str:
    """Return the strings of JavaScript that are sentences, each in the line where it ends."""
    shown, last = "", 0
    for match in QUOTED.finditer(text):
        shown += "\n" * text.count("\n", last, match.end())
        shown += " . " + " ".join(match[2].split()) if is_sentence(match[2]) else ""
        last = match.end()
    return shown + "\n" * text.count("\n", last)


def is_sentence(words: str) -> bool:
    return len(words.split()) >= LEAST_WORDS


def comments(text: str) -> str:
    """Return the comments of YAML or of a Snakefile."""
    lines = (line.partition("#")[2] + "." for line in text.split("\n"))
    return re.sub(r"`[^`\n]*`", blank, "\n".join(lines))


def messages(text: str) -> str:
    """Return the strings of a module that are sentences, each in the line where it begins."""
    lines = [""] * (text.count("\n") + 1)
    for line, words in strings(ast.parse(text)):
        if is_sentence(words):
            lines[line - 1] += " ".join(words.split()) + " . "
    return "\n".join(lines)


def strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield each string below a node with its line; what an f-string puts in stands as `X`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    elif isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
        yield node.lineno, "".join(map(str, parts))
        return
    for child in ast.iter_child_nodes(node):
        yield from strings(child)


def blank(match: re.Match[str]) -> str:
    """Return as many lines as were matched, with nothing in them, or a place for a word."""
    return "\n" * match[0].count("\n") or " _ "


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
