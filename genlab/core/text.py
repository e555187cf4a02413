"""Words of messages and tables."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 image``, ``1,200 images``.

    Args:
        number: how many there are.
        noun: the singular of a noun whose plural ends in -s.
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
