"""Add the pages that lie outside docs/ to the site that mkdocs makes (``make docs``)."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

OUTSIDE = {"benchmarks/README.md": "benchmarks/index.md", "CONTRIBUTING.md": "contributing.md"}
"""Path in the repository → path in the site."""

LINK = re.compile(r"(?<=\]\()[^)#:\s]+(?=[)#])")
"""The target of a link to a file, without its anchor."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of :data:`OUTSIDE`."""
    root = Path(config.config_file_path).parent
    for path, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that are right in the repository into links that are right in the site."""
    uri = page.file.src_uri
    sources = {site: path for path, site in OUTSIDE.items()}
    here = posixpath.dirname(sources.get(uri, f"docs/{uri}"))

    def in_site(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, link[0]))
        target = OUTSIDE.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(target, posixpath.dirname(uri) or ".")

    return LINK.sub(in_site, markdown)
