"""The files of the page, held in memory, with a policy that lets a browser load nothing from other hosts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from ..failures import Failure
from ..routes import openai_shape, to_response

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-cache",  # requested each time, and answered by 304
}


@dataclass(frozen=True)
class _StaticFile:
    body: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        headers = _HEADERS | {"etag": self.etag}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)


def router() -> APIRouter:
    """``GET /`` and ``GET /page/files/{name}``; without a key, since a browser sends none before it has the page."""
    routes = APIRouter(include_in_schema=False)
    known = {entry.name: _file(entry.name, entry.read_bytes()) for entry in (files(__package__) / "static").iterdir()}

    @routes.get("/")
    async def page(request: Request) -> Response:
        return known["index.html"].answer(request)

    @routes.get("/page/files/{name}")
    async def page_file(request: Request, name: str) -> Response:
        if name not in known:
            return to_response(Failure(404, "not_found", f"the page has no file {name!r:.80}"), openai_shape)
        return known[name].answer(request)

    return routes


def _file(name: str, body: bytes) -> _StaticFile:
    return _StaticFile(body, _TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
