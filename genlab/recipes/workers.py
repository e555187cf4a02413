"""The number of workers of a run, which may be a range: ``2..8``."""

import re
from typing import Annotated, Any

import tyro
from pydantic import PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator

from genlab.core.config import OPERATIONAL


class Elastic(int):
    """A number of workers that may fall to a least one: the integer is the most.

    Args:
        most: the most workers.
        least: the least.
    """

    def __new__(cls, most: int, least: int) -> "Elastic":
        """Make one."""
        made = super().__new__(cls, most)
        made.least = least
        return made

    least: int
    """The least workers."""

    def __reduce__(self) -> tuple[type["Elastic"], tuple[int, int]]:
        return Elastic, (int(self), self.least)

    def __str__(self) -> str:
        return f"{self.least}..{int(self)}"

    __repr__ = __str__


def least_of(workers: int) -> int:
    """Return the least number of workers, for a number or an :class:`Elastic` one."""
    return workers.least if isinstance(workers, Elastic) else workers


def parse_workers(text: str) -> int:
    """Read ``4`` or ``2..8``.

    Raises:
        ValueError: it is neither.
    """
    found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    if not found:
        raise ValueError("should be a whole number, or a range as 2..8")
    if found[2] is None:
        return int(text)
    least, most = int(found[1]), int(found[2])
    if not 1 <= least < most:
        raise ValueError("should have at least one worker, and more at its end than at its beginning")
    return Elastic(most, least)


def _validate(value: Any, handler: ValidatorFunctionWrapHandler) -> int:
    if isinstance(value, str) and ".." in value:
        value = parse_workers(value)
    plain: int = handler(int(value) if isinstance(value, Elastic) else value)
    return value if isinstance(value, Elastic) else plain


_COMMAND_LINE = tyro.constructors.PrimitiveConstructorSpec[int](
    nargs=1,
    metavar="INT|INT..INT",
    instance_from_str=lambda words: parse_workers(words[0]),
    is_instance=lambda instance: isinstance(instance, int),
    str_from_instance=lambda instance: [str(instance)],
)

Workers = Annotated[
    int,
    WrapValidator(_validate),
    PlainSerializer(lambda value: str(value) if isinstance(value, Elastic) else int(value)),
    _COMMAND_LINE,
    OPERATIONAL,
]
"""The type of an option that takes ``4`` or ``2..8``."""
