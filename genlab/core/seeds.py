"""Seeds that are pure functions of what they are for."""

import hashlib


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of ``parts``."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
