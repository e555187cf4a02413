"""Words of messages and tables."""

from decimal import Decimal


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 image``, ``1,200 images``.

    Args:
        number: how many there are.
        noun: the singular of a noun whose plural ends in -s.
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def number_text(number: float) -> str:
    """Return a number to four digits, from 1,000 on to whole ones: ``0.00025``, ``1.5``, ``12,346``."""
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{Decimal(f'{number:.4g}'):,f}"  # a Decimal is written without an exponent


def size_text(size: int) -> str:
    """Return a number of bytes with its unit, to three digits: ``1.5 MiB``."""
    number, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1000:
            break
        number, unit = number / 1024, larger
    return f"{number:.3g} {unit}"
