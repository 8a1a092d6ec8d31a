"""Cut a release: `make release VERSION=0.2.0`.

Sets the version, moves what stands under Unreleased in the changelog to it, commits and tags.
Nothing is pushed. Anything that is not as it should be is said in one line, and nothing changes.
"""

import re
import subprocess
import sys
from datetime import date
from pathlib import Path

# The line of each file that holds the version.
PLACES = {
    "pyproject.toml": r'(?m)^version = "(.+)"$',
    "CITATION.cff": r"(?m)^version: (.+)$",
    "scripts/hcsqc/__init__.py": r'(?m)^__version__ = "(.+)"$',
}
CHANGELOG = "CHANGELOG.md"
UNRELEASED = "## [Unreleased]\n"


def main() -> None:
    """Check everything first, then write, commit and tag."""
    version = " ".join(sys.argv[1:])
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        sys.exit(f"error: '{version}' is no version; say make release VERSION=0.2.0")
    if git("status", "--porcelain"):
        sys.exit("error: there are changes or new files that are not committed; see git status")
    if git("tag", "--list", f"v{version}"):
        sys.exit(f"error: there is a tag v{version} already")
    texts = {name: Path(name).read_text(encoding="utf-8") for name in PLACES}
    versions = {name: re.findall(PLACES[name], text) for name, text in texts.items()}
    known = {tuple(found) for found in versions.values()}
    if len(known) != 1 or len(versions["pyproject.toml"]) != 1:
        sys.exit(f"error: the files do not name one and the same version: {versions}")
    [old] = versions["pyproject.toml"]
    if numbers(version) <= numbers(old):
        sys.exit(f"error: {version} is not above {old}, the version of the last release")
    changed = {
        name: re.sub(PLACES[name], lambda match: match[0].replace(old, version), text)
        for name, text in texts.items()
    }
    changed[CHANGELOG] = moved(Path(CHANGELOG).read_text(encoding="utf-8"), version)
    before = {name: Path(name).read_text(encoding="utf-8") for name in changed}
    write(changed)
    try:
        git("commit", "--quiet", "--message", f"Release {version}", "--", *changed)
    except SystemExit:
        write(before)
        raise
    git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    print(f"{version} is committed and tagged. To publish it: git push --follow-tags")


def write(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        Path(name).write_text(text, encoding="utf-8")


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def moved(changelog: str, version: str) -> str:
    """Return the changelog with an empty Unreleased above the version's own entries."""
    before, found, after = changelog.partition(UNRELEASED)
    entries, *older = re.split(r"(?m)^(?=## )", after, maxsplit=1)
    if not found or not re.search(r"(?m)^- ", entries):
        sys.exit(f"error: {CHANGELOG} has no entry under Unreleased; say there what changed")
    heading = f"\n## [{version}] - {date.today().isoformat()}\n"
    return "".join([before, UNRELEASED, heading, entries, *older])


def git(*words: str) -> str:
    """Return what a git command prints; its own words are the message where it fails."""
    done = subprocess.run(["git", *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: git {words[0]} failed")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
