"""Model families: each has a module of its name in every package that has a part for it.

The module defines one object that the package uses: ``MODEL`` in ``genlab.models``, ``RECIPE`` in ``genlab.recipes``,
``REPORT`` in ``genlab.reports``. So a new family needs no list in which it is entered.
"""

import importlib
import pkgutil
from typing import Any


def families(package: str = "genlab.recipes", name: str = "RECIPE") -> list[str]:
    """Return the names of the families that a package has a module for, sorted.

    Args:
        package: dotted name of the package; by default that of the recipes, which gives the families that can be
            trained.
        name: the object that the module of a family defines; modules without it belong to no family.
    """
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return sorted(module.name for module in modules if defined(package, module.name, name) is not None)


def defined(package: str, family: str, name: str) -> Any:
    """Return the object ``name`` of the module ``family`` in ``package``; ``None`` when either does not exist.

    Only modules of ``package`` itself are imported, whatever ``family`` is.
    """
    if not _has_module(package, family):
        return None
    return getattr(importlib.import_module(f"{package}.{family}"), name, None)


def undefined(package: str, family: str, name: str) -> str:
    """Return the message for a family of which :func:`defined` returned ``None``."""
    kind = "recipe for" if name == "RECIPE" else "model"
    message = f"no {kind} family {family!r}; there are: {', '.join(families(package, name))}"
    if _has_module(package, family):
        message += f". {module_file(package, family)} defines no {name}; end it with {name} = CLASS, the family's class"
    return message


def module_file(package: str, family: str) -> str:
    """Return the path of the module ``family`` of ``package``, from the root of the repository, for messages."""
    return f"{package.replace('.', '/')}/{family}.py"


def _has_module(package: str, name: str) -> bool:
    return name in {module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)}
