"""Seeds, each a pure function of a run's seed and of the purpose it is used for."""

import hashlib


def derived_seed(*parts: int | str) -> int:
    """Return a seed, 0..2**63 - 1, that is a pure function of ``parts``, such as a run's seed, a purpose and a step."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
