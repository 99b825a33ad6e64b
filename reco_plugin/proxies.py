"""What httpx takes of the environment: proxies (``HTTP_PROXY``, ``ALL_PROXY``, ``NO_PROXY``), and ``SSL_CERT_FILE``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from .errors import ConfigError


@contextmanager
def usable_environment() -> Iterator[None]:
    """Refuse what httpx cannot take, while a client of it is made in the block: else that ends with a trace.

    Raises:
        ConfigError: a proxy of SOCKS without its package, or none at all; certificates that cannot be read.
    """
    try:
        yield
    except OSError as error:  # also ssl.SSLError; nothing is asked yet
        raise ConfigError(f"the certificates that SSL_CERT_FILE names cannot be read: {error}") from error
    except Exception as error:
        import httpx

        if not isinstance(error, ImportError | ValueError | httpx.InvalidURL) or not _proxies():
            raise
        raise ConfigError(
            f"a proxy of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY) cannot be used: {error}"
        ) from error


def proxy_of(url: str) -> str:
    """Through which proxy a URL is asked, in brackets to end a message with; empty: through none."""
    from urllib.request import proxy_bypass

    parts, proxies = urlsplit(url), _proxies()
    schemes = (parts.scheme, "all") if parts.scheme.startswith("http") else ("https", "http")  # gRPC takes either
    proxy = next((proxies[scheme] for scheme in schemes if scheme in proxies), "")
    if not proxy or not parts.hostname or proxy_bypass(parts.hostname):
        return ""
    shown = proxy.rpartition("@")[2].rpartition("//")[2]  # without a password
    return f" (asked through the proxy {shown} of the environment; hosts in NO_PROXY are asked directly)"


def _proxies() -> dict[str, str]:
    from urllib.request import getproxies  # late: it brings an HTTP client of its own

    return getproxies()
