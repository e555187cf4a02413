"""Provenance notes: what each picture that was made of a person's or a data set's picture says of its origin."""

from typing import Any

from genlab import __version__


def provenance(made: str, model: str, **origin: Any) -> dict[str, Any]:
    """Return a note in plain values, for :func:`genlab.imaging.images.encode_png`.

    Args:
        made: what the picture is, such as ``projection``.
        model: SHA-256 of the weights of the generator.
        origin: what it was made from and how, such as the ``source`` by its SHA-256.
    """
    return {"made": made, "genlab": __version__, "model": model, **origin}
