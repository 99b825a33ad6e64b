"""What a route does beside its work: who may call it, by which path, and failures in its dialect's shape.

FastAPI's own failures are told likewise. API keys are for callers, an admin key for the memory; they are compared by
their hashes. Hosts are checked before (:mod:`.hosts`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import re
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ..errors import InputError, RecoError
from ..values import did_you_mean, nearest
from .failures import STOPPING, Failure, Refused, failure_of
from .logs import LOGGER
from .schemas import ERRORS, error_body
from .settings import ServeSettings

Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]
Shape: TypeAlias = Callable[[Failure], dict[str, Any]]
"""A failure as the JSON body of a dialect."""
log = logging.getLogger(LOGGER)
_UNREADABLE = (
    "the body cannot be parsed: send JSON in UTF-8, not compressed, that is not nested hundreds of levels deep"
    " and has no number of thousands of digits"
)
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not known here: leave it out",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "too_short": "is empty: give at least one",
    "string_too_short": "is empty",
}
"""pydantic's kinds of errors whose own words are about Python."""


PREFIXES: dict[str, Literal["plain", "refined"]] = {"/plain": "plain", "/refined": "refined"}
"""First segment of the path -> its meaning; stripped before routing."""
PROBES = ("/livez", "/readyz", "/metrics", "/health", "/ping", "/v1/health/live", "/v1/health/ready")
"""Paths that load balancers and monitoring call every few seconds."""
_SLASHES = re.compile("/{2,}")
_TWICE = re.compile("(/v1){2,}/")
THROTTLED = {"x-amzn-errortype": "ThrottlingException"}
"""Headers of 429 and 503 in every dialect: OpenSearch (ml-commons) tries again only where it reads this."""
ADMIN_PATH = "/v1/memory"
_OPEN = ("/livez", "/readyz", "/health", "/ping", "/v1/health/", "/meta", "/.well-known/", "/openapi.json")
_SCHEME = "bearer "
_KEY_HEADERS = (b"api-key", b"x-api-key")
_USUAL = 256  # characters of a path; others come once


class BodyRefused(HTTPException):
    """A body that is not read to its end; an HTTPException, since FastAPI lets only those through while reading."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.status, failure.message)
        self.failure = failure


def openai_shape(failure: Failure) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``."""
    return {"error": error_body(failure).model_dump()}


def shape_for_all(failure: Failure) -> dict[str, Any]:
    """The same with Voyage's and Jina's ``detail`` and NVIDIA's and Cohere's ``message``: who asks is not known."""
    return openai_shape(failure) | {"detail": failure.message, "message": failure.message}


def answering_in(shape: Shape, headers: Callable[[Failure], dict[str, str]] = lambda _: {}) -> type[APIRoute]:
    """Make the ``route_class`` of a dialect's ``APIRouter``; ``headers`` are added to a failure.

    Example::

        routes = APIRouter(route_class=answering_in(lambda failure: {"detail": failure.message}))
    """

    class DialectRoute(APIRoute):
        said_in = staticmethod(shape)

        def get_route_handler(self) -> Handler:
            template, handle = self.path_format, super().get_route_handler()

            async def answer(request: Request) -> Response:
                life, state = request.state.life, request.app.state
                try:
                    # before the body is read
                    state.guard.check(template, credential(life.sent), local=is_local(request.scope, state.local))
                    if request.method == "POST" and not template.startswith(ADMIN_PATH):
                        state.edge.lanes.check_room()
                    async with asyncio.timeout_at(life.until):
                        return await handle(request)
                except TimeoutError:
                    failure = life.late
                except asyncio.CancelledError:  # uvicorn cancels when `shutdown_s` is over
                    failure = STOPPING
                except Exception as error:
                    failure = to_failure(error)
                response = to_response(failure, shape)
                response.headers.update(headers(failure))
                return response

            return answer

    return DialectRoute


def memory_routes() -> APIRouter:
    """An empty router below :data:`ADMIN_PATH`; the key check decides who may use what is added."""
    return APIRouter(
        prefix=ADMIN_PATH,
        route_class=answering_in(openai_shape),
        tags=["memory"],
        responses=ERRORS | {403: {**ERRORS[401], "description": "no admin key is set"}},
    )


