"""A package, so that one of this name in site-packages (torch-fidelity leaves one there) does not stand in for it."""
