"""The option tables in docs/options are those that the code has."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_tables_are_up_to_date(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "docs/options.py", str(tmp_path)], cwd=REPOSITORY, check=True)
    made, kept = _texts(tmp_path), _texts(REPOSITORY / "docs" / "options")
    stale = sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))
    assert not stale, f"docs/options: {', '.join(stale)} differ from the code; run `make docs-options`"


def _texts(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.glob("*.md")}
