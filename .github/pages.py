"""Hook of MkDocs: the pages that lie outside docs/, and a drawing's script.

README.md is the home page; CHANGELOG.md, CONTRIBUTING.md and the real fields' README are pages too.
What they link to is copied beside them. Drawings stay text unless MERMAID names a copy of Mermaid's
script: the site loads nothing from elsewhere.
"""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/bbbc022/README.md": "real_fields.md",
}
FILES = ("LICENSE", "CITATION.cff")
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
DRAWING = '<pre class="mermaid">'
SCRIPT = "assets/mermaid.min.js"
STYLE = ".md-grid { max-width: 80rem; }\n"  # lines of code have up to 120 characters
MERMAID = os.environ.get("MERMAID")


def on_files(files, config):
    """Add the pages, with links as of docs/, and the files."""
    for name, page in PAGES.items():
        text = LINK.sub(lambda match: _as_of_docs(match[0]), (ROOT / name).read_text())
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "assets/site.css", content=STYLE))
    copies = {name: ROOT / name for name in FILES}
    if MERMAID:
        copies[SCRIPT] = Path(MERMAID).resolve(strict=True)
    for name, path in copies.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead a page's links above docs/ to the pages of those files."""
    return LINK.sub(lambda match: _of_the_site(match[0]), markdown)


def on_page_content(html, page, config, files):
    """Load the script where there is a drawing; without it, leave the drawing's text."""
    if DRAWING not in html:
        return html
    if not MERMAID:
        return html.replace(DRAWING, "<pre>")
    return f'{html}<script src="{get_relative_url(SCRIPT, page.url)}"></script>'


def _of_the_site(link: str) -> str:
    return _as_of_docs(link.removeprefix("../")) if link.startswith("../") else link


def _as_of_docs(link: str) -> str:
    path, mark, anchor = link.partition("#")
    return PAGES.get(path, path.removeprefix("docs/")) + mark + anchor
