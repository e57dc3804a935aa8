"""Documents and their fenced blocks."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for place in ("*.md", "cpp/*.md", "docs/**/*.md", "examples/*/*.md", "fuzz/*.md", "tests/*/*.md")
    for path in ROOT.glob(place)
)


def blocks(document: str, language: str) -> Iterator[tuple[int, str]]:
    """(number of the line before, text) of the fenced blocks of a language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for match in re.finditer(rf"^ *```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start()) + 1, match[1]


WITH_SNIPPETS = [document for document in DOCUMENTS if [*blocks(document, "python")]]
