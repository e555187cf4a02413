"""Write docs/options/: a table of the options of every command and of every model family (``make docs-options``).

The tables say what ``--help`` says: each command is asked for its help, and the dataclass that it gives to tyro is
written down. Call ``write(folder)`` from Python, or ``python docs/options.py [FOLDER]``.
"""

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints
from unittest import mock

import tyro

from genlab.cli.main import COMMANDS
from genlab.cli.sweep import SweepConfig
from genlab.core.config import OPERATIONAL
from genlab.core.families import families
from genlab.core.option_text import base_type, field_texts, joined, marks, values_text
from genlab.models.model import OPERATIONS, model_type
from genlab.recipes.recipe import preset_values, recipe_type

COMMAND = "make docs-options"
NO_PAGE = ("train",)
"""Commands whose options are those of a model family alone."""


_POSITIONAL = get_args(tyro.conf.Positional[int])[1]


@dataclasses.dataclass(frozen=True)
class Option:
    """A row of a table."""

    name: str
    values: str
    default: str
    help: str
    operational: bool


def config_of(command: str, *arguments: str) -> type:
    """Return the dataclass that ``genlab COMMAND ARGUMENTS... --help`` explains."""
    found: list[type] = []

    def take(config: type, *_: Any, **__: Any) -> None:
        found.append(config)
        sys.exit(0)

    with mock.patch.object(tyro, "cli", take), contextlib.suppress(SystemExit):
        importlib.import_module(COMMANDS[command][0]).main([*arguments, "--help"])
    return found[0]


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    made = {}
    for family in families():
        made[f"{family}.md"] = _page(f"genlab train {family}", config_of("train", family), family=True)
        made[f"{family}.md"] += _presets(family) + _own_options(family)
    for command in COMMANDS:
        if command not in NO_PAGE:
            config = SweepConfig if command == "sweep" else config_of(command)
            made[f"{command}.md"] = _page(f"genlab {command}", config, family=False)
    return {"index.md": _index()} | made


def write(folder: Path) -> None:
    """Write every page, and remove those of commands and families that are gone."""
    made = pages()
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.md"):
        if file.name not in made:
            file.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


def options(config: type, default: Any = None, prefix: str = "") -> Iterator[tuple[str, str, list[Option]]]:
    """Yield the sections of a config: its name, what its class says of it, and its options.

    Args:
        config: a dataclass; fields that are dataclasses are sections of their own.
        default: an instance with the defaults; by default those of the fields.
        prefix: the dotted name of the section, with a dot at its end.
    """
    hints = get_type_hints(config, include_extras=True)
    texts = field_texts(config)
    rows: list[Option] = []
    sections = []
    for field in dataclasses.fields(config):
        value = _default(field) if default is None else getattr(default, field.name)
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            sections.append((hint, value, f"{prefix}{field.name}."))
        else:
            rows.append(_option(prefix + field.name, hint, value, texts.get(field.name, "")))
    yield prefix.rstrip("."), joined(config.__doc__), rows
    for section in sections:
        yield from options(*section)


def _page(command: str, config: type, *, family: bool) -> str:
    usage, *sections = options(config, config() if family else None)
    lines = [_generated(), f"# {command}", "", usage[1], ""]
    if family:
        lines += [
            "Options have the same dotted names in a sweep's space and in a run's `config.json`. Those with a + may be "
            "changed when a run goes on under its name; the others are part of the run's mathematics.",
            "",
        ]
    if usage[2]:
        lines += _table(usage[2])
    for name, text, rows in sections:
        lines += [f"## {name}", "", text, "", *_table(rows)]
    return "\n".join(lines)


def _presets(family: str) -> str:
    """Write the family's presets, each with what it sets."""
    presets = recipe_type(family).presets
    if not presets:
        return ""
    text = "Sets many options at once, as the table below says; options beside it change them."
    lines = ["", "## Presets", "", *_table([Option("--preset", ", ".join(presets), "", text, operational=False)])]
    lines += ["| preset | sets |", "| --- | --- |"]
    for name in presets:
        values = preset_values(family, name)
        lines.append(f"| `{name}` | {', '.join(f'`{option}` {_value(value)}' for option, value in values.items())} |")
    return "\n".join([*lines, ""])


def _own_options(family: str) -> str:
    """Write the options of its own that the family's trained model has, by operation."""
    lines: list[str] = []
    for operation, config in model_type(family).operations.items():
        shared = {field.name for field in dataclasses.fields(OPERATIONS[operation].options)}
        [(_, text, rows)] = options(config, config())
        if own := [row for row in rows if row.name.strip("-").replace("-", "_") not in shared]:
            lines += ["", f"## Of the trained model: {operation}", "", text, "", *_table(own)[:-1]]
    return "\n".join([*lines, ""])


def _index() -> str:
    lines = [
        _generated(),
        "# Options",
        "",
        "Each table says what `--help` of the command says. Hyphens and underscores in names are the same.",
        "",
        "## Model families",
        "",
        "`genlab train FAMILY` trains one; `genlab sweep SPACE` takes the options of its space's family.",
        "",
        *(f"- [{family}]({family}.md)" for family in families()),
        "",
        "## Commands",
        "",
        *(f"- [{name}]({name}.md): {what}" for name, (_, what) in COMMANDS.items() if name not in NO_PAGE),
        "",
    ]
    return "\n".join(lines)


def _generated() -> str:
    return f"<!-- Written by `{COMMAND}`; do not edit. -->\n"


def _table(rows: Sequence[Option]) -> list[str]:
    lines = ["| option | values | default | meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        name = f"`{row.name}`{' +' if row.operational else ''}"
        lines.append(f"| {name} | {_cell(row.values)} | {_cell(row.default)} | {_cell(row.help)} |")
    return [*lines, ""]


def _option(name: str, hint: Any, default: Any, text: str) -> Option:
    found = marks(hint)
    positional = any(mark is _POSITIONAL for mark in found)
    metavar = next((mark.metavar for mark in found if getattr(mark, "metavar", None)), None)
    named = next((mark.name for mark in found if getattr(mark, "name", None)), None)
    dashed = named or name.replace("_", "-")
    base = base_type(hint)
    if positional:
        shown = metavar or dashed.upper()
    elif base is bool:
        section, _, field = dashed.rpartition(".")
        shown = f"--{dashed}`, `--{f'{section}.' if section else ''}no-{field}"
    else:
        shown = f"--{dashed}"
    values = "" if base is bool else values_text(hint)
    return Option(shown, values, _shown_default(default), text, OPERATIONAL in found)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def _shown_default(value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(f"`{part}`" for part in value)
    return f"`{value}`"


def _value(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n\n", " ")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "options")
