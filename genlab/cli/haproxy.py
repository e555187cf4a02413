"""``genlab haproxy``: the environment in which Ray Serve answers through HAProxy."""

import shlex
import sys
from collections.abc import Sequence

from genlab.core.config import parse
from genlab.core.errors import ConfigError, run_command
from genlab.core.extras import require_extra
from genlab.serving import haproxy


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab haproxy``."""
    run_command(lambda: print_exports(parse(haproxy.HAProxyConfig, arguments, prog="genlab haproxy")))


def print_exports(config: haproxy.HAProxyConfig) -> None:
    """Print shell commands that set the environment.

    Raises:
        ConfigError: the folder or the certificate cannot be used; or TLS was asked for, and there is no HAProxy.
        GenlabError: HAProxy does not go with the installed Ray.
    """
    require_extra("serve", "genlab haproxy")
    try:
        environment = haproxy.prepare(config)
    except haproxy.MissingError as error:
        if config.tls.certificate is not None:
            raise ConfigError(
                f"--tls.certificate: {error}; Ray Serve's Python proxy has http_options.ssl_certfile"
            ) from None
        print(
            f"{error}. Ray Serve's Python proxy will be used: it is slower, and a request is lost with its replica",
            file=sys.stderr,
        )
        environment = haproxy.python_proxy()
    for name, value in environment.items():
        print(f"export {name}={shlex.quote(value)}")
