"""Optional parts of genlab: what each needs, and the message where it is not installed."""

from collections.abc import Mapping
from importlib.util import find_spec

from genlab.core.errors import ConfigError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "serve": ("fastapi", "python_multipart", "uvicorn", "watchfiles"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "fidelity": ("torch_fidelity",),
    "identity": ("dlib", "face_recognition_models"),
}
"""Top-level modules that an extra of genlab's installs, beyond what genlab always does; ``serve`` is also what Ray
Serve asks for."""


def require_extra(extra: str, what: str) -> None:
    """Check that the modules of an extra are installed.

    Args:
        extra: one of :data:`EXTRAS`.
        what: the command or option that needs them, for the message.

    Raises:
        ConfigError: one or more are not.
    """
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if missing:
        raise ConfigError(f"{what} needs {', '.join(missing)}; install with: pip install 'genlab[{extra}]'")
