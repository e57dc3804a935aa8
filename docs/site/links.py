"""Hook of MkDocs: the site has the links of the repository.

README.md is the first page. Files outside of ``docs/`` that a page links to (CONTRIBUTING.md, examples, sources) come
along at their place in the repository, and links are changed to lead there. A link to a folder leads to its README.md.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

HOME = "README.md"
LINK = re.compile(r"(\]\()([^)#\s]+)([^)]*\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the first page, and the files outside of ``docs/`` that pages lead to."""
    root = Path(config.config_file_path).parent
    pages = [HOME, *(f"docs/{page.src_uri}" for page in files.documentation_pages())]
    for source in pages:  # grows while it is read
        text = (root / source).read_text(encoding="utf-8") if source.endswith(".md") else ""
        found = {_target(root, source, link) for _, link, _ in LINK.findall(text)} - {None, *pages}
        pages += sorted(path for path in found if not path.startswith("docs/"))
    for source in pages:
        if not source.startswith("docs/"):
            level = InclusionLevel.INCLUDED if source == HOME else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, _uri(source), abs_src_path=str(root / source), inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change the links of a page from places in the repository to places in the site."""
    root = Path(config.config_file_path).parent
    source = Path(page.file.abs_src_path).relative_to(root).as_posix()

    def changed(match: re.Match[str]) -> str:
        target = _target(root, source, match[2])
        if target is None:
            return match[0]
        return match[1] + posixpath.relpath(_uri(target), posixpath.dirname(page.file.src_uri)) + match[3]

    return LINK.sub(changed, markdown)


def _target(root: Path, source: str, link: str) -> str | None:
    """Path in the repository of what a link on a page leads to; none where that is no file of it."""
    if ":" in link:
        return None
    path = (root / source).parent / link
    path = (path / "README.md" if path.is_dir() else path).resolve()
    return path.relative_to(root.resolve()).as_posix() if path.is_file() else None


def _uri(source: str) -> str:
    """Place in the site of a file of the repository."""
    return "index.md" if source == HOME else source.removeprefix("docs/")
