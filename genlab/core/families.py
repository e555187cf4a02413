"""The model families: each is a module of one name in every package that knows families.

A family's module defines one name by which the package knows it: ``MODEL`` in ``genlab.models``, ``RECIPE`` in
``genlab.recipes``, ``REPORT`` in ``genlab.reports``.
"""

import importlib
import pkgutil
from typing import Any


def families(package: str = "genlab.recipes", name: str = "RECIPE") -> list[str]:
    """The families that a package has a module for, sorted.

    Args:
        package: dotted name of the package; by default the recipes, so the families that can be trained.
        name: what the module of a family defines; other modules of the package are not families.
    """
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return sorted(module.name for module in modules if defined(package, module.name, name) is not None)


def defined(package: str, family: str, name: str) -> Any:
    """What the module of ``family`` in ``package`` calls ``name``; ``None`` when there is no such module or name.

    Only modules of ``package`` itself are ever imported, whatever ``family`` says.
    """
    if family not in {module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)}:
        return None
    return getattr(importlib.import_module(f"{package}.{family}"), name, None)
