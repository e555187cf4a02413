"""The table of docs/scale.md that says which lines of the loop would change names lines that are in it."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HEADING = "### What would change for models that no GPU holds"


def test_the_lines_that_would_change_are_lines_of_the_loop() -> None:
    section = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8").partition(HEADING)[2]
    lines = re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    loop = (REPOSITORY / "genlab" / "training" / "loop.py").read_text(encoding="utf-8").splitlines()
    assert lines
    assert [line for line in lines if line not in map(str.strip, loop)] == []
