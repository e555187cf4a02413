"""The site of docs/: every page has its place in it, and every link, the README's too, leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path

from markdown.extensions.toc import slugify

REPOSITORY = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\((?P<file>[^)#:\s]+)(?:#(?P<anchor>[^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "benchmarks" / "index.html").is_file()


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    links = list(LINK.finditer(text))
    assert links
    for link in links:
        target = REPOSITORY / link["file"]
        assert target.exists(), f"README.md: {link['file']} is not there"
        if link["anchor"]:
            headings = HEADING.findall(target.read_text(encoding="utf-8"))
            assert link["anchor"] in [slugify(heading, "-") for heading in headings], f"README.md: {link[0]}"


def test_the_glossary_is_short() -> None:
    rows = re.findall(
        r"^\| (?!word|---)", (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert 0 < len(rows) <= 15
