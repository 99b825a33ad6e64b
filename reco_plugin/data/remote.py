"""Images behind a URL, fetched on access.

The URLs are of the user's own catalogue, so private addresses are allowed. For untrusted URLs see ``serve/fetch.py``.
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import quote

from .. import __version__
from ..errors import DataError

_HEADERS = {"User-Agent": f"reco-plugin/{__version__}", "Accept": "image/*,*/*;q=0.5"}
_AS_IT_IS = "%/:=&?~#+!$,;'@()*[]"
_USER = re.compile(r"//[^/]*@")
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class RemoteImage:
    """An image behind an ``http://`` or ``https://`` URL."""

    url: str
    timeout_s: float = 20.0  # in total
    max_bytes: int = 64 << 20  # larger images are refused

    def __str__(self) -> str:
        """The URL without user, password and query, which may be secret."""
        return _USER.sub("//", self.url.partition("?")[0], count=1)

    def read(self) -> bytes:
        """Fetch the bytes of the image.

        Raises:
            DataError: no response in time, a status other than 200, or too many bytes.
        """
        if _USER.search(self.url.partition("?")[0]):
            raise DataError(f"{self} cannot be fetched: the URL names a user, which is not supported")
        until = time.monotonic() + self.timeout_s
        try:
            request = urllib.request.Request(quote(self.url, _AS_IT_IS), headers=_HEADERS)  # noqa: S310 - see _opener
            with _opener().open(request, timeout=self.timeout_s) as response:
                body = bytearray()
                while chunk := response.read1(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > self.max_bytes:
                        raise DataError(f"{self} has more than {self.max_bytes:,} bytes")
                    if time.monotonic() > until:
                        raise TimeoutError
        except urllib.error.HTTPError as error:
            error.close()
            raise DataError(f"{self} answered HTTP {error.code}") from None
        except TimeoutError:
            raise self._late() from None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise self._late() from None
            raise DataError(f"{self} cannot be fetched: {reason or type(error).__name__}") from None
        if response.length:
            raise DataError(f"{self} broke off {response.length:,} bytes before its end")
        if not body:
            raise DataError(f"{self} is empty")
        return bytes(body)

    def _late(self) -> DataError:
        return DataError(f"{self} was not there within {self.timeout_s:g} s")


def _opener() -> urllib.request.OpenerDirector:
    """An opener that knows http and https only, also after a redirect."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
