"""The commands in README and docs: their options are there, and those that take seconds run.

The blocks of commands with ``<!-- run -->`` above them are run, page by page, in a fresh home folder. Options of all
commands are looked up in docs/options, which test_options.py holds up to date.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from genlab.core.families import families

REPOSITORY = Path(__file__).resolve().parents[2]
OPTIONS = REPOSITORY / "docs" / "options"
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "benchmarks" / "README.md",
    *sorted(page for page in (REPOSITORY / "docs").rglob("*.md") if OPTIONS not in page.parents),
]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = re.compile(r"^<!-- run -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (?P<names>`--[^|]+?) \| (?P<values>[^|]*) \|", re.MULTILINE)
CHOICES = re.compile(r"[\w-]+(, [\w-]+)+$")
OTHERS = {
    *("aws", "cp", "curl", "docker", "done", "export", "for", "gcloud", "git", "kubectl", "pip", "printf", "pytest"),
    *("prometheus", "ray", "sbatch", "sed", "serve", "source", "tensorboard", "uv"),
}
"""Programs whose options are not genlab's."""
OF_MODELS = {"sample", "reconstruct", "encode", "decode", "interpolate", "mix", "translate", "evaluate"}
"""Commands that take options of the model's own."""

SCRIPT = """\
from genlab.cli.main import main

if __name__ == "__main__":
    main()
"""
"""The program ``genlab``, of this checkout."""

PYTHONS = {"python", ".venv-bench/bin/python"}


def page_name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in the ``sh`` blocks of a page."""
    for block in BLOCK.findall(text):
        waiting = ""
        for line in block.replace("\\\n", " ").splitlines():
            waiting += line + "\n"
            try:
                words = shlex.split(waiting, comments=True)
            except ValueError:  # A quotation goes on in the next line.
                continue
            waiting = ""
            if words:
                yield words


def table(name: str) -> dict[str, str]:
    """Return the options of a page of docs/options, with what their values may be."""
    found = {}
    for row in ROW.finditer((OPTIONS / f"{name}.md").read_text(encoding="utf-8")):
        for option in re.findall(r"`(--[^`]+)`", row["names"]):
            found[option] = row["values"]
    return found


def of_genlab(command: str, arguments: list[str]) -> Mapping[str, str]:
    """Return the options of ``genlab COMMAND ARGUMENTS...``."""
    if command == "train":
        return table(arguments[0]) if arguments and not arguments[0].isupper() else every_option()
    if command == "sweep":
        space = REPOSITORY / arguments[0]
        family = re.search(r'family="(\w+)"', space.read_text(encoding="utf-8")) if space.is_file() else None
        return table("sweep") | (table(family[1]) if family else every_option())
    own = table(command)
    if command in ("describe", "verify-resume", "verify-ddp"):
        known = (OPTIONS / f"{arguments[0]}.md").is_file() if arguments else False
        return own | dict(table(arguments[0]) if known else every_option())
    if arguments and command in OF_MODELS:
        # A model's own options stand on the page of its family, without the dots of those of training.
        pages = (table(family) for family in families())
        return own | {name: values for page in pages for name, values in page.items() if "." not in name}
    return own


def every_option() -> dict[str, str]:
    return {name: values for page in OPTIONS.glob("*.md") for name, values in table(page.stem).items()}


def check(words: list[str]) -> None:
    """Fail where a command, or an option of it, is not there."""
    program, *rest = words
    if program == "ray" and "--" in rest:
        check(rest[rest.index("--") + 1 :])
    elif program == "genlab":
        if rest[0] != "--help" and not (rest[0].isupper() and rest[1:] == ["--help"]):
            check_options(of_genlab(rest[0], rest[1:]), rest[1:])
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(rest) <= set(targets), f"make {' '.join(rest)}: no such target"
    elif program in PYTHONS and rest[0] == "-c":
        compile(rest[1], "docs", "exec")
    elif program in PYTHONS:
        script = REPOSITORY / rest[0]
        assert script.is_file() or rest[0].isupper() or "NAME" in rest[0], f"{rest[0]}: no such file"
        if rest[0].startswith("jobs/"):
            command = [script.stem] if script.stem in ("ingest", "sweep", "translate") else ["train", script.stem]
            check(["genlab", *command, *rest[1:]])
        elif script.is_file():
            known = script.read_text(encoding="utf-8")
            for word in rest[1 : rest.index("--") if "--" in rest else None]:
                assert not word.startswith("--") or f'"{word}"' in known or word == "--help", f"{rest[0]}: no {word}"
    else:
        assert program in OTHERS, f"{program}: what is this?"


def check_options(known: Mapping[str, str], words: list[str]) -> None:
    for number, word in enumerate(words):
        name, _, value = word.partition("=")
        if not name.startswith("--") or name == "--help":
            continue
        name = name.replace("_", "-")
        assert name in known, f"no option {name}"
        value = value or (words[number + 1] if number + 1 < len(words) else "")
        if CHOICES.match(known[name]):
            assert value in known[name].split(", "), f"{name} {value}: not one of {known[name]}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_options_of_commands_are_there(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        try:
            check(words)
        except AssertionError as error:
            raise AssertionError(f"{page_name(page)}: {shlex.join(words)}: {error}") from None


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_options_named_in_the_text_are_there(page: Path) -> None:
    scripts = "".join(file.read_text(encoding="utf-8") for file in (REPOSITORY / "benchmarks").glob("*.py"))
    known = set(every_option()) | {"--help"} | set(re.findall(r'"(--[a-z-]+)"', scripts))
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    words = (word.partition("=")[0] for code in re.findall(r"`([^`]+)`", text) for word in code.split())
    named = {word.replace("_", "-") for word in words if re.fullmatch(r"--[a-z0-9._-]+", word)}
    assert named <= known


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if RUN.search(page.read_text("utf-8"))], ids=page_name)
def test_commands_that_take_seconds_run(page: Path, tmp_path: Path) -> None:
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    genlab = programs / "genlab"
    genlab.write_text(
        f"#!{sys.executable}\nfrom genlab.cli.main import main\n\nif __name__ == '__main__':\n    main()\n"
    )
    genlab.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GENLAB_", "RAY_"))} | {
        "HOME": str(home),
        "GENLAB_RUNS": str(home / "genlab-runs"),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    for block in RUN.findall(page.read_text(encoding="utf-8")):
        script = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(script, cwd=home, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{page_name(page)}:\n{block}\n{done.stdout}\n{done.stderr}"
