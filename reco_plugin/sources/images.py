"""Images behind URLs, and the image files that a memory's pairs may show."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from .. import __version__
from ..errors import DataError, MemoryStoreError
from ..files import write_whole
from ..types import Payload

_HEADERS = {"User-Agent": f"reco-plugin/{__version__}", "Accept": "image/*,*/*;q=0.5"}
_SAFE_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"
_CHUNK_BYTES = 1 << 16


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet.

    >>> is_public("8.8.8.8"), is_public("169.254.169.254"), is_public("::ffff:10.0.0.1"), is_public("fe80::1%eth0")
    (True, False, False, False)
    """
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_global


class _PublicConnection(HTTPConnection):
    """Refuses a peer that is not on the public internet, before anything is sent.

    The check is on the peer, because the host's name may resolve to another address by now.
    """

    def connect(self) -> None:
        super().connect()
        peer = self.sock.getpeername()[0]
        if not is_public(peer):
            raise PermissionError(f"{peer} is a private address; --allow-private-urls allows those")


class _PublicTlsConnection(HTTPSConnection, _PublicConnection):
    """The same over TLS: ``HTTPSConnection.connect`` calls the check before the handshake."""


class _PublicHandler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens URLs and redirects by the connections above, unless a proxy connects."""

    def do_open(self, http_class: Any, req: urllib.request.Request, **more: Any) -> HTTPResponse:
        target = urllib.request.Request(req.full_url)  # noqa: S310 - only parsed
        if req.host == target.host:  # else `req.host` is a proxy
            http_class = _PublicTlsConnection if issubclass(http_class, HTTPSConnection) else _PublicConnection
        return super().do_open(http_class, req, **more)


def _opener(allow_private: bool) -> urllib.request.OpenerDirector:
    """Make an opener for HTTP only; the default one of urllib would follow a redirect to FTP."""
    opener, usual = urllib.request.OpenerDirector(), (urllib.request.HTTPHandler(), urllib.request.HTTPSHandler())
    for handler in (
        *(usual if allow_private else (_PublicHandler(),)),
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


@dataclass(frozen=True)
class RemoteImage:
    """An image behind an ``http://`` or ``https://`` URL."""

    url: str
    timeout_s: float = 20.0  # in total
    max_bytes: int = 64 << 20  # larger images are refused
    allow_private: bool = False  # whether the host may be outside of the public internet

    def __str__(self) -> str:
        """The URL without its query, which may contain secrets."""
        return self.url.partition("?")[0]

    def read(self) -> bytes:
        """Fetch the bytes of the image.

        Raises:
            DataError: no response in time, a status other than 200, too many bytes, or a private address.
        """
        until, body = time.monotonic() + self.timeout_s, bytearray()
        try:
            request = urllib.request.Request(quote(self.url, _SAFE_CHARACTERS), headers=_HEADERS)  # noqa: S310 - see `cells`
            with _opener(self.allow_private).open(request, timeout=self.timeout_s) as response:
                while chunk := response.read1(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > self.max_bytes:
                        raise DataError(f"{self} has more than {self.max_bytes:,} bytes")
                    if time.monotonic() > until:
                        raise TimeoutError("timed out")
        except urllib.error.HTTPError as error:
            error.close()
            raise DataError(f"{self} answered HTTP {error.code}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise DataError(f"{self} cannot be fetched: {getattr(error, 'reason', error)}") from None
        if response.length or not body:
            raise DataError(f"{self} is not whole: it broke off, or is empty")
        return bytes(body)


NAME = "pictures.json"
THUMBNAIL = "thumbnail"
"""Key of a picture in a payload, as a data URI."""
_MAX_URI = 100_000  # characters of a data URI that is shown
_URI = re.compile(r"data:image/(?:avif|gif|jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")


class PictureFiles:
    """Finds the image file of a pair in some folders.

    The path is the payload's ``image``, or the id of a pair from a folder or table. Paths that lead out of the folders,
    or exist in several folders, are ignored.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = [folder.resolve() for folder in folders]

    def find(self, id_: str, payload: Payload) -> Path | None:
        """Return the file; None if there is none."""
        for name in (payload.get("image"), id_):
            if not isinstance(name, str) or not name:
                continue
            files = {file for folder in self._folders if (file := _inside(folder, name))}
            if len(files) == 1:
                return files.pop()
        return None


def stored_thumbnail(payload: Payload) -> str | None:
    """The data URI of a small picture in a payload; None without one."""
    given = payload.get(THUMBNAIL)
    return given if isinstance(given, str) and len(given) <= _MAX_URI and _URI.fullmatch(given) else None


def allow_folders(memory: str | os.PathLike[str], folders: Iterable[Path]) -> None:
    """Allow the playground to show image files below more folders; only a memory in a folder stores this.

    Raises:
        MemoryStoreError: the file cannot be written.
    """
    place, known = os.fspath(memory), allowed_folders(memory)
    added = [folder for folder in dict.fromkeys(map(Path.resolve, folders)) if folder not in known]
    if not added or not _is_folder(place):
        return
    allowed = [str(folder) for folder in (*known, *added)]

    def write(file: BinaryIO) -> None:
        file.write(json.dumps({"folders": allowed, "inode": os.fstat(file.fileno()).st_ino}, indent=2).encode())

    try:
        write_whole(Path(place) / NAME, write)
    except OSError as error:
        raise MemoryStoreError(f"cannot write {Path(place) / NAME}: {error}") from error


def allowed_folders(memory: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The allowed folders; none if the file is missing, damaged or a copy from another memory."""
    if not _is_folder(os.fspath(memory)):
        return ()
    try:
        with (Path(memory) / NAME).open("rb") as file:
            note, own = json.load(file), os.fstat(file.fileno()).st_ino
        return tuple(map(Path, note["folders"])) if own and note["inode"] == own else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _is_folder(place: str) -> bool:
    return place != ":memory:" and "://" not in place


def _inside(folder: Path, name: str) -> Path | None:
    try:
        file = (folder / name).resolve()
        return file if file.is_relative_to(folder) and file.is_file() else None
    except (OSError, ValueError):  # too long a name, or a null character
        return None
