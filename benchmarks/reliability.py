"""Run every test marked ``reliability`` and print the table of ``docs/reproducibility.md``: ``make reliability``.

Arguments go to pytest: ``python benchmarks/reliability.py tests/training`` runs a part.
"""

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run, print, and exit as pytest does."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "--quiet", "-m", "reliability", f"--junitxml={file}", *sys.argv[1:]]
        status = subprocess.run(command, cwd=REPOSITORY).returncode
        cases = list(ElementTree.parse(file).iter("testcase")) if file.exists() else []
    results: dict[tuple[str, str], list[bool]] = {}
    for case in cases:
        name, _, parameters = case.get("name", "").partition("[")
        # The repetitions of a case differ in their seed only.
        setting = re.sub(r", seed \d+", "", parameters.rstrip("]"))
        passed = case.find("failure") is None and case.find("error") is None
        results.setdefault((name.removeprefix("test_").replace("_", " "), setting), []).append(passed)
    print("\n| | setting | passed |\n| --- | --- | ---: |")
    for (name, setting), passed in results.items():
        print(f"| {name} | {setting} | {sum(passed)} of {len(passed)} |")
    sys.exit(status)


if __name__ == "__main__":
    main()