def is_local(scope: Scope, place: str | None) -> bool:
    """Whether a request came over the service's own socket at this path; only the server says so, no client can."""
    return place is not None and (scope.get("server") or ("",))[0] == place


def is_form(sent: Mapping[bytes, bytes]) -> bool:
    """Whether a body is a form with files, by the headers that were sent; their case says nothing.

    >>> is_form({b"content-type": b"Multipart/Form-Data; boundary=x"})
    True
    """
    return sent.get(b"content-type", b"").lower().startswith(b"multipart/form-data")


def as_json(scope: Scope) -> Scope:
    """The scope of a request whose body counts as JSON, whatever ``content-type`` says.

    AWS' clients, curl and others send another one or none. Not with an ``origin``: browsers send other types across
    sites without a preflight request.
    """
    sent = dict(scope["headers"])
    if b"origin" in sent or is_form(sent):
        return scope
    headers = [header for header in scope["headers"] if header[0] != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


def routed(scope: Scope) -> Scope:
    """The scope by which a route is found, with the meaning of the prefix in its state.

    Slashes too many, which clients make of a base URL that ends in one, are dropped, and so is a second ``/v1``, which
    they add to a base URL that has it. HEAD is answered as GET: the server drops the body.

    >>> routed({"path": "/refined//v1/v1/embeddings/", "method": "HEAD"})
    {'path': '/v1/embeddings', 'method': 'GET', 'state': {'prefix': 'refined'}}
    """
    drop_second_root(scope)
    state, asked, root = scope.setdefault("state", {}), scope["path"], scope.get("root_path", "")
    path, manner = path_of(asked, root)
    if manner is not None:
        state["prefix"] = manner
    return {**scope, "path": path, "method": "GET" if scope["method"] == "HEAD" else scope["method"]}


def drop_second_root(scope: Scope) -> None:
    """Make the path of a request what it is where the proxy takes its own path off.

    The server puts ``root_path`` before each path; a proxy that passes paths on as they came has it there already.

    >>> scope = {"path": "/clip/clip/livez", "raw_path": b"/clip/clip/livez", "root_path": "/clip"}
    >>> drop_second_root(scope)
    >>> scope["path"], scope["raw_path"]
    ('/clip/livez', b'/clip/livez')
    """
    root = scope.get("root_path", "")
    if root and f"{scope['path']}/".startswith(f"{root}{root}/"):
        scope["path"] = scope["path"].removeprefix(root)
        if "raw_path" in scope:
            scope["raw_path"] = scope["raw_path"].removeprefix(root.encode())


def path_of(asked: str, root: str) -> tuple[str, Literal["plain", "refined"] | None]:
    """The path by which a route is found, and the meaning of its prefix; ``root`` is the proxy's, which it may drop."""
    return _known_path(asked, root) if len(asked) < _USUAL else _path_of(asked, root)


def _path_of(asked: str, root: str) -> tuple[str, Literal["plain", "refined"] | None]:
    path, said = _TWICE.sub("/v1/", _SLASHES.sub("/", asked)), None
    for prefix, manner in PREFIXES.items():
        for before in {root, ""}:
            if f"{path}/".startswith(f"{before}{prefix}/"):
                path, said = before + (path.removeprefix(before + prefix) or "/"), manner
    return path if path[:-1] in ("", root) else path.removesuffix("/"), said


_known_path = lru_cache(maxsize=256)(_path_of)


class Shapes:
    """The shape of failures for each path; an unknown path has that of the most similar dialect, or all in one."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        self._shapes: dict[str, Shape] = {
            route.path_format: getattr(route, "said_in", openai_shape)
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute)
        }

    @property
    def paths(self) -> Collection[str]:
        """All that are known, for people."""
        return self._shapes.keys()

    def of(self, scope: Scope) -> Shape:
        """The shape for a request: that of the path with the longest common beginning."""
        asked = scope["path"].removeprefix(scope.get("root_path", "")).split("/")[1:]
        shared = {path: _begin_alike(path.split("/")[1:], asked) for path in self._shapes}
        best = max(shared, key=shared.__getitem__)
        shape = self._shapes[best] if shared[best] else openai_shape
        return shape_for_all if shape is openai_shape else shape


def _begin_alike(path: Sequence[str], asked: Sequence[str]) -> int:
    """How many leading segments are the same.

    >>> _begin_alike(["model", "{model}", "invoke"], ["model", "clip", "invoke", ""])
    3
    """
    same = [known == given or known.startswith("{") for known, given in zip(path, asked, strict=False)]
    return [*same, False].index(False)


def to_failure(error: Exception) -> Failure:
    """The failure of any exception; defects are logged with their trace."""
    match error:
        case RequestValidationError():
            return _invalid(error)
        case BodyRefused():
            return error.failure
        case HTTPException():  # of FastAPI itself, which does not say why it cannot parse a body
            return Failure(error.status_code, "invalid_body", _UNREADABLE)
    failure = failure_of(error)
    if isinstance(error, RecoError) and not isinstance(error, InputError):  # callers get no details of these
        log.warning("request failed: %s", error, extra={"code": failure.code})
    elif not isinstance(error, RecoError | Refused):
        log.error("request failed: %s", error, exc_info=error, extra={"code": failure.code})
    return failure


def to_response(failure: Failure, shape: Shape) -> JSONResponse:
    """The response to a failure."""
    headers: dict[str, str] = {}
    if failure.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(failure.retry_after_s)))
    if failure.status in (429, 503):
        headers.update(THROTTLED)
    if failure.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(shape(failure), failure.status, headers)


def no_route(method: str, path: str, allowed: str | None, known: Collection[str] = ()) -> Failure:
    """The failure of a request that no route answers.

    >>> no_route("GET", "/v1/embeddings", "POST").message
    '/v1/embeddings takes POST, not GET'
    >>> no_route("POST", "/v1/embedding", None, ["/v1/embeddings", "/v1/models"]).message
    "there is no /v1/embedding here, did you mean '/v1/embeddings'? GET /docs shows what there is"
    """
    if allowed:
        return Failure(405, "method_not_allowed", f"{path:.100} takes {allowed}, not {method}")
    asked = path[:100]  # a longer one is like none, and would take long to compare
    near = f", {did_you_mean(asked, known)} " if nearest(asked, known) else ": "
    return Failure(404, "not_found", f"there is no {asked} here{near}GET /docs shows what there is")


def _invalid(error: RequestValidationError) -> Failure:
    """The first error of a request, with the name of its field and what was given."""
    errors = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", first["msg"])
        return Failure(400, "invalid_json", f"the body is not JSON: {reason}, at character {first['loc'][-1]}")
    of_field = [one for one in errors if one["loc"][:2] == first["loc"][:2]]  # one for each type that it may have
    deepest = max(of_field, key=lambda one: len(one["loc"]))
    name = _name(deepest, error.body)
    return Failure(400, "invalid_request", (name or "the body") + _reason(deepest), name or None)


def _name(error: Mapping[str, Any], body: Any) -> str:
    """The place of an error in what was sent, without pydantic's names of the types that it tried.

    >>> _name({"type": "string_type", "loc": ("body", "inputs", "list[str]", 1)}, {"inputs": ["a", 1]})
    'inputs[1]'
    """
    source, *parts = error["loc"]
    if source != "body":
        return ".".join(map(str, parts))
    name, value = "", body
    for left, part in zip(range(len(parts))[::-1], parts, strict=True):
        if isinstance(part, int) and isinstance(value, list):
            name, value = f"{name}[{part}]", value[part]
        elif isinstance(value, dict) and (part in value or error["type"] == "missing"):
            is_form = left and value.get("type") == part
            name, value = (name, value) if is_form else (f"{name}.{part}", value.get(part))
    return name.removeprefix(".")


def _reason(error: Mapping[str, Any]) -> str:
    """What is wrong with a field, to follow its name."""
    given = error["input"]
    said: str = error["msg"].removeprefix("Value error, ").partition(", unable")[0]
    if error["type"] in _WORDS:
        how = ", sent with content-type: application/json" if isinstance(given, bytes | bytearray) else ""
        return f" {_WORDS[error['type']]}{how}"
    if error["type"].startswith("union_tag"):
        tags = error["ctx"].get("expected_tags")  # of the forms that an object may have
        return f": {error['ctx']['discriminator']} " + (f"must be {tags}" if tags else "is missing")
    if not said.startswith("Input should be"):
        return f": {said}"
    shown = given[:60] if isinstance(given, str) else given
    got = f", got {shown!r:.60}" if isinstance(given, str | int | float | None) else ""
    return said.replace("Input should be", " must be") + got


def credential(sent: Mapping[bytes, bytes]) -> str | None:
    """The key in the headers of a request: a bearer key, or one that Azure's clients and other gateways send.

    >>> credential({b"authorization": b"AWS4-HMAC-SHA256 ...", b"x-api-key": b"k"})
    'Bearer k'
    """
    shown = sent.get(b"authorization", b"").decode("latin-1")
    if shown[: len(_SCHEME)].lower() != _SCHEME:
        for name in _KEY_HEADERS:
            if name in sent:
                return f"Bearer {sent[name].decode('latin-1')}"
    return shown or None


class KeyCheck:
    """Checks the path and the ``authorization`` header of a request, before its body is read."""

    def __init__(self, settings: ServeSettings) -> None:
        self._callers = [_hash(key.get_secret_value().encode()) for key in settings.api_keys]
        admin = settings.admin_key
        self._admin = [_hash(admin.get_secret_value().encode())] if admin else []
        self._metrics, shown = settings.metrics_key, settings.show_pairs
        self._show_pairs = (bool(self._callers) or not self._admin) if shown is None else shown

    def check(self, path: str, authorization: str | None, *, local: bool = False) -> None:
        """Check a request's key; the admin key opens everything.

        A ``local`` request came over the socket that only the user who serves can reach, and needs none.

        Raises:
            Refused: 401, no key or a wrong one; 403, there is no admin key, so the memory is closed over HTTP.
        """
        if local:
            return
        if path == ADMIN_PATH or path.startswith(f"{ADMIN_PATH}/"):
            if not self._admin:
                message = "the memory is not open over HTTP: set admin_key (RECO_SERVE_ADMIN_KEY) and start again"
                raise Refused(Failure(403, "admin_disabled", message))
            _require(self._admin, authorization, "the admin key")
        elif self._callers and self._needs_key(path):
            _require(self._callers + self._admin, authorization, "an API key")

    def check_pairs(self, authorization: str | None) -> None:
        """Check whether an accepted request may see pairs of the memory.

        Raises:
            Refused: 401, only the admin key may; 403, no key may.
        """
        if self._show_pairs:
            return
        if not self._admin:
            message = "pairs of the memory are not shown: show_pairs is off, and there is no admin key"
            raise Refused(Failure(403, "pairs_hidden", message))
        if not _fits(self._admin, _bearer(authorization)):
            message = "pairs of the memory are shown to the admin key only (show_pairs): send it as the bearer key"
            raise Refused(Failure(401, "admin_key_needed", message))

    def _needs_key(self, path: str) -> bool:
        return self._metrics if path == "/metrics" else not path.startswith(_OPEN)


def _require(keys: Iterable[bytes], authorization: str | None, what: str) -> None:
    if (key := _bearer(authorization)) is None:
        message = f"this needs {what}: send the header `authorization: Bearer KEY` (or `api-key: KEY`)"
        raise Refused(Failure(401, "key_missing", message))
    if not _fits(keys, key):
        raise Refused(Failure(401, "key_wrong", f"the key is not known here: this needs {what}"))


def _bearer(authorization: str | None) -> str | None:
    """The key of a header; each character is a byte that was sent."""
    given = authorization or ""
    return given[len(_SCHEME) :].strip(" \t") if given[: len(_SCHEME)].lower() == _SCHEME else None


def _fits(keys: Iterable[bytes], key: str | None) -> bool:
    if key is None:
        return False
    sent = [_hash(key.encode("latin-1")), _hash(key.encode())]  # sent as UTF-8, or as Latin-1
    fits = [hmac.compare_digest(one, known) for one in sent for known in keys]  # all are compared: constant time
    return any(fits)


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
